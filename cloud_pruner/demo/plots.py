"""The report's plots, as SVG.

Colours are such as colour-blind readers tell apart, and never alone: hatches and shapes go with them.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, Final

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from cloud_pruner.demo.summary import ACCURACY_LOSS_MAX, RELATIVE_SIZE_MAX

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from cloud_pruner.demo.device import Timeline
    from cloud_pruner.demo.summary import Phase

__all__ = ["accuracy_plot", "savings_plot", "timeline_plot"]

_WIDTH: Final = 7.6
_INK: Final = "#222222"
_GRID: Final = "#d5d5d5"
# Okabe and Ito's palette.
_BLUE, _ORANGE, _GREEN, _PURPLE, _RED = "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00"
_STYLE: Final[dict[Any, Any]] = {
    "font.size": 10,
    "axes.edgecolor": "#888888",
    "axes.labelcolor": _INK,
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "hatch.linewidth": 0.6,
    "svg.hashsalt": "capnn",
}
_WINDOW: Final = 50


def timeline_plot(timeline: Timeline) -> bytes:
    """Draw which classes came up, and how large the active model was, over the requests."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH, 4.9), layout="constrained")
        seen, size = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
        _draw_classes(seen, timeline)
        _draw_sizes(size, timeline)
        _draw_phases((seen, size), timeline)
        return _svg(figure)


def _draw_classes(axes: Axes, timeline: Timeline) -> None:
    shares, classes = _class_shares(timeline)
    picture = axes.imshow(
        shares,
        aspect="auto",
        cmap="Blues",
        vmin=0,
        vmax=0.6,
        interpolation="nearest",
        extent=(0, shares.shape[1] * _WINDOW, len(classes) - 0.5, -0.5),
    )
    axes.set_yticks(range(len(classes)), classes)
    axes.set_ylabel("class")
    bar = axes.figure.colorbar(picture, ax=axes, pad=0.01, extend="max")
    bar.set_label(f"share of {_WINDOW} images")
    bar.ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))


def _class_shares(timeline: Timeline) -> tuple[NDArray[np.float64], list[str]]:
    """Return the share of each class in every `_WINDOW` requests, `(classes, windows)`, and the classes."""
    classes = sorted(set(timeline.classes))
    numbers = np.array([classes.index(name) for name in timeline.classes])
    windows = -(-len(numbers) // _WINDOW)
    counts = np.zeros((len(classes), windows))
    np.add.at(counts, (numbers, np.arange(len(numbers)) // _WINDOW), 1)
    return counts / counts.sum(axis=0), classes


def _draw_sizes(axes: Axes, timeline: Timeline) -> None:
    sizes = np.array(timeline.sizes)
    steps = np.flatnonzero(np.diff(sizes, prepend=np.nan))  # NaN differs from all: the first is one
    axes.stairs(sizes[steps], [*steps, len(sizes)], fill=True, color=_BLUE, alpha=0.2)
    axes.stairs(sizes[steps], [*steps, len(sizes)], baseline=None, color=_BLUE, linewidth=1.8)
    axes.set(ylim=(0, 1.18), xlim=(0, len(sizes)), xlabel="images classified")
    axes.set_ylabel("parameters of the\nactive model")
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_yticks((0, 0.5, 1))
    axes.grid(axis="y", color=_GRID, linewidth=0.6)
    for mark in timeline.marks:
        if mark.kind == "swap":
            size = sizes[min(mark.request, len(sizes) - 1)]
            axes.plot(mark.request, size, marker="v", color=_RED, markersize=7, clip_on=False, zorder=3)
            axes.annotate(mark.text, (mark.request, size), (5, 3), textcoords="offset points", fontsize=9)
    axes.plot([], [], marker="v", color=_RED, linestyle="none", label="swap")
    axes.plot([], [], color=_RED, linewidth=1.8, label="the cloud stops")
    axes.legend(loc="upper right", ncols=2, frameon=False, fontsize=9, borderaxespad=0)


def _draw_phases(both: Sequence[Axes], timeline: Timeline) -> None:
    phases = [mark for mark in timeline.marks if mark.kind == "phase"]
    ends = [mark.request for mark in phases[1:]] + [timeline.answered]
    for mark, end in zip(phases, ends, strict=True):
        both[0].annotate(
            mark.text.replace(" ", "\n"),
            ((mark.request + end) / 2, 1.02),
            xycoords=("data", "axes fraction"),
            ha="center",
            va="bottom",
            fontsize=8.5,
        )
    stops = [mark.request for mark in timeline.marks if mark.kind == "cloud stopped"]
    for axes in both:
        for mark in phases[1:]:
            is_stop = mark.request in stops
            axes.axvline(
                mark.request,
                color=_RED if is_stop else "#777777",
                linewidth=1.8 if is_stop else 0.9,
                linestyle="-" if is_stop else (0, (3, 3)),
            )


def savings_plot(phases: Sequence[Phase]) -> bytes:
    """Draw size, energy, MACs and latency of each phase's model, relative to the base's."""
    cuts = [phase for phase in phases if phase.is_cut]
    bars = (
        ("parameters", _BLUE, "", [p.relative_size for p in cuts]),
        ("energy (modelled)", _ORANGE, "///", [p.figures.energy_ratio for p in cuts]),
        ("MACs", _GREEN, "...", [p.figures.macs_ratio for p in cuts]),
        ("latency here", _PURPLE, "\\\\\\", [p.figures.latency_ratio for p in cuts]),
    )
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH, 3.4), layout="constrained")
        axes = figure.subplots()
        width = 0.8 / len(bars)
        places = np.arange(len(cuts))
        for number, (name, colour, hatch, values) in enumerate(bars):
            offset = (number - (len(bars) - 1) / 2) * width
            drawn = axes.bar(
                places + offset, values, width, label=name, color=colour, hatch=hatch, edgecolor="white", linewidth=0.8
            )
            axes.bar_label(drawn, [f"{100 * value:.0f}" for value in values], fontsize=8, padding=1)
        axes.axhline(1, color=_INK, linewidth=1)
        axes.annotate("base model", (1, 1), (0, -3), xycoords=("axes fraction", "data"), textcoords="offset points",
                      ha="right", va="top", fontsize=9)  # fmt: skip
        axes.axhline(RELATIVE_SIZE_MAX, color=_BLUE, linewidth=0.9, linestyle="--")
        axes.set_xticks(places, [_phase_label(phase) for phase in cuts])
        axes.set(ylabel="relative to the base model", ylim=(0, 1.25))
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.legend(loc="upper center", ncols=4, frameon=False, fontsize=9)
        return _svg(figure)


def accuracy_plot(phases: Sequence[Phase]) -> bytes:
    """Draw the accuracy of base and cut on each phase's unseen images."""
    cuts = [phase for phase in phases if phase.is_cut]
    base = np.array([phase.figures.accuracy_base for phase in cuts])
    cut = np.array([phase.figures.accuracy_cut for phase in cuts])
    places = np.arange(len(cuts))
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH, 3.2), layout="constrained")
        axes = figure.subplots()
        axes.vlines(places, base, cut, color="#999999", linewidth=2, zorder=1)
        axes.plot(places, base, marker="o", linestyle="none", markersize=9, markerfacecolor="white",
                  markeredgecolor=_INK, markeredgewidth=1.6, clip_on=False, label="base model")  # fmt: skip
        axes.plot(
            places, cut, marker="D", linestyle="none", markersize=7, color=_BLUE, clip_on=False, label="cut model"
        )
        axes.hlines(base - ACCURACY_LOSS_MAX, places - 0.25, places + 0.25, color=_RED, linewidth=1.8,
                    label=f"promised at least (base - {100 * ACCURACY_LOSS_MAX:.0f} points)")  # fmt: skip
        labels = [f"{_phase_label(phase)}\nn = {phase.figures.unseen_images}" for phase in cuts]
        axes.set_xticks(places, labels)
        low = min(base.min() - ACCURACY_LOSS_MAX, cut.min())
        axes.set_yticks(np.arange(np.floor(50 * low) / 50, 1.001, 0.02))
        axes.set(ylabel="top-1 accuracy", ylim=(low - 0.01, 1.005), xlim=(-0.5, len(cuts) - 0.5))
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.grid(axis="y", color=_GRID, linewidth=0.6)
        axes.set_axisbelow(True)
        figure.legend(loc="outside upper center", ncols=3, frameon=False, fontsize=9)
        return _svg(figure)


def _phase_label(phase: Phase) -> str:
    return f"{phase.name}\n{' '.join(phase.interests)}"


def _svg(figure: Figure) -> bytes:
    output = io.BytesIO()
    figure.savefig(output, format="svg", metadata={"Date": None})
    return output.getvalue()
