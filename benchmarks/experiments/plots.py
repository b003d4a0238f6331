"""How plots look: one style, and each method in the same colour, with the same mark, whichever others are shown.

Colours are Okabe and Ito's, which colour-blind readers tell apart, and never alone: marks or hatches go with them.
"""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING, Any, Final

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks.experiments.cells import interval_of, mean_over
from benchmarks.experiments.section import Plot

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from matplotlib.axes import Axes

    from benchmarks.experiments.store import Row

__all__ = [
    "COLOURS",
    "MethodLook",
    "as_plot",
    "bar_look",
    "finish",
    "interval",
    "legend_below",
    "look",
    "paper_look",
    "room_for",
]

COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_DPI: Final = 130
_ROOM: Final = 6.0
# What a letter and a mark take in a legend, in inches.
_LETTER: Final = 0.08
_MARK: Final = 0.6
_STYLE: Final[dict[Any, Any]] = {
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.edgecolor": "#888888",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "hatch.linewidth": 0.6,
}

MethodLook = dict[str, Any]

# Method -> colour, mark, hatch.
_LOOKS: Final = {
    "L": ("#D55E00", "o", ""),
    "M": ("#0072B2", "s", "///"),
    "W": ("#56B4E9", "^", "..."),
    "B": ("#888888", "D", "xxx"),
    "CAPTOR": ("#CC79A7", "P", "++"),
    "OCAP": ("#009E73", "v", "\\\\\\"),
    "Guo-Potkonjak": ("#E69F00", "X", "oo"),
    "L1": ("#5D3A9B", "<", "--"),
    "APoZ": ("#994F00", ">", "||"),
    "random": ("#444444", "x", "**"),
    "restricted": ("#000000", "*", ""),
    "base": ("#BBBBBB", "_", ""),
}


def look(method: str) -> MethodLook:
    """Return colour and mark of a method's line, and its label."""
    colour, mark, _ = _LOOKS[method]
    return {"color": colour, "marker": mark, "markersize": 5, "linewidth": 1.3, "label": method}


def bar_look(method: str) -> MethodLook:
    """Return colour and hatch of a method's bars, and its label."""
    colour, _, hatch = _LOOKS[method]
    return {"color": colour, "hatch": hatch, "edgecolor": "white", "linewidth": 0.0, "label": method}


def paper_look(label: str = "M, paper") -> MethodLook:
    """Return the look of what a paper printed: hollow, and dashed."""
    return {
        "color": "#0072B2", "marker": "s", "markersize": 6, "markerfacecolor": "none", "linewidth": 1.0,
        "linestyle": "--", "label": label,
    }  # fmt: skip


def interval(rows: Sequence[Row], column: str, factor: float = 1.0) -> tuple[float, float]:
    """Return the mean of a column times `factor`, and half the width of its 95 % interval: 0 where there is none."""
    if any(row[column] is None for row in rows):
        raise ValueError(f"{column}: some row has no value: nothing can be drawn")
    ends = interval_of(rows, column)
    return factor * mean_over(rows, column), 0.0 if ends is None else factor * (ends[1] - ends[0]) / 2


def finish(axes: Axes, across: str, up: str) -> None:
    """Name the axes and draw a grid behind the data."""
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.grid(axis="y", color="#d5d5d5", linewidth=0.6)
    axes.set_axisbelow(True)


def room_for(axes: Axes, means: Sequence[float], most: float = math.inf) -> None:
    """Show all of `means`, in points, and not all of their intervals: those of two or three rows are far wider."""
    axes.set_ylim(min(means) - _ROOM, min(max(means) + _ROOM, most))


def legend_below(figure: Figure, axes: Axes) -> None:
    """Put one legend, which is that of `axes`, below all panels."""
    handles, labels = axes.get_legend_handles_labels()
    columns = int(figure.get_figwidth() / (_LETTER * max(map(len, labels)) + _MARK))
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), columns), frameon=False)


def as_plot(
    name: str, draw: Callable[[Figure], None], caption: str, alt: str, *, width: float = 9.0, height: float = 4.0
) -> Plot:
    """Return what `draw` puts on an empty figure, `width` x `height` inches."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure)
        out = io.BytesIO()
        figure.savefig(out, format="png", dpi=_DPI)
    return Plot(name, out.getvalue(), caption, alt)
