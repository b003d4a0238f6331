"""The study: traces x cache sizes x clusters x policies, one row of counts for each.

Three parts:

- **exact**: nothing but exact hits, so that policies can be compared with what knowing the future would give;
- **tiers**: near hits too, under each policy;
- **clusters**: the same with other numbers of class clusters, under some policies.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, fields, replace
from statistics import fmean
from typing import TYPE_CHECKING, Final

from cloud_pruner.cache_study.optimum import Belady, most_hits
from cloud_pruner.cache_study.policies import POLICIES
from cloud_pruner.cache_study.simulation import Answers, CostModel, entry_sizes, simulate, workload
from cloud_pruner.cache_study.trace import SCENARIOS, TraceSettings, make_trace
from cloud_pruner.progress import no_progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cloud_pruner.cache_study.clusterings import Clustering
    from cloud_pruner.cache_study.policies import Policy
    from cloud_pruner.cache_study.simulation import Workload
    from cloud_pruner.cache_study.trace import Trace
    from cloud_pruner.progress import Progress

__all__ = [
    "BOUND",
    "COSTS",
    "MIDDLE_ZIPF",
    "TIERS",
    "Row",
    "StudySettings",
    "mean_of",
    "rows_csv",
    "run_study",
    "select",
]

TIERS: Final = ("exact", "superset", "thresholds")
"""The ways to answer without a search, in the order in which they are tried."""

BOUND: Final = "bound"
"""In place of a policy: hits that none can exceed, whatever the sizes (`optimum.most_hits`)."""

CLUSTER_POLICIES: Final = ("LRU", "GDS")

MIDDLE_ZIPF: Final = 1.0
"""The exponent at which scenarios are compared."""

# Measured on the small VGG for CIFAR-100: 5 prunable layers, 50 select and 50 certify images a class, epsilon 0.1,
# certified, 6 requests for each K from 2 to 5, on 2 busy cores. Sizes: the means of the eighths of those 24 entries.
COSTS: Final = {
    "L": CostModel(
        1.04, 0.157, (71_176, 287_152, 587_775, 738_288, 757_410, 764_185, 797_310, 910_547), weighted=False
    ),
    "W": CostModel(0.334, 0.121, (1_900, 1_939, 2_016, 2_078, 2_150, 2_187, 2_261, 2_752), weighted=True),
}
"""Method -> what its answers cost: W for all methods that look at weights, L for those that do not."""


@dataclass(frozen=True, slots=True)
class StudySettings:
    """What is simulated.

    Attributes
    ----------
    costs
        Seconds and sizes.
    requests
        Of a trace.
    seeds
        Of the traces: each case is simulated with each.
    zipfs
        Exponents of the classes' popularity; `MIDDLE_ZIPF` is one of them.
    plans
        Cache sizes, as the number of plans of mean size that fit; ascending.
    """

    costs: CostModel
    requests: int = 10_000
    seeds: tuple[int, ...] = (0, 1)
    zipfs: tuple[float, ...] = (0.6, 0.8, 1.0, 1.2)
    plans: tuple[int, ...] = (30, 100, 300, 1000, 3000)

    @property
    def shown(self) -> int:
        """The size of the cache, in plans, that tables are about."""
        return self.plans[1]

    @classmethod
    def quick(cls, costs: CostModel, seed: int = 0) -> StudySettings:
        """Return what takes well below a minute on a free core."""
        return cls(costs, 2000, (seed,), (0.6, 1.0, 1.2), (30, 100, 300))


@dataclass(frozen=True, slots=True)
class Row:
    """One simulation.

    Attributes
    ----------
    row
        Its number, from 1.
    part, scenario, zipf, clusters, sizes, plans, cache_bytes, policy, seed
        What was simulated; `sizes` is "drawn" or "equal", and `cache_bytes` the size of `plans` plans of mean size.
    requests, exact, superset, same_classes, thresholds, searched, evictions
        As in `simulation.Answers`.
    hit_rate
        The share of requests that were not searched.
    seconds_saved, saved
        Against searching for every request: in s, and as a share.
    """

    row: int
    part: str
    scenario: str
    zipf: float
    clusters: str
    sizes: str
    plans: int
    cache_bytes: int
    policy: str
    seed: int
    requests: int
    exact: int
    superset: int
    same_classes: int
    thresholds: int
    searched: int
    evictions: int
    hit_rate: float
    seconds_saved: float
    saved: float


@dataclass(frozen=True, slots=True)
class _Case:
    """What a row is of, but for its number and counts."""

    part: str
    scenario: str
    zipf: float
    clusters: str
    sizes: str
    plans: int
    policy: str
    seed: int


def run_study(
    classes: int, clusterings: Sequence[Clustering], settings: StudySettings, progress: Progress = no_progress
) -> list[Row]:
    """Simulate all cases.

    Parameters
    ----------
    classes
        Of the model.
    clusterings
        The first is the one that is not varied.
    progress
        Called with the part, cases done and cases in all.
    """
    cases = list(_cases([one.name for one in clusterings], settings))
    layers = {one.name: one.layers for one in clusterings}
    rows: list[Row] = []
    made: tuple[object, Trace | None] = None, None
    grouped: tuple[object, Workload | None] = None, None
    for case in cases:
        progress(case.part, len(rows), len(cases))
        wanted = case.scenario, case.zipf, case.seed
        if made[0] != wanted:
            trace = TraceSettings(
                classes, case.zipf, case.scenario, settings.requests, settings.costs.weighted, case.seed
            )
            made = wanted, make_trace(trace)
        assert made[1] is not None
        if grouped[0] != (wanted, case.clusters):
            grouped = (wanted, case.clusters), workload(made[1], layers[case.clusters])
        assert grouped[1] is not None
        rows.append(_simulated(len(rows) + 1, case, grouped[1], settings))
    progress("done", len(cases), len(cases))
    return rows


def _cases(clusterings: Sequence[str], settings: StudySettings) -> Iterator[_Case]:
    """Yield the cases, those of one trace one after the other."""
    for seed in settings.seeds:
        for scenario in SCENARIOS:
            for zipf in settings.zipfs if scenario == "steady" else (MIDDLE_ZIPF,):
                case = _Case("exact", scenario, zipf, clusterings[0], "drawn", 0, "", seed)
                yield from _policy_cases(case, settings)
                if scenario == "steady":
                    yield from _cluster_cases(case, clusterings, settings)


def _policy_cases(case: _Case, settings: StudySettings) -> Iterator[_Case]:
    for plans in settings.plans:
        for policy in (*POLICIES, Belady.name, BOUND):
            for sizes in ("drawn", "equal"):
                yield replace(case, plans=plans, policy=policy, sizes=sizes)
        for policy in POLICIES:
            yield replace(case, part="tiers", plans=plans, policy=policy)


def _cluster_cases(case: _Case, clusterings: Sequence[str], settings: StudySettings) -> Iterator[_Case]:
    for clusters in clusterings:
        for plans in settings.plans[1::2]:
            for policy in CLUSTER_POLICIES:
                yield replace(case, part="clusters", clusters=clusters, plans=plans, policy=policy)


def _simulated(number: int, case: _Case, work: Workload, settings: StudySettings) -> Row:
    costs = settings.costs
    mean = round(costs.mean_bytes)
    sizes = entry_sizes(work, (mean,) if case.sizes == "equal" else costs.plan_bytes, case.seed)
    capacity = round(case.plans * costs.mean_bytes)
    plans = work.trace.plans
    if case.policy == BOUND:
        hits = most_hits(plans, sizes, capacity)
        answers = Answers(exact=hits, searched=len(plans) - hits)
    else:
        make: Callable[[int], Policy] = POLICIES.get(case.policy, lambda capacity: Belady(capacity, plans.tolist()))
        answers = simulate(work, make(capacity), sizes, costs, near=case.part != "exact")
    seconds = answers.seconds_saved(costs)
    return Row(
        number,
        case.part,
        case.scenario,
        case.zipf,
        case.clusters,
        case.sizes,
        case.plans,
        capacity,
        case.policy,
        case.seed,
        answers.requests,
        answers.exact,
        answers.superset,
        answers.same_classes,
        answers.thresholds,
        answers.searched,
        answers.evictions,
        1 - answers.searched / answers.requests,
        seconds,
        seconds / (answers.requests * costs.cold),
    )


def select(rows: Sequence[Row], **wanted: object) -> list[Row]:
    """Return the rows whose fields are as `wanted`."""
    return [row for row in rows if all(getattr(row, name) == value for name, value in wanted.items())]


def mean_of(rows: Sequence[Row], name: str) -> float:
    """Return the mean of a field over rows, of a tier's hits as a share of requests."""
    values = [getattr(row, name) / (row.requests if isinstance(getattr(row, name), int) else 1) for row in rows]
    return fmean(values)


def rows_csv(rows: Sequence[Row]) -> str:
    """Return a line for each row, under a line of names."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = [field.name for field in fields(Row)]
    writer.writerow(names)
    writer.writerows([getattr(row, name) for name in names] for row in rows)
    return out.getvalue()
