"""Made-up requests: whose classes, how often each comes up, and how that changes over time.

A request has K classes and a weight for each. Classes are drawn one after the other without replacement, each with a
probability in proportion to its popularity, which is Zipf's: the class of rank r has 1 / r^s. Every other request has
equal weights on average; the others' are drawn evenly from all that sum to 1. Both are rounded to steps of 5 % as
those of real requests are. Traces depend on their settings and the seed alone.

There is no trace of real users to go by. In these, users are alike only because they like the same classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import TYPE_CHECKING, Final

import numpy as np

from cloud_pruner.errors import RequestError
from cloud_pruner.requests import WEIGHT_STEP

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["K_LEAST", "K_MOST", "SCENARIOS", "Trace", "TraceSettings", "make_trace"]

SCENARIOS: Final = {
    "steady": "the same classes stay popular",
    "drift": "popularity changes slowly: each hundredth of the trace, one class in fifty trades ranks with another",
    "shift": "popularity changes at once: halfway through, all classes get new ranks",
    "scan": "one request in five is of a scan, in ten bursts: the most classes a request may have, all alike popular",
}
"""Name -> what happens to the popularity of classes."""

K_LEAST: Final = 2
K_MOST: Final = 5
_PARTS: Final = 100  # of a trace: popularity stays the same within each
_SWAPS: Final = 0.02  # of the classes, after each part of a drifting trace
_BURST: Final = 2  # parts out of ten that are a scan
_EQUAL: Final = 0.5  # of the requests have equal weights


@dataclass(frozen=True, slots=True)
class TraceSettings:
    """What is asked for.

    Attributes
    ----------
    classes
        Of the model; `K_LEAST` or more.
    zipf
        Exponent s of the classes' popularity: 0 makes all alike.
    scenario
        One of `SCENARIOS`.
    requests
        How many.
    weighted
        Whether weights tell requests apart. They do for methods that look at them (W, M), not for B and L.
    seed
        Of everything random.
    """

    classes: int
    zipf: float
    scenario: str
    requests: int
    weighted: bool
    seed: int

    def __post_init__(self) -> None:
        if self.classes < K_LEAST:
            raise RequestError(f"{self.classes} classes: requests in this study have {K_LEAST} or more")


@dataclass(frozen=True, eq=False)
class Trace:
    """Requests in order of time; equal ones have equal numbers.

    Attributes
    ----------
    classes
        `(requests, K_MOST) int16`: ascending, then -1 where a request has fewer.
    steps
        `(requests, K_MOST) int16`: the classes' weights in steps of `WEIGHT_STEP`, then 0. 1 for each class where
        weights do not tell requests apart.
    sets, plans
        `(requests,) int64`: number of the class set, and of the whole request, in the order of their first requests.
    """

    classes: NDArray[np.int16]
    steps: NDArray[np.int16]
    sets: NDArray[np.int64]
    plans: NDArray[np.int64]

    @cached_property
    def set_of_plan(self) -> list[int]:
        """Return the class set of each plan."""
        numbers: list[int] = self.sets[np.unique(self.plans, return_index=True)[1]].tolist()
        return numbers

    @cached_property
    def places(self) -> list[list[int]]:
        """Return for each class set where plans for it are to be found: set x `K_MOST` + (number of its classes - 1).

        There is such a place for each of the trace's sets that it contains, itself among them.
        """
        rows = self.classes[np.unique(self.sets, return_index=True)[1]].tolist()
        members = [tuple(label for label in row if label >= 0) for row in rows]
        numbers = {labels: number for number, labels in enumerate(members)}
        found = []
        for labels in members:
            parts = (part for size in range(K_LEAST, len(labels) + 1) for part in combinations(labels, size))
            inside = (numbers.get(part) for part in parts)
            found.append([number * K_MOST + len(labels) - 1 for number in inside if number is not None])
        return found

    def by_clusters(self, clusters: NDArray[np.int16]) -> NDArray[np.int64]:
        """Give requests numbers by what they are to one layer, the weight of each of its clusters: `(requests,) int64`.

        Parameters
        ----------
        clusters
            `(classes,)`: the cluster of each class.
        """
        weights = np.zeros((len(self.classes), int(clusters.max()) + 1), np.int16)
        there = self.classes >= 0
        requests = np.nonzero(there)[0]
        np.add.at(weights, (requests, clusters[self.classes[there]]), self.steps[there])
        return numbered(weights)


def make_trace(settings: TraceSettings) -> Trace:
    """Draw the requests."""
    rng = np.random.default_rng(settings.seed)
    most = min(K_MOST, settings.classes)
    popularity = np.log(np.arange(1, settings.classes + 1)) * -settings.zipf
    ranks = rng.permutation(settings.classes)
    parts = []
    for part, share in enumerate(np.array_split(np.arange(settings.requests), _PARTS)):
        if settings.scenario == "shift" and part == _PARTS // 2:
            ranks = rng.permutation(settings.classes)
        if settings.scenario == "drift" and part:
            for _ in range(max(1, round(_SWAPS * settings.classes))):
                pair = rng.choice(settings.classes, 2, replace=False)
                ranks[pair] = ranks[pair[::-1]]
        scan = settings.scenario == "scan" and part % 10 >= 10 - _BURST
        liking = np.zeros(settings.classes) if scan else popularity[ranks]
        # Gumbel noise on the logarithms: the largest are a draw without replacement.
        drawn = np.argsort(-(liking + rng.gumbel(size=(len(share), settings.classes))), axis=1)[:, :most]
        counts = np.full(len(share), most) if scan else rng.integers(K_LEAST, most + 1, len(share))
        drawn[np.arange(most) >= counts[:, None]] = settings.classes  # behind the others when sorted
        parts.append(np.sort(drawn, axis=1))
    labels = np.concatenate(parts)
    steps = _steps(rng, labels < settings.classes, weighted=settings.weighted)
    labels[labels == settings.classes] = -1
    classes = labels.astype(np.int16)
    return Trace(classes, steps, numbered(classes), numbered(np.hstack([classes, steps])))


def _steps(rng: np.random.Generator, there: NDArray[np.bool_], *, weighted: bool) -> NDArray[np.int16]:
    """Return rounded weights where `there`, `(requests, most)`, says that a class is; 0 elsewhere."""
    if not weighted:
        return there.astype(np.int16)
    weights = np.where(there, rng.exponential(size=there.shape), 0.0)  # divided by their sum: even on the simplex
    equal = rng.random(len(there)) < _EQUAL
    weights[equal] = there[equal]
    weights /= weights.sum(axis=1, keepdims=True)
    steps: NDArray[np.int16] = np.where(there, np.maximum(np.rint(weights / WEIGHT_STEP), 1), 0).astype(np.int16)
    return steps


def numbered(rows: NDArray[np.int16]) -> NDArray[np.int64]:
    """Give equal rows the same number, in the order in which they first appear."""
    numbers: dict[bytes, int] = {}
    return np.array([numbers.setdefault(row.tobytes(), len(numbers)) for row in rows], np.int64)
