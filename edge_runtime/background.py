"""A thread that does one thing again and again, ends when it is told to, and survives its own failures."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Background"]

_log = logging.getLogger(__name__)


class Background:
    """Calls `step` in a thread of its own: at first, when woken, and when the time is over that `step` returned.

    Parameters
    ----------
    name
        Of the thread, for logs.
    step
        Returns the time in s after which it wants to be called without another reason; None for never.
    failed
        Called with what `step` raised, which is logged; returns as `step` does.
    """

    def __init__(
        self, name: str, step: Callable[[], float | None], failed: Callable[[Exception], float | None]
    ) -> None:
        self._step = step
        self._failed = failed
        self._wake = threading.Event()
        self._stopping = threading.Event()
        # A daemon thread: where something holds it longer than `stop` waits, the process ends without it.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def wake(self) -> None:
        """Have `step` called as soon as a call under way is over."""
        self._wake.set()

    def stop(self, timeout_s: float) -> bool:
        """Let `step` end and call it no more; return whether the thread ended within `timeout_s`."""
        self._stopping.set()
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            # Before looking at anything, not after the wait: what comes up meanwhile then ends the wait at once.
            self._wake.clear()
            if self._stopping.is_set():
                return
            try:
                wait_s = self._step()
            except Exception as error:  # noqa: BLE001 - a thread that dies silently would never do its work again
                _log.exception("%s: failed unexpectedly", self._thread.name)
                wait_s = self._failed(error)
            self._wake.wait(wait_s)
