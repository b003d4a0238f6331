"""Plays a trace against a cache and counts what it answers, tier by tier.

- **exact**: the plan for this request is held.
- **superset**: a plan is held for classes that contain the request's; of several, one with the fewest classes, and of
  those the one stored first. Plans for the same classes with other weights count here, and are counted apart too.
- **thresholds**: for every layer a threshold is held that was found for a request which, to that layer's clusters of
  classes, is the same.

After an answer other than an exact one, the request's own plan is stored; after a search, the thresholds too. Plans
and thresholds share the cache. What is found counts as used. A near hit is always accepted here, while a real one has
to be certified, and to be small enough. On the other hand real keys tell users apart less finely: weights by halves,
and for variant L only which clusters of the last layer there are (`near_hits`). `benchmarks.cache` has real ones.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from cloud_pruner.cache_study.trace import K_MOST
from cloud_pruner.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from cloud_pruner.cache_study.policies import Policy
    from cloud_pruner.cache_study.trace import Trace

__all__ = ["THRESHOLD_BYTES", "Answers", "CostModel", "Workload", "entry_sizes", "simulate", "workload"]

THRESHOLD_BYTES: Final = 128
"""Of a layer's threshold as an entry: a key of 73 bytes, the seconds it took, and a number with its name."""


@dataclass(frozen=True, slots=True)
class CostModel:
    """What answers cost, and what entries weigh. An exact answer costs nothing here: it takes milliseconds.

    Attributes
    ----------
    cold
        Seconds of an answer that has to be searched: the median.
    near
        Seconds of an answer from a near hit: certifying it, and making the file.
    plan_bytes
        Sizes of stored plans. Each plan has one of them, all with the same probability.
    weighted
        Whether weights tell requests apart. They do for methods that look at them (W, M), not for B and L.
    """

    cold: float
    near: float
    plan_bytes: tuple[int, ...]
    weighted: bool

    def __post_init__(self) -> None:
        if not 0 < self.near <= self.cold:
            raise RequestError(
                f"a near answer takes {self.near:g} s and a cold one {self.cold:g} s: give times above 0, "
                "the near one no longer than the cold one"
            )
        if not self.plan_bytes or min(self.plan_bytes) < 1:
            raise RequestError("sizes of plans are whole numbers of bytes above 0: give at least one")

    @property
    def mean_bytes(self) -> float:
        """Mean size of a plan."""
        return sum(self.plan_bytes) / len(self.plan_bytes)


@dataclass(frozen=True, eq=False)
class Workload:
    """A trace as numbers of entries.

    Attributes
    ----------
    trace
        The requests. Their plans are the first entries.
    thresholds
        The entries of each request's thresholds, one for each layer.
    entries
        How many entries there are.
    """

    trace: Trace
    thresholds: Sequence[Sequence[int]]
    entries: int


@dataclass(slots=True)
class Answers:
    """How the requests of a trace were answered.

    Attributes
    ----------
    exact, superset, thresholds, searched
        Requests answered by each tier, and by none.
    same_classes
        Of `superset`, those from a plan for the same classes with other weights.
    evictions
        Entries, thresholds included, that had to go.
    """

    exact: int = 0
    superset: int = 0
    thresholds: int = 0
    searched: int = 0
    same_classes: int = 0
    evictions: int = 0

    @property
    def requests(self) -> int:
        """All of them."""
        return self.exact + self.superset + self.thresholds + self.searched

    def seconds_saved(self, costs: CostModel) -> float:
        """Return by how much less time was spent than if each request had been searched."""
        return self.exact * costs.cold + (self.superset + self.thresholds) * (costs.cold - costs.near)


def workload(trace: Trace, layers: Sequence[NDArray[np.int16]]) -> Workload:
    """Give numbers to the entries that a trace can come to use, with the class clusters of each layer, `(classes,)`."""
    entries = int(trace.plans.max()) + 1
    columns = []
    for clusters in layers:
        numbers = trace.by_clusters(clusters)
        columns.append(entries + numbers)
        entries += int(numbers.max()) + 1
    return Workload(trace, np.stack(columns, axis=1).tolist() if columns else [()] * len(trace.plans), entries)


def entry_sizes(work: Workload, plan_bytes: Sequence[int], seed: int) -> NDArray[np.int64]:
    """Return the bytes of each entry, `(entries,)`: a plan's are drawn from `plan_bytes`."""
    plans = int(work.trace.plans.max()) + 1
    sizes = np.full(work.entries, THRESHOLD_BYTES, np.int64)
    sizes[:plans] = np.random.default_rng([seed, 1]).choice(plan_bytes, plans)
    return sizes


def simulate(work: Workload, policy: Policy, sizes: NDArray[np.int64], costs: CostModel, *, near: bool) -> Answers:
    """Play all requests against an empty cache.

    Parameters
    ----------
    policy
        The cache; it is filled.
    sizes
        `(entries,)`: bytes of each.
    near
        Whether near hits are looked for, and thresholds stored. Otherwise a request is answered exactly or searched.
    """
    answers = Answers()
    size_of = sizes.tolist()
    plans = work.trace.plans.tolist()
    if near:
        _play_tiers(work, plans, policy, size_of, costs, answers)
    else:
        for plan in plans:
            if plan in policy:
                policy.use(plan)
                answers.exact += 1
            else:
                policy.admit(plan, size_of[plan], costs.cold)
                answers.searched += 1
    answers.evictions += len(policy.evicted)
    return answers


def _play_tiers(
    work: Workload, plans: Sequence[int], policy: Policy, size_of: Sequence[int], costs: CostModel, answers: Answers
) -> None:
    held = _HeldSets(work.trace)
    sets = work.trace.sets.tolist()
    for plan, classes, thresholds in zip(plans, sets, work.thresholds, strict=True):
        if plan in policy:
            policy.use(plan)
            answers.exact += 1
            continue
        container = held.containing(classes)
        if container is not None:
            policy.use(container)
            answers.superset += 1
            answers.same_classes += held.set_of[container] == classes
        else:
            missing = []
            for threshold in thresholds:
                if threshold in policy:
                    policy.use(threshold)
                else:
                    missing.append(threshold)
            if thresholds and not missing:
                answers.thresholds += 1
            else:
                answers.searched += 1
            for threshold in missing:
                policy.admit(threshold, size_of[threshold], (costs.cold - costs.near) / len(thresholds))
        policy.admit(plan, size_of[plan], costs.cold)
        if plan in policy:
            held.add(plan)
        answers.evictions += len(policy.evicted)
        for gone in policy.evicted:
            held.discard(gone)
        policy.evicted.clear()


class _HeldSets:
    """Finds, among the plans that are held, one whose classes contain others."""

    def __init__(self, trace: Trace) -> None:
        self.set_of = trace.set_of_plan
        self._places = trace.places
        # Place -> the plans there, in the order in which they came.
        self._plans: defaultdict[int, dict[int, None]] = defaultdict(dict)

    def containing(self, classes: int) -> int | None:
        """Return a plan with the fewest classes that contains the class set, or None."""
        # At the first of these places are plans for as few classes as a request can have.
        for place in range(classes * K_MOST, (classes + 1) * K_MOST):
            plans = self._plans.get(place)
            if plans:
                return next(iter(plans))
        return None

    def add(self, plan: int) -> None:
        for place in self._places[self.set_of[plan]]:
            self._plans[place][plan] = None

    def discard(self, entry: int) -> None:
        """Forget an entry if it is a plan."""
        if entry < len(self.set_of):
            for place in self._places[self.set_of[entry]]:
                self._plans[place].pop(entry, None)
