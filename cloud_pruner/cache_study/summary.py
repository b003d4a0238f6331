"""From rows to the figures that are shown, each with the rows that it is the mean of."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

from cloud_pruner.cache_study.policies import POLICIES
from cloud_pruner.cache_study.study import BOUND, MIDDLE_ZIPF, TIERS, mean_of, select
from cloud_pruner.cache_study.trace import SCENARIOS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloud_pruner.cache_study.clusterings import Clustering
    from cloud_pruner.cache_study.study import Row, StudySettings

__all__ = ["Figure", "Source", "Summary", "summarise"]


@dataclass(frozen=True, slots=True)
class Figure:
    """A mean over seeds, the least and the most of what it is the mean of, and the numbers of those rows."""

    mean: float
    least: float
    most: float
    rows: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Source:
    """Whose class clusters these are.

    Attributes
    ----------
    made_up
        Whether there is no profile behind them.
    name, digest
        The profile's folder and digest; what stands in for them where there is none.
    classes
        Of the model.
    """

    made_up: bool
    name: str
    digest: str
    classes: int


@dataclass(frozen=True, slots=True)
class Summary:
    """The figures for a cache of `plans` plans of mean size, at `MIDDLE_ZIPF`.

    Attributes
    ----------
    plans, cache_bytes, zipf
        The cache's size, and Zipf's exponent.
    saved
        Policy -> scenario -> share of the search time that is saved, with all tiers.
    tiers
        Policy -> tier -> share of the requests it answers, in the scenario "steady".
    same_classes
        Policy -> of these, what the superset tier answers from a plan for the same classes with other weights.
    exact_only
        Policy, Belady's rule and the bound among them -> "equal" or "drawn" -> share of exact hits where nothing else
        is looked for, in the scenario "steady".
    """

    plans: int
    cache_bytes: int
    zipf: float
    saved: dict[str, dict[str, Figure]]
    tiers: dict[str, dict[str, Figure]]
    same_classes: dict[str, Figure]
    exact_only: dict[str, dict[str, Figure]]

    def to_fields(self, source: Source, settings: StudySettings, clusterings: Sequence[Clustering]) -> dict[str, Any]:
        """Return everything but the rows as plain values, fit for JSON."""
        return {
            "study": "cache",
            "source": asdict(source),
            "clusters": {one.name: one.counts for one in clusterings},
            "settings": asdict(settings),
            "scenarios": dict(SCENARIOS),
            **asdict(self),
        }


def summarise(rows: Sequence[Row], settings: StudySettings) -> Summary:
    """Return the figures for the cache size that tables are about."""
    rows = select(rows, plans=settings.shown, zipf=MIDDLE_ZIPF)
    tiers, exact = select(rows, part="tiers"), select(rows, part="exact", scenario="steady")
    steady = select(tiers, scenario="steady")
    return Summary(
        settings.shown,
        rows[0].cache_bytes,
        MIDDLE_ZIPF,
        {
            policy: {
                scenario: _figure(select(tiers, policy=policy, scenario=scenario), "saved") for scenario in SCENARIOS
            }
            for policy in POLICIES
        },
        {policy: {tier: _figure(select(steady, policy=policy), tier) for tier in TIERS} for policy in POLICIES},
        {policy: _figure(select(steady, policy=policy), "same_classes") for policy in POLICIES},
        {
            policy: {sizes: _figure(select(exact, policy=policy, sizes=sizes), "exact") for sizes in ("equal", "drawn")}
            for policy in (*POLICIES, "Belady", BOUND)
        },
    )


def _figure(rows: Sequence[Row], name: str) -> Figure:
    values = [mean_of([row], name) for row in rows]
    return Figure(fmean(values), min(values), max(values), tuple(row.row for row in rows))
