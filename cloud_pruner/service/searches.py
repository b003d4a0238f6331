"""Searches, one at a time in a thread of their own, and a bounded number that wait."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from concurrent.futures import Future
from typing import TYPE_CHECKING, Final

from cloud_pruner.errors import PrunerError

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloud_pruner.personalized import Personalized

__all__ = ["BusyError", "SearchQueue"]

# Of the mean, for the search that ended last: a few searches say what the next ones take.
_NEWEST_SHARE: Final = 0.3
_FIRST_GUESS_S: Final = 1.0
_RETRY_MAX_S: Final = 300

_log = logging.getLogger(__name__)


class BusyError(PrunerError):
    """More is asked for than can be worked on.

    Attributes
    ----------
    retry_after_s
        When to try again.
    """

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class SearchQueue:
    """Runs what is submitted, in order; for any number of threads. The same wish is worked on once for all who have it.

    Parameters
    ----------
    waiting_max
        How many wait at most, besides the one under way.
    changed
        Is told how many wait or are under way, whenever that changes.
    """

    def __init__(self, waiting_max: int, changed: Callable[[int], None] = lambda _: None) -> None:
        self._waiting_max, self._changed = waiting_max, changed
        self._waiting: deque[tuple[str, Callable[[], Personalized]]] = deque()
        self._known: dict[str, Future[Personalized]] = {}
        self._mean_s = _FIRST_GUESS_S
        self._turn = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="searches", daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        """How many wait or are under way."""
        return len(self._known)

    def submit(self, key: str, work: Callable[[], Personalized]) -> Future[Personalized]:
        """Queue `work`, which `key` tells from others; where it is queued or under way already, return that one's.

        Raises
        ------
        BusyError
            Too many wait.
        """
        with self._turn:
            future = self._known.get(key)
            if future is None:
                if self._closed:
                    raise BusyError("the service is about to end: try again in a second", 1)
                if len(self._waiting) >= self._waiting_max:
                    waiting = len(self._waiting)
                    raise BusyError(f"{waiting} searches wait already: try again later", self.retry_after_s)
                future = self._known[key] = Future()
                self._waiting.append((key, work))
                self._turn.notify()
                self._changed(len(self._known))
        return future

    @property
    def retry_after_s(self) -> int:
        """When a place will be free, to judge by the last searches, in whole s."""
        return min(max(1, math.ceil(len(self._known) * self._mean_s)), _RETRY_MAX_S)

    def close(self) -> None:
        """Take no more; forget what waits. What is under way ends by itself."""
        with self._turn:
            self._closed = True
            for key, _ in self._waiting:
                self._known.pop(key).cancel()
            self._waiting.clear()
            self._turn.notify()

    def _work(self) -> None:
        while True:
            with self._turn:
                self._turn.wait_for(lambda: self._waiting or self._closed)
                if self._closed:
                    return
                key, work = self._waiting.popleft()
                future = self._known[key]
            start = time.monotonic()
            answer: Personalized | BaseException
            try:
                answer = work()
            except BaseException as error:  # noqa: BLE001 - whatever it is, it is for those who wait
                answer = error
            seconds = time.monotonic() - start
            with self._turn:
                self._mean_s += _NEWEST_SHARE * (seconds - self._mean_s)
                del self._known[key]
                self._changed(len(self._known))
            if isinstance(answer, BaseException):
                future.set_exception(answer)
            else:
                future.set_result(answer)
