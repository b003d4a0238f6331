"""The cache of the journal version: which requests are answered without a search, and what to evict."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any, Final, cast

from benchmarks.experiments.cells import mean_cell, mean_over
from benchmarks.experiments.lab import LabError
from benchmarks.experiments.section import Plot, Section, Table
from benchmarks.experiments.store import select as rows_with
from cloud_pruner.cache_study.clusterings import (
    Clustering,
    cluster_numbers,
    made_up_rates,
    of_profile,
    with_numbers,
)
from cloud_pruner.cache_study.plots import changes_plot, clusters_plot, policies_plot, tiers_plot
from cloud_pruner.cache_study.policies import POLICIES
from cloud_pruner.cache_study.study import BOUND, COSTS, MIDDLE_ZIPF, TIERS, StudySettings, run_study
from cloud_pruner.cache_study.study import Row as StudyRow
from cloud_pruner.cache_study.trace import SCENARIOS

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.experiments.lab import Lab
    from benchmarks.experiments.section import Entry
    from benchmarks.experiments.store import Row

__all__ = ["NAME", "TITLE", "run"]

NAME: Final = "cache"
TITLE: Final = "What the cache answers"

_NETWORK: Final = "vgg-small"  # the one with a hundred classes, of which users can be alike
_MADE_UP_CLASSES: Final = 100
_MADE_UP_CLUSTERS: Final = 12
_METHOD: Final = "L"


def run(lab: Lab) -> Section:
    """Simulate requests, with the class clusters of a network, or made-up ones in a quick run."""
    settings = StudySettings.quick(COSTS[_METHOD], lab.seed) if lab.quick else _full(lab.seed)
    source, classes, clusterings = _clusterings(lab)
    key = f"{source} requests={settings.requests} seeds={','.join(map(str, settings.seeds))}"
    rows = lab.once(
        "cache", key, lambda: [_row(one) for one in run_study(classes, clusterings, settings, lab.progress)]
    )
    shown = rows_with(rows, plans=settings.shown, zipf=MIDDLE_ZIPF)
    costs = settings.costs
    return Section(
        NAME,
        TITLE,
        "CAP'NN's journal version (ACM TECS 2022), abstract: requests that are similar share what was pruned before",
        f"{source} {len(rows):,} simulations of {settings.requests:,} made-up requests each for 2 to 5 of {classes} "
        f"classes, answered by method {_METHOD}, each from an empty cache. A search takes {costs.cold} s and a near "
        f"hit {costs.near} s, as measured; plans have the measured sizes, {costs.mean_bytes / 1e6:.2f} MB on average. "
        f"Tables are for a cache of {settings.shown} plans and a popularity of classes that follows Zipf's law with "
        f"exponent {MIDDLE_ZIPF:g}. Requests are answered exactly, from a plan for more classes (superset), or by the "
        "units that were found for users of alike classes (thresholds). Every near hit is taken for accepted, though "
        "a real one must pass its certificate: the two lower tiers are upper limits.",
        (
            _saved_table(shown),
            *_plots(rows, clusterings, "changes", "tiers"),
            _tiers_table(shown),
            _exact_table(shown),
            *_plots(rows, clusterings, "policies", "clusters"),
        ),
        _differences(shown),
    )


def _full(seed: int) -> StudySettings:
    return StudySettings(COSTS[_METHOD], seeds=(seed, seed + 1))


def _clusterings(lab: Lab) -> tuple[str, int, list[Clustering]]:
    """Return what the clusters are of, how many classes there are, and clusterings: first the one that is not varied.

    A quick run makes no profile of a hundred classes for their sake.
    """
    network = None if lab.quick else next(iter(_available(lab)), None)
    if network is None:
        rates = made_up_rates(_MADE_UP_CLASSES)
        source = "The class clusters are made up and say nothing of any network."
        own = with_numbers(rates, [_MADE_UP_CLUSTERS])[0]
        return source, _MADE_UP_CLASSES, [own, *with_numbers(rates, cluster_numbers(_MADE_UP_CLASSES), lab.progress)]
    profile = lab.profile(network)
    measured = [layer.firing_rates for layer in profile.layers]
    others = with_numbers(measured, cluster_numbers(len(profile.classes)), lab.progress)
    return f"Class clusters of the network {network}.", len(profile.classes), [of_profile(profile), *others]


def _available(lab: Lab) -> list[str]:
    try:
        return [network.name for network in lab.references(_NETWORK)]
    except LabError:  # made-up clusters will do
        return []


def _row(one: StudyRow) -> Row:
    """Return a simulation as a row; a tier's hits also as a share of the requests."""
    row = {name: value for name, value in asdict(one).items() if name != "row"}
    return row | {f"{tier}_share": getattr(one, tier) / one.requests for tier in TIERS}


def _study_rows(rows: list[Row]) -> list[StudyRow]:
    names = {field.name for field in fields(StudyRow)}
    return [StudyRow(**cast("dict[str, Any]", {name: row[name] for name in names})) for row in rows]


def _saved_table(rows: list[Row]) -> Table:
    tiers = rows_with(rows, part="tiers")
    lines: list[tuple[Entry, ...]] = [
        (
            policy,
            *(
                mean_cell(rows_with(tiers, policy=policy, scenario=scenario), "saved", factor=100, digits=1)
                for scenario in SCENARIOS
            ),
        )
        for policy in POLICIES
    ]
    return Table(
        "Search time saved, in %, by eviction policy, where the popularity of classes is steady, drifts, shifts at "
        "once, or is disturbed by scans",
        ("policy", *SCENARIOS),
        tuple(lines),
    )


def _tiers_table(rows: list[Row]) -> Table:
    steady = rows_with(rows, part="tiers", scenario="steady")
    lines: list[tuple[Entry, ...]] = [
        (
            policy,
            *(mean_cell(rows_with(steady, policy=policy), f"{tier}_share", factor=100, digits=1) for tier in TIERS),
            mean_cell(rows_with(steady, policy=policy), "hit_rate", factor=100, digits=1),
        )
        for policy in POLICIES
    ]
    return Table("Requests answered by each tier, in %, steady", ("policy", *TIERS, "without a search"), tuple(lines))


def _exact_table(rows: list[Row]) -> Table:
    steady = rows_with(rows, part="exact", scenario="steady")
    lines: list[tuple[Entry, ...]] = [
        (
            policy,
            *(
                mean_cell(rows_with(steady, policy=policy, sizes=sizes), "exact_share", factor=100, digits=1)
                for sizes in ("equal", "drawn")
            ),
        )
        for policy in (*POLICIES, "Belady", BOUND)
    ]
    return Table(
        "Exact hits where nothing else is looked for, in %, steady: beside Belady's rule, which knows the future, and "
        "a bound that no policy can exceed",
        ("policy", "plans of equal size", "sizes as drawn"),
        tuple(lines),
    )


def _plots(rows: list[Row], clusterings: list[Clustering], *names: str) -> list[Plot]:
    study = _study_rows(rows)
    drawn: dict[str, Callable[[], tuple[bytes, str, str]]] = {
        "changes": lambda: (
            changes_plot(study),
            "Search time saved over the size of the cache, by policy and scenario. Bands: least to most of the seeds.",
            "Lines of search time saved over cache size for each eviction policy, one panel a scenario",
        ),
        "tiers": lambda: (
            tiers_plot(study),
            "Which tier answers, by Zipf's exponent: the more alike users are, the more is found exactly.",
            "Stacked bars of exact, superset and threshold hits over Zipf's exponent, for several policies and sizes",
        ),
        "policies": lambda: (
            policies_plot(study),
            "Exact hits over the size of the cache, by policy and popularity, with equal and with drawn sizes.",
            "Lines of exact hits over cache size for each eviction policy, Belady's rule and a bound",
        ),
        "clusters": lambda: (
            clusters_plot(study, clusterings),
            (
                "Requests answered over the number of class clusters; the clusters' own number is large and hollow. "
                "Fewer clusters make more requests look alike, but what is less alike fails its certificate more "
                "often, which this simulation does not see."
            ),
            "Marks of answered requests over the number of clusters, for two policies and cache sizes",
        ),
    }
    return [Plot(f"{NAME}-{name}", *drawn[name]()) for name in names]


def _differences(rows: list[Row]) -> tuple[str, ...]:
    saved = {policy: mean_over(rows_with(rows, part="tiers", policy=policy), "saved") for policy in POLICIES}
    best = max(saved, key=saved.__getitem__)
    return (
        (
            "The journal's abstract names the cache and no figures for it, and its text is not available: there is "
            "nothing to put beside these."
        ),
        (
            f"Over all four scenarios {best} saves most, {100 * saved[best]:.1f} % of the search time; the product "
            f"evicts what saves the least time for its bytes (GDS, {100 * saved['GDS']:.1f} %) and not the least "
            f"recently used (LRU, {100 * saved['LRU']:.1f} %), because plans differ tenfold in size."
        ),
        "There is no trace of real users: popularity, its changes and the sizes of requests are assumptions.",
    )
