"""Writes that come at the same time share one transaction, and so one wait for the disk."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from sqlalchemy import Connection

__all__ = ["GroupCommit"]

_AT_ONCE: Final = 64


class GroupCommit:
    """Takes turns: whoever comes first writes for all who wait by then. For any number of threads.

    Parameters
    ----------
    writing
        Opens a transaction.
    """

    def __init__(self, writing: Callable[[], AbstractContextManager[Connection]]) -> None:
        self._writing = writing
        self._waiting: list[_Write] = []
        self._turn = threading.Lock()
        self._leader = threading.Lock()

    def write(self, act: Callable[[Connection], object]) -> None:
        """Let `act` write; when this returns, what it wrote is on the disk. It may be called twice, anew each time.

        Raises
        ------
        StateError
            It cannot be written now. What `act` raises comes through as it is.
        """
        own = _Write(act)
        with self._turn:
            self._waiting.append(own)
        with self._leader:
            while not own.is_done:
                with self._turn:
                    group, self._waiting = self._waiting[:_AT_ONCE], self._waiting[_AT_ONCE:]
                self._write(group)
        if own.error is not None:
            raise own.error

    def _write(self, group: list[_Write]) -> None:
        try:
            with self._writing() as connection:
                for one in group:
                    one.act(connection)
        except BaseException as error:  # noqa: BLE001 - each of them raises it to its own caller
            if len(group) > 1 and isinstance(error, Exception):
                # It may be one of them that cannot be written: the others shall not fail with it.
                for one in group:
                    self._write([one])
                return
            for one in group:
                one.error = error
        for one in group:
            one.is_done = True


class _Write:
    """What one thread wants to write, and what became of it."""

    __slots__ = ("act", "error", "is_done")

    def __init__(self, act: Callable[[Connection], object]) -> None:
        self.act = act
        self.is_done = False
        self.error: BaseException | None = None
