"""The study's plots, as PNG.

Colours are Okabe and Ito's, which colour-blind readers tell apart, and never alone: shapes or hatches go with them.
Points are means over seeds, and bands reach from the least to the most.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, Final

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, PercentFormatter

from cloud_pruner.cache_study.policies import POLICIES
from cloud_pruner.cache_study.study import BOUND, MIDDLE_ZIPF, TIERS, mean_of, select
from cloud_pruner.cache_study.trace import SCENARIOS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from cloud_pruner.cache_study.clusterings import Clustering
    from cloud_pruner.cache_study.study import Row

__all__ = ["changes_plot", "clusters_plot", "policies_plot", "tiers_plot"]

_DPI: Final = 130
_GRID: Final = "#d5d5d5"
_STYLE: Final[dict[Any, Any]] = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.edgecolor": "#888888",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "hatch.linewidth": 0.6,
}
_LINES: Final = dict(
    zip(
        [*POLICIES, "Belady", BOUND],
        (
            ("#D55E00", "o", "-"),
            ("#D55E00", "o", ":"),
            ("#56B4E9", "s", "-"),
            ("#E69F00", "D", "-"),
            ("#009E73", "^", "-"),
            ("#CC79A7", "P", "-"),
            ("#0072B2", "v", "-"),
            ("#000000", "", "-"),
            ("#888888", "", "--"),
        ),
        strict=True,
    )
)
_TIERS: Final = dict(zip(TIERS, (("#0072B2", ""), ("#E69F00", "///"), ("#009E73", "...")), strict=True))


def policies_plot(rows: Sequence[Row]) -> bytes:
    """Draw exact hits over the cache's size for each policy, by popularity: with equal sizes and with drawn ones."""
    rows = select(rows, part="exact", scenario="steady")
    zipfs = sorted({row.zipf for row in rows})
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(2.9 * len(zipfs) + 0.4, 5.6), layout="constrained")
        grid = figure.subplots(2, len(zipfs), sharex=True, sharey="row", squeeze=False)
        for line, sizes, title in ((grid[0], "equal", "equal sizes"), (grid[1], "drawn", "sizes as drawn")):
            for axes, zipf in zip(line, zipfs, strict=True):
                mine = select(rows, zipf=zipf, sizes=sizes)
                shown = [name for name in _LINES if name != "LRU, split" and (name != BOUND or sizes == "drawn")]
                _draw_policies(axes, mine, shown, "exact")
                axes.set_title(f"{title}, s = {zipf:g}", loc="left")
            line[0].set_ylabel("requests with an exact hit")
        for axes in grid[1]:
            axes.set_xlabel("cache size (plans)")
        return _png(figure)


def changes_plot(rows: Sequence[Row]) -> bytes:
    """Draw the search time saved over the cache's size for each policy, all tiers, in each scenario."""
    rows = select(rows, part="tiers", zipf=MIDDLE_ZIPF)
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(11.6, 3.5), layout="constrained")
        line = figure.subplots(1, len(SCENARIOS), sharex=True, sharey=True)
        for axes, scenario in zip(line, SCENARIOS, strict=True):
            _draw_policies(axes, select(rows, scenario=scenario), list(POLICIES), "saved")
            axes.set_title(scenario, loc="left")
            axes.set_xlabel("cache size (plans)")
        line[0].set_ylabel("search time saved")
        return _png(figure)


def tiers_plot(rows: Sequence[Row]) -> bytes:
    """Draw each tier's share of the requests over Zipf's exponent, for some policies and two sizes of the cache."""
    rows = select(rows, part="tiers", scenario="steady")
    zipfs = sorted({row.zipf for row in rows})
    policies = ("LRU", "LRU, split", "S3-FIFO", "GDS", "GDSF")
    every_size = sorted({row.plans for row in rows})
    sizes = every_size[1::2] or every_size
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(12.6, 2.5 * len(sizes) + 0.5), layout="constrained")
        grid = figure.subplots(len(sizes), len(policies), sharex=True, sharey=True, squeeze=False)
        for line, plans in zip(grid, sizes, strict=True):
            for axes, policy in zip(line, policies, strict=True):
                base = np.zeros(len(zipfs))
                for tier, (colour, hatch) in _TIERS.items():
                    height = [mean_of(select(rows, zipf=z, plans=plans, policy=policy), tier) for z in zipfs]
                    axes.bar(
                        [f"{zipf:g}" for zipf in zipfs],
                        height,
                        bottom=base,
                        color=colour,
                        hatch=hatch,
                        edgecolor="white",
                        width=0.7,
                        label=tier,
                    )
                    base += np.array(height)
                for position, top in enumerate(base.tolist()):
                    axes.annotate(
                        f"{100 * top:.0f}",
                        (position, top),
                        (0, 2),
                        textcoords="offset points",
                        ha="center",
                        fontsize=7.5,
                    )
                axes.set_title(f"{policy}, {plans} plans", loc="left")
        for axes in grid[-1]:
            axes.set_xlabel("Zipf's exponent s")
        for line in grid:
            line[0].set_ylabel("requests answered")
        return _png(figure)


def clusters_plot(rows: Sequence[Row], clusterings: Sequence[Clustering]) -> bytes:
    """Draw the requests answered over the number of clusters; those of the first clustering are large and hollow."""
    rows = select(rows, part="clusters")
    zipfs = sorted({row.zipf for row in rows})
    sizes = sorted({row.plans for row in rows})
    policies = list(dict.fromkeys(row.policy for row in rows))
    numbers = {one.name: float(np.mean(one.counts)) for one in clusterings}
    own, *others = clusterings
    colours = ("#0072B2", "#009E73", "#E69F00", "#D55E00")
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(8.4, 2.6 * len(sizes) + 0.5), layout="constrained")
        grid = figure.subplots(len(sizes), len(policies), sharex=True, sharey=True, squeeze=False)
        for line, plans in zip(grid, sizes, strict=True):
            for axes, policy in zip(line, policies, strict=True):
                for zipf, colour, marker in zip(zipfs, colours, "os^D", strict=False):
                    mine = select(rows, zipf=zipf, plans=plans, policy=policy)
                    axes.plot(
                        [numbers[one.name] for one in others],
                        [mean_of(select(mine, clusters=one.name), "hit_rate") for one in others],
                        color=colour,
                        marker=marker,
                        markersize=4,
                        label=f"s = {zipf:g}",
                    )
                    axes.plot(
                        numbers[own.name],
                        mean_of(select(mine, clusters=own.name), "hit_rate"),
                        color=colour,
                        marker=marker,
                        markersize=9,
                        markerfacecolor="none",
                        linestyle="none",
                    )
                axes.set_xscale("log")
                _ticks(axes, [numbers[one.name] for one in others])
                axes.set_title(f"{policy}, {plans} plans", loc="left")
            line[0].set_ylabel("requests answered")
        for axes in grid[-1]:
            axes.set_xlabel("clusters in a layer")
        grid[-1][-1].plot([], [], "o", color="#555555", markerfacecolor="none", markersize=9, label=f"own ({own.name})")
        return _png(figure)


def _draw_policies(axes: Axes, rows: Sequence[Row], policies: Sequence[str], name: str) -> None:
    plans = sorted({row.plans for row in rows})
    for policy in policies:
        colour, marker, stroke = _LINES[policy]
        cells = [select(rows, policy=policy, plans=size) for size in plans]
        axes.plot(
            plans,
            [mean_of(cell, name) for cell in cells],
            color=colour,
            marker=marker,
            linestyle=stroke,
            linewidth=1.3,
            markersize=7 if policy == "LFU" else 4,  # SIEVE is often at the same place
            label=policy,
        )
        values = [[mean_of([row], name) for row in cell] for cell in cells]
        axes.fill_between(plans, list(map(min, values)), list(map(max, values)), color=colour, alpha=0.15, linewidth=0)
    axes.set_xscale("log")
    _ticks(axes, plans)


def _ticks(axes: Axes, values: Sequence[float]) -> None:
    axes.xaxis.set_major_locator(FixedLocator(list(values)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticklabels([f"{value:g}" for value in values])


def _png(figure: Figure) -> bytes:
    """Finish all panels, which are of shares of one; the legend of the last one speaks for all."""
    for axes in figure.axes:
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.set_ylim(bottom=0)  # only now: panels that share an axis would not grow any more
        axes.grid(axis="y", color=_GRID, linewidth=0.6)
        axes.set_axisbelow(True)
    handles, labels = figure.axes[-1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=_DPI)
    return out.getvalue()
