"""Draws class clusters: for each layer the elbow of the inertia curve, and a map of the classes.

Colours are Okabe and Ito's, which colour-blind readers tell apart, and never alone: each cluster has its own shape.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import RendererAgg
    from numpy.typing import NDArray

    from cloud_pruner.profile import LayerProfile

__all__ = ["cluster_plot"]

_COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS: Final = "osD^vPX<>*hpd8H"  # as many as have no factor in common with the colours: no pair comes twice
_STYLE: Final[dict[Any, Any]] = {
    "font.size": 9,
    "axes.edgecolor": "#888888",
    "axes.spines.top": False,
    "axes.spines.right": False,
}
_TITLE: Final = (
    "Classes grouped by firing rates. Left: the number of clusters is where the curve lies farthest below its chord. "
    "Right: classes with like firing rates are near each other."
)
# Where a name may stand beside its class: right of it, left, over it, under it, and at its corners.
_PLACES: Final = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1))
# In points: from a class to its name, and half of the side of its dot.
_GAP: Final = 4.5
_DOT: Final = 3.0


def cluster_plot(layers: Sequence[LayerProfile], classes: Sequence[str]) -> Figure:
    """Draw two panels for each layer: its inertia curve with the number of clusters taken, and a map of `classes`.

    The map shows the columns of firing rates along their first two principal components; a line leads from each class
    to the mean of its cluster. Names stand where they hide nothing.
    """
    across = min(len(layers), 2)
    down = -(-len(layers) // across)
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(9.0 * across, 0.5 + 5.0 * down), layout="constrained")
        figure.suptitle(_TITLE, x=0.01, ha="left", fontsize=10)
        grid = figure.add_gridspec(down, across)
        maps = []
        for number, layer in enumerate(layers):
            part = figure.add_subfigure(grid[divmod(number, across)])
            title = f"{layer.name}: units {layer.units}, clusters {layer.cluster_count}"
            part.suptitle(title, x=0.01, ha="left", fontsize=10, weight="bold", parse_math=False)
            curve, place = part.subplots(1, 2, width_ratios=(1, 2.4))
            _draw_curve(curve, layer)
            maps.append((place, *_draw_map(place, layer)))
        figure.draw_without_rendering()  # only now is it known where everything stands,
        figure.set_layout_engine("none")  # and there it shall stay
        renderer = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]
        for place, points, colours in maps:
            _name(place, points, classes, colours, renderer)
    return figure


def _draw_curve(axes: Axes, layer: LayerProfile) -> None:
    inertia, chosen = layer.inertia, layer.cluster_count
    numbers = np.arange(1, len(inertia) + 1)
    axes.plot(numbers, inertia, color="#444444", linewidth=1.0, marker=".", markersize=4)
    chord = np.linspace(inertia[0], inertia[-1], len(inertia))
    axes.plot(numbers, chord, color="#888888", linewidth=0.8, linestyle="--")
    axes.vlines(chosen, inertia[chosen - 1], chord[chosen - 1], color=_COLOURS[1], linewidth=1.0)
    axes.plot([chosen], [inertia[chosen - 1]], color=_COLOURS[1], marker="o", markersize=6)
    axes.annotate(
        f"k = {chosen}", (chosen, inertia[chosen - 1]), (-4, -5), textcoords="offset points", color=_COLOURS[1],
        ha="right", va="top",
    )  # fmt: skip
    axes.set_xlabel("clusters k")
    axes.set_ylabel("inertia")
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.grid(color="#d5d5d5", linewidth=0.6)
    axes.set_axisbelow(True)


def _draw_map(axes: Axes, layer: LayerProfile) -> tuple[NDArray[np.float64], list[str]]:
    """Draw the classes; return where each stands, `(classes, 2)`, and its colour."""
    points, shares = _principal_components(layer.firing_rates)
    colours = [""] * len(points)
    for cluster in range(layer.cluster_count):
        mine = np.flatnonzero(layer.clusters == cluster)
        colour = _COLOURS[cluster % len(_COLOURS)]
        centre = points[mine].mean(axis=0)
        for label in mine:
            colours[label] = colour
        spokes = [(centre, points[label]) for label in mine]
        axes.add_collection(LineCollection(spokes, colors=colour, linewidths=0.6, alpha=0.35))
        marker = _MARKERS[cluster % len(_MARKERS)]
        axes.plot(*points[mine].T, color=colour, marker=marker, markersize=5, linestyle="none")
    for axis, share in zip((axes.xaxis, axes.yaxis), shares, strict=True):
        axis.set_ticks([])
        number = "first" if axis is axes.xaxis else "second"
        axis.set_label_text(f"{number} principal component ({share:.0%} of the variance)")
    axes.margins(0.08)
    return points, colours


def _principal_components(rates: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return each class along the first two components, `(classes, 2)`, and the shares of variance that these hold."""
    columns = rates.T.astype(np.float64)
    left, lengths, right = np.linalg.svd(columns - columns.mean(axis=0), full_matrices=False)
    # A component may point either way: its largest entry shall be positive, so that pictures can be compared.
    signs = np.sign(right[np.arange(len(right)), np.abs(right).argmax(axis=1)])
    points, shares = np.zeros((len(columns), 2)), np.zeros(2)
    count = min(len(lengths), 2)
    points[:, :count] = (left * lengths * signs)[:, :count]
    variance = lengths**2
    shares[:count] = variance[:count] / max(variance.sum(), np.finfo(np.float64).tiny)
    return points, shares


def _name(
    axes: Axes,
    points: NDArray[np.float64],
    classes: Sequence[str],
    colours: Sequence[str],
    renderer: RendererAgg,
) -> None:
    """Write the classes' names beside their points: those farthest out first, and none over a point or a name."""
    pixel = renderer.dpi / 72  # per point
    within = axes.get_window_extent(renderer)
    stand = np.asarray(axes.transData.transform(points))
    # Lower left and upper right corners of what must not be hidden.
    taken = np.stack([stand - _DOT * pixel, stand + _DOT * pixel], axis=1)
    for label in np.argsort(-np.linalg.norm(points, axis=1), kind="stable"):
        name = axes.text(0, 0, classes[label], fontsize=7, color=colours[label], parse_math=False)
        size = np.asarray(name.get_window_extent(renderer).size)
        for edge in _PLACES:
            # From the point to the middle of the name: a gap, and half the name.
            middle = stand[label] + np.multiply(edge, _GAP * pixel + size / 2)
            low, high = middle - size / 2, middle + size / 2
            inside = (low >= within.min).all() and (high <= within.max).all()
            if inside and not ((taken[:, 0] < high) & (taken[:, 1] > low)).all(axis=1).any():
                name.set(position=axes.transData.inverted().transform(middle), ha="center", va="center")
                taken = np.concatenate([taken, [[low, high]]])
                break
        else:
            name.remove()
