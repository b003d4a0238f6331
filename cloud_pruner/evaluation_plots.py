"""Draws an evaluation: size against accuracy, and size against K, for each method with its confidence intervals.

Colours are Okabe and Ito's, which colour-blind readers tell apart, and never alone: each method has a shape of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import matplotlib as mpl
from matplotlib.figure import Figure

from cloud_pruner.evaluation_sets import RESTRICTED
from cloud_pruner.methods import METHODS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from cloud_pruner.evaluation_summary import Mean, Summary

__all__ = ["evaluation_plot"]

_COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS: Final = "osD^vPX<>*hpd8H"
_STYLE: Final[dict[Any, Any]] = {
    "font.size": 9,
    "axes.edgecolor": "#888888",
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def evaluation_plot(summaries: Sequence[Summary], title: str) -> Figure:
    """Draw two panels: gain in top-1 accuracy over relative size, and relative size over K.

    Bars are confidence intervals; points of the first panel are named by their K. What prunes nothing has no place in
    the second.
    """
    known = (*METHODS, RESTRICTED)  # a method looks the same whichever others it is shown with
    there = {summary.method for summary in summaries}
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(9.2, 4.0), layout="constrained")
        worth, sizes = figure.subplots(1, 2)
        for number, method in enumerate(known):
            if method not in there:
                continue
            mine = sorted((summary for summary in summaries if summary.method == method), key=lambda one: one.k)
            style = {
                "color": _COLOURS[number % len(_COLOURS)],
                "marker": _MARKERS[number % len(_MARKERS)],
                "linestyle": "-" if number < len(_COLOURS) else "--",
                "linewidth": 1.0,
                "elinewidth": 1.0,
                "markersize": 5,
                "capsize": 2,
                "label": method,
            }
            size = [one.means["relative_size"] for one in mine]
            gain = [one.means["gain"] for one in mine]
            x, gains = _bars(size, 1), _bars(gain, 100)
            worth.errorbar(x[0], gains[0], yerr=gains[1], xerr=x[1], **style)
            for k, across, up in zip((one.k for one in mine), x[0], gains[0], strict=True):
                worth.annotate(
                    str(k), (across, up), (4, 4), textcoords="offset points", fontsize=7, color=style["color"]
                )
            if method != RESTRICTED:
                sizes.errorbar([one.k for one in mine], x[0], yerr=x[1], **style)
        _finish(worth, "parameters, relative to the base", "top-1 accuracy gained (points)")
        worth.axhline(0, color="#888888", linewidth=0.8)
        worth.set_xlim(0, 1.05)
        _finish(sizes, "K (classes of the user)", "parameters, relative to the base")
        sizes.set_ylim(0, 1.05)
        every_k = sorted({summary.k for summary in summaries})
        sizes.set_xscale("log")
        sizes.set_xticks(every_k, list(map(str, every_k)))
        sizes.minorticks_off()
        handles, labels = worth.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
        figure.suptitle(title, x=0.01, ha="left", fontsize=10)
    return figure


def _bars(means: Sequence[Mean | None], factor: float) -> tuple[list[float], list[float]]:
    """Return the means times `factor`, and half the widths of their intervals, 0 where there is none."""
    there = [mean for mean in means if mean is not None]
    return [factor * mean.mean for mean in there], [
        0.0 if mean.high is None else factor * (mean.high - mean.mean) for mean in there
    ]


def _finish(axes: Axes, across: str, up: str) -> None:
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.grid(color="#d5d5d5", linewidth=0.6)
    axes.set_axisbelow(True)
