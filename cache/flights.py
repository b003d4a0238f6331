"""Single flight: of all who want the same result at once, one computes it and the others wait.

Threads of one process queue for a turn. The first of them takes the lock of the stores, which keeps out other processes
and machines; it is handed on with the turn, and given back when the queue is empty, so that a thousand waiting threads
cost one lock. While it is held, a thread renews it: work may take as long as it likes, and a process that dies keeps
others waiting no longer than the lock's time. Without a store that works, threads still take turns.
"""

from __future__ import annotations

import threading
import time
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cache.store import Store

__all__ = ["Flights"]

_FIRST_POLL_SECONDS = 0.01
_LONGEST_POLL_SECONDS = 0.25


class Flights:
    """Lets one holder at a time compute what is named by a key.

    Parameters
    ----------
    locks
        Whose locks keep out other processes.
    lock_seconds
        Time limit of a lock, renewed at every third of it: what a dead holder costs the others.
    wait_seconds
        How long to wait in all; then one goes on without holding.
    """

    def __init__(self, locks: Store, *, lock_seconds: float, wait_seconds: float) -> None:
        self._locks = locks
        self._lock_seconds = lock_seconds
        self._wait_seconds = wait_seconds
        self._queues: dict[str, _Queue] = {}
        self._guard = threading.Lock()

    @contextmanager
    def flight(self, key: str) -> Iterator[None]:
        """Run the block when nobody else does under the same key, or when the waiting has taken too long."""
        deadline = time.monotonic() + self._wait_seconds
        with self._guard:
            queue = self._queues.setdefault(key, _Queue())
            queue.threads += 1
        turn = False
        try:
            turn = queue.turn.acquire(timeout=self._wait_seconds)
            if turn and queue.renewal is None and self._acquired(key, queue.owner, deadline):
                queue.renewal = _Renewal(self._locks, key, queue.owner, self._lock_seconds)
            yield
        finally:
            with self._guard:
                queue.threads -= 1
                last = not queue.threads
                if last:
                    del self._queues[key]
            if last and queue.renewal is not None:
                queue.renewal.end()
                self._locks.release(key, queue.owner)
            if turn:
                queue.turn.release()

    def _acquired(self, key: str, owner: str, deadline: float) -> bool:
        """Take the stores' lock; False if time ran out."""
        pause = _FIRST_POLL_SECONDS
        while not self._locks.acquire(key, owner, self._lock_seconds):
            if time.monotonic() + pause > deadline:
                return False
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_POLL_SECONDS)
        return True


class _Renewal:
    """A thread that renews a lock until it is told to end."""

    def __init__(self, locks: Store, name: str, owner: str, seconds: float) -> None:
        self._done = threading.Event()
        self._thread = threading.Thread(
            target=self._renew, args=(locks, name, owner, seconds), name="cache-lock-renewal", daemon=True
        )
        self._thread.start()

    def end(self) -> None:
        """Return when nothing renews the lock any more."""
        self._done.set()
        self._thread.join()

    def _renew(self, locks: Store, name: str, owner: str, seconds: float) -> None:
        while not self._done.wait(seconds / 3):
            locks.acquire(name, owner, seconds)


class _Queue:
    """The threads of this process that are, or want to be, under way under one key."""

    def __init__(self) -> None:
        self.threads = 0
        self.turn = threading.Lock()
        self.owner = uuid.uuid4().hex
        self.renewal: _Renewal | None = None  # while the stores' lock is held
