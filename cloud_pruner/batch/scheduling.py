"""Hands tasks to workers that may be lost at any moment; knows nothing of what workers are.

The rules
---------
1. A worker gets tasks once it has said that it is ready, and never has more than the crew's `depth` of them.
2. A worker that is lost is replaced while there is work for it. What it was at counts as tried; what only waited for
   it does not. Both are given to others.
3. A task that was tried `TRIES` times without an answer is answered by an error: perhaps it needs more memory than
   there is.
4. Workers that are lost before they are ready are not replaced for ever: after `TRIES` of them in a row, or one that
   says why it cannot work, all ends.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

from cloud_pruner.batch.work import Answer
from cloud_pruner.errors import PrunerError

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from cloud_pruner.batch.work import Task

__all__ = ["TRIES", "Crew", "Done", "Event", "Lost", "Ready", "Unfit", "answers"]

TRIES: Final = 3

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ready:
    """A worker is prepared."""

    worker: int


@dataclass(frozen=True, slots=True)
class Done:
    """A worker has answered the task that it was given first."""

    worker: int
    answer: Answer


@dataclass(frozen=True, slots=True)
class Lost:
    """A worker is gone, and in a few words why."""

    worker: int
    why: str


@dataclass(frozen=True, slots=True)
class Unfit:
    """A worker cannot work, and no other could: in one line why."""

    worker: int
    why: str


Event: TypeAlias = "Ready | Done | Lost | Unfit"


class Crew(Protocol):
    """Workers, wherever they are."""

    size: int
    """How many work at once."""
    depth: int
    """How many tasks a worker may have: above 1 where it would wait for the next one to arrive."""

    def hire(self) -> int:
        """Start a worker and return its number."""

    def give(self, worker: int, task: Task) -> None:
        """Give a task to a worker; should it be gone, `wait` will say so."""

    def wait(self) -> list[Event]:
        """Return what has happened, at least one thing; nothing follows the loss of a worker."""

    def close(self) -> None:
        """End all workers."""


def answers(tasks: Sequence[Task], crew: Crew) -> Generator[tuple[Task, Answer], None, None]:
    """Yield tasks and their answers, as they become ready.

    Raises
    ------
    PrunerError
        Workers cannot work at all.
    """
    shift = _Shift(tasks, crew)
    while shift.has_work:
        shift.hire()
        for event in crew.wait():
            finished = shift.heard(event)
            if finished is not None:
                yield finished
        shift.share_out()


class _Shift:
    """Who is there, what each has, and what waits."""

    def __init__(self, tasks: Sequence[Task], crew: Crew) -> None:
        self._crew = crew
        self._waiting = deque(tasks)
        self._tried: Counter[str] = Counter()
        self._starting: set[int] = set()
        self._lost_at_start = 0
        self._at_work: dict[int, deque[Task]] = {}  # of those who are ready

    @property
    def has_work(self) -> bool:
        return bool(self._waiting) or any(self._at_work.values())

    def hire(self) -> None:
        """See that there are as many workers as there are places, or tasks."""
        busy = sum(map(bool, self._at_work.values()))
        while len(self._starting) + len(self._at_work) < min(self._crew.size, len(self._waiting) + busy):
            self._starting.add(self._crew.hire())

    def share_out(self) -> None:
        """Give what waits to those who have least."""
        while self._waiting and self._at_work:
            worker = min(self._at_work, key=lambda one: len(self._at_work[one]))
            if len(self._at_work[worker]) >= self._crew.depth:
                return
            task = self._waiting.popleft()
            self._at_work[worker].append(task)
            self._crew.give(worker, task)

    def heard(self, event: Event) -> tuple[Task, Answer] | None:
        """Take note of an event; return what is finished by it."""
        match event:
            case Ready(worker):
                self._starting.remove(worker)
                self._at_work[worker] = deque()
                self._lost_at_start = 0
            case Done(worker, answer):
                return self._at_work[worker].popleft(), answer
            case Unfit(_, why):
                raise PrunerError(why)
            case Lost(worker, why) if worker in self._starting:
                self._starting.remove(worker)
                self._lost_at_start += 1
                if self._lost_at_start >= TRIES:
                    raise PrunerError(f"workers end before they can work ({why}): see that there is memory for them")
            case Lost(worker, why):
                return self._again(self._at_work.pop(worker), why)
        return None

    def _again(self, left: deque[Task], why: str) -> tuple[Task, Answer] | None:
        """Let others do what a lost worker has left; return the task that it was at, where that was the last try."""
        _log.warning("a worker is lost (%s): others do what it has left", why)
        finished = None
        if left:
            key = left[0].key
            self._tried[key] += 1
            if self._tried[key] >= TRIES:
                told = f"workers end at this request, {TRIES} of {TRIES} times ({why}): see that there is memory for it"
                finished = left.popleft(), Answer(None, told)
        self._waiting.extendleft(reversed(left))
        return finished
