"""What a worker of a batch does: one search for each key, alone on its profile, without looking at any cache.

Whatever becomes of a request depends on the request and the profile only, not on what was searched before it or beside
it: that is why answers are the same with any number of workers, on any engine, in any order.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cloud_pruner.asked import Asked
from cloud_pruner.errors import PrunerError
from cloud_pruner.personalize import Personalizer
from cloud_pruner.personalized import encode
from cloud_pruner.requests import PruneRequest
from edge_runtime.errors import EdgeError

if TYPE_CHECKING:
    from cloud_pruner.profile import Profile

__all__ = ["Answer", "Task", "Workbench", "task_for"]


@dataclass(frozen=True, slots=True)
class Task:
    """A key, and a request that is kept under it."""

    key: str
    request: PruneRequest


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a task.

    Attributes
    ----------
    value
        The answer, as a cache keeps it; None where there is none.
    error
        In one line, why there is none.
    seconds
        What it took.
    """

    value: bytes | None
    error: str = ""
    seconds: float = 0.0


def task_for(asked: Asked) -> Task:
    """Return the task that stands for all requests under one key: the same one, whichever of them comes first."""
    request = asked.request
    # Where weights do not count, users with the same classes and other weights share the key.
    usage = request.usage if asked.method.weighted else dict.fromkeys(asked.names, 1.0)
    return Task(
        asked.key,
        PruneRequest(
            usage,
            asked.method.name,
            request.epsilon,
            request.guarantee,
            request.delta,
            objective=request.objective,
        ),
    )


class Workbench:
    """Does tasks on one profile."""

    def __init__(self, profile: Profile) -> None:
        self._personalizer = Personalizer(profile)

    def do(self, task: Task) -> Answer:
        """Search; what fails for this request alone is part of the answer.

        Raises
        ------
        PrunerError
            The request has another key here: this is another version than the one that asks.
        """
        if Asked.of(self._personalizer.profile, task.request).key != task.key:
            raise PrunerError("a worker has another version of capnn: install the same one on all machines")
        start = time.perf_counter()
        value, why = None, ""
        try:
            value = encode(self._personalizer.personalize(task.request))
        except (PrunerError, EdgeError) as error:
            why = " ".join(str(error).split())
        except Exception as error:  # noqa: BLE001 - one request must not end all others
            why = " ".join(f"{type(error).__name__}: {error}".split())
        return Answer(value, why, time.perf_counter() - start)
