"""Plots of reports, as PNG files: energy by layer and component, roofline, sweep.

Colours are Okabe and Ito's, which colour-blind readers tell apart, and never alone: hatches and shapes go with them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter

from hwmodel.table import short_name

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from hwmodel.cost import LayerFigures
    from hwmodel.report import Report
    from hwmodel.sweep import Sweep

__all__ = ["energy_plot", "roofline_plot", "sweep_plot", "write_plots"]

_BLUE, _ORANGE, _GREEN, _PURPLE, _RED, _SKY = "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9"
_GRID: Final = "#d5d5d5"
_STYLE: Final[dict[Any, Any]] = {
    "font.size": 9,
    "axes.edgecolor": "#888888",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "hatch.linewidth": 0.6,
}
# Component of `Energy` -> what the legend says, colour, hatch.
_COMPONENTS: Final = {
    "dram": ("DRAM", _BLUE, ""),
    "sram": ("SRAM", _ORANGE, "///"),
    "macs": ("multiply-accumulate", _GREEN, "..."),
    "pooling": ("pooling", _PURPLE, "xxx"),
    "activation": ("activation", _RED, "\\\\\\"),
    "arithmetic": ("other arithmetic", _SKY, "+++"),
}
_MARKERS: Final = {
    "convolution": ("o", _BLUE),
    "depthwise": ("s", _ORANGE),
    "transposed": ("v", _PURPLE),
    "dense": ("D", _RED),
    "matmul": ("P", _GREEN),
    "recurrent": ("X", _SKY),
}
_MODELS: Final = (("base", _BLUE, "o", "-"), ("cut", _RED, "s", "--"))
_LAYERS_MAX: Final = 24
_SHARE_MIN: Final = 1e-3


def write_plots(
    folder: Path, reports: Sequence[Report], plan: Sweep | None = None, steps: Sequence[Sequence[Report]] = ()
) -> list[Path]:
    """Write energy.png, roofline.png (where clock and bandwidth are stated) and, with a plan, sweep.png.

    Parameters
    ----------
    reports
        The base model's, and its cut's where there is one.
    plan, steps
        A sweep, and for each of its values the reports of the same models.

    Returns
    -------
    list
        The files, in the order in which they were written. `folder` is made where it is missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    figures = {"energy": energy_plot(reports)}
    one = reports[0].accelerator
    if one.clock_mhz is not None and one.dram_gb_s is not None:
        figures["roofline"] = roofline_plot(reports)
    if plan is not None:
        figures["sweep"] = sweep_plot(plan, steps)
    paths = []
    for name, figure in figures.items():
        paths.append(folder / f"{name}.png")
        figure.savefig(paths[-1], dpi=150)
    return paths


def energy_plot(reports: Sequence[Report]) -> Figure:
    """Draw the energy of the whole model and of each layer by component; with a cut, beside the base's same layer."""
    layers, others = _layers_to_show(reports)
    with mpl.rc_context(_STYLE):
        inch = 0.17 + 0.11 * len(reports)
        heights = [inch * (1 + 1.0), inch * (len(layers) + 1.0)]
        figure = Figure(figsize=(8.2, sum(heights) + 1.7), layout="constrained")
        whole, each = figure.subplots(2, 1, height_ratios=heights)
        _energy_bars(whole, [[_summed(report.layers)] for report in reports], ["all layers"], _run(reports[0]))
        _energy_bars(
            each, [[_layer_energy(report, name) for name in layers] for report in reports],
            [short_name(name) for name in layers], f"each layer in {_run(reports[0])}",
        )  # fmt: skip
        title = f"Energy by component on {reports[0].accelerator.name}"
        if len(reports) > 1:
            title += "; in each pair base above, cut (paler) below"
        whole.set_title(title, loc="left", fontsize=10)
        if others:
            each.set_title(
                f"the {len(layers)} layers that take most ({others} others not shown)", loc="left", fontsize=9
            )
        handles = [Patch(facecolor=colour, hatch=hatch, edgecolor="white", label=text)
                   for part, (text, colour, hatch) in _COMPONENTS.items()
                   if any(_summed(report.layers)[part] for report in reports)]  # fmt: skip
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    return figure


def _energy_bars(axes: Axes, models: Sequence[Sequence[dict[str, float]]], names: Sequence[str], what: str) -> None:
    """Draw stacked bars: for each name one of each model."""
    largest = max((sum(bar.values()) for bars in models for bar in bars), default=0.0)
    scale, unit = _energy_unit(largest)
    thick = 0.8 / len(models)
    for which, bars in enumerate(models):
        positions = [row + (which - (len(models) - 1) / 2) * thick for row in range(len(names))]
        starts = [0.0] * len(bars)
        for part, (_, colour, hatch) in _COMPONENTS.items():
            lengths = [bar[part] / scale for bar in bars]
            axes.barh(
                positions, lengths, thick * 0.92, left=starts, hatch=hatch, linewidth=0.6,
                color=f"{colour}70" if which else colour, edgecolor=colour if which else "white",
            )  # fmt: skip
            starts = [start + length for start, length in zip(starts, lengths, strict=True)]
        for start, position in zip(starts, positions, strict=True):
            axes.annotate(
                f"{start:.4g}", (start, position), (3, 0), textcoords="offset points", va="center", fontsize=7
            )
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(max(1, len(names)) - 0.5, -0.5)
    axes.set_xlim(0, 1.06 * largest / scale or 1)
    axes.set_xlabel(f"energy of {what} ({unit})")
    axes.grid(axis="x", color=_GRID, linewidth=0.6)
    axes.set_axisbelow(True)


def roofline_plot(reports: Sequence[Report]) -> Figure:
    """Draw each layer's operations a second over its operations a DRAM byte, under what the accelerator can do."""
    one = reports[0].accelerator
    peak = 2 * (one.peak_macs_per_s or 0)
    bandwidth = (one.dram_gb_s or 0) * 1e9
    ridge = peak / bandwidth
    points = [
        _Point(which, figures, *_intensity(figures, report))
        for which, report in enumerate(reports)
        for figures in report.layers
        if figures.layer.macs
    ]
    finite = [point.intensity for point in points if point.intensity is not None]
    left, right = min([*finite, ridge]) / 3, max([*finite, ridge]) * 12
    lowest = min([point.performance for point in points], default=peak / 1e4) / 3
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(8.2, 5.4), dpi=100, layout="constrained")
        axes = figure.subplots()
        axes.loglog([left, ridge, right], [left * bandwidth, peak, peak], color="#222222", linewidth=1.6, zorder=1)
        axes.annotate(f"array: {peak / 1e12:.3g} TOP/s", (right, peak), (-4, 4), textcoords="offset points", ha="right")
        low = max(left, lowest / bandwidth)
        middle = (low * ridge) ** 0.5
        text = f"DRAM: {one.dram_gb_s:g} GB/s"
        axes.annotate(text, (middle, middle * bandwidth), (-6, 6), textcoords="offset points", ha="right")
        axes.axvline(ridge, color="#888888", linewidth=0.8, linestyle=(0, (3, 3)), zorder=0)
        for point in points:
            marker, colour = _MARKERS[point.figures.layer.kind]
            # A cut's layer is a ring: it shows around the base's where the two are the same.
            size, fill = (11, "none") if point.model else (7, "full")
            axes.plot(
                point.intensity or right / 3, point.performance, marker, color=colour, markersize=size, fillstyle=fill
            )
        if len(finite) < len(points):
            axes.axvspan(right / 6, right, color="#eeeeee", zorder=-1)
            axes.annotate("no DRAM traffic", (right / 2.45, 0), (0, 6), xycoords=("data", "axes fraction"),
                          textcoords="offset points", ha="center", color="#555555")  # fmt: skip
        axes.set(xlim=(left, right), ylim=(lowest, peak * 6))
        figure.draw_without_rendering()  # lays out the axes, so that it is known where there is room for names
        _name_points(axes, points, right)
        axes.set_xlabel("operational intensity (operations per byte of DRAM traffic; a MAC is two operations)")
        axes.set_ylabel("performance reached (operations/s)")
        axes.grid(color=_GRID, linewidth=0.5)
        axes.set_title(f"Roofline of {one.name}: left of the dashed line DRAM limits, right of it the array",
                       loc="left", fontsize=10)  # fmt: skip
        for kind in dict.fromkeys(point.figures.layer.kind for point in points):
            axes.plot([], [], _MARKERS[kind][0], color=_MARKERS[kind][1], label=kind)
        if len(reports) > 1:
            axes.plot([], [], "o", color="#555555", label="base")
            axes.plot([], [], "o", color="#555555", fillstyle="none", markersize=9, label="cut")
        if points:
            axes.legend(loc="upper left", frameon=False)
    return figure


@dataclass(frozen=True, slots=True)
class _Point:
    """A layer of model 0 (base) or 1 (cut); operations for each DRAM byte (None: no traffic), and each second."""

    model: int
    figures: LayerFigures
    intensity: float | None
    performance: float


def _name_points(axes: Axes, points: Sequence[_Point], right: float) -> None:
    """Write beside each heap of points, the slowest first, one name and how many others, where there is room."""
    heaps: dict[tuple[float, int], list[_Point]] = {}
    for point in points:
        if not point.model:
            place = -1.0 if point.intensity is None else round(6 * math.log10(point.intensity))
            heaps.setdefault((place, round(12 * math.log10(point.performance))), []).append(point)
    # Boxes that are taken, in the figure's dots: at first, around the points.
    centres = [axes.transData.transform((point.intensity or right / 3, point.performance)) for point in points]
    taken = [(float(x) - 6, float(y) - 6, float(x) + 6, float(y) + 6) for x, y in centres]
    for heap in sorted(heaps.values(), key=lambda heap: -sum(point.figures.elapsed_cycles for point in heap)):
        slowest = max(heap, key=lambda point: point.figures.elapsed_cycles)
        text = short_name(slowest.figures.layer.name) + (f" + {len(heap) - 1}" if len(heap) > 1 else "")
        at = (slowest.intensity or right / 3, slowest.performance)
        x, y = axes.transData.transform(at)
        width, height = 6.0 * len(text), 13.0  # of this small print, at 100 dots an inch
        for shift, rise in ((11, 0), (-11 - width, 0), (-width / 2, -16), (-width / 2, 16)):
            box = (x + shift, y + rise - height / 2, x + shift + width, y + rise + height / 2)
            if not any(box[0] < b[2] and b[0] < box[2] and box[1] < b[3] and b[1] < box[3] for b in taken):
                taken.append(box)
                offset = (shift * 0.72, rise * 0.72)  # in points
                axes.annotate(text, at, offset, textcoords="offset points", va="center", fontsize=7, zorder=2)
                break


def sweep_plot(plan: Sweep, steps: Sequence[Sequence[Report]]) -> Figure:
    """Draw energy, time (or cycles) and array utilisation over the values of a sweep."""
    has_clock = all(report.time_s is not None for step in steps for report in step)
    scale, unit = _energy_unit(max(report.energy.total for step in steps for report in step))
    panels: list[tuple[str, Callable[[Report], float]]] = [
        (f"energy ({unit})", lambda report: report.energy.total / scale),
        ("time (ms)", lambda report: (report.time_s or 0) * 1e3) if has_clock else ("cycles", lambda r: r.cycles),
        ("array utilisation", lambda report: report.utilisation),
    ]
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(9.2, 3.2), layout="constrained")
        for axes, (label, value) in zip(figure.subplots(1, 3), panels, strict=True):
            for which in range(len(steps[0])):
                name, colour, marker, line = _MODELS[which]
                axes.plot(
                    plan.values, [value(step[which]) for step in steps],
                    color=colour, marker=marker, linestyle=line, label=name, linewidth=1.6, markersize=5,
                )  # fmt: skip
            axes.set_xscale("log", base=2)
            axes.set_xticks(plan.values, [f"{value:g}" for value in plan.values])
            axes.minorticks_off()
            axes.set_xlabel(plan.label)
            axes.set_ylabel(label)
            axes.grid(color=_GRID, linewidth=0.6)
            if label == "array utilisation":
                axes.set_ylim(0, 1)
                axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
            elif label.startswith("energy"):
                axes.set_ylim(bottom=0)
            else:
                axes.set_yscale("log")
        if len(steps[0]) > 1:
            figure.axes[0].legend(frameon=False)
        figure.suptitle(
            f"{steps[0][0].accelerator.name}, {_run(steps[0][0])}: sweep over {plan.label}", x=0.01, ha="left",
            fontsize=10,
        )  # fmt: skip
    return figure


def _layers_to_show(reports: Sequence[Report]) -> tuple[list[str], int]:
    """Return the names of the layers that take most, in the order of the file, and how many others there are."""
    most: dict[str, float] = {}
    for report in reports:
        for figures in report.layers:
            if figures.energy.total > _SHARE_MIN * report.energy.total:
                most[figures.layer.name] = max(most.get(figures.layer.name, 0.0), figures.energy.total)
    largest = set(sorted(most, key=lambda name: -most[name])[:_LAYERS_MAX])
    names = {figures.layer.name for report in reports for figures in report.layers if figures.energy.total}
    return [name for name in most if name in largest], len(names) - len(largest)


def _layer_energy(report: Report, name: str) -> dict[str, float]:
    return _summed([figures for figures in report.layers if figures.layer.name == name])


def _summed(layers: Sequence[LayerFigures]) -> dict[str, float]:
    return {part: sum(getattr(figures.energy, part) for figures in layers) for part in _COMPONENTS}


def _intensity(figures: LayerFigures, report: Report) -> tuple[float | None, float]:
    """Return operations for each DRAM byte (None without DRAM traffic), and operations a second."""
    one = report.accelerator
    operations = 2 * figures.layer.macs
    bytes_moved = figures.traffic.dram_words * one.word_bits / 8
    seconds = figures.elapsed_cycles / ((one.clock_mhz or 0) * 1e6)
    return operations / bytes_moved if bytes_moved else None, operations / seconds


def _energy_unit(picojoules: float) -> tuple[float, str]:
    return next(((size, unit) for size, unit in ((1e12, "J"), (1e9, "mJ"), (1e6, "µJ")) if picojoules >= size),
                (1e3, "nJ"))  # fmt: skip


def _run(report: Report) -> str:
    return "one inference" if report.batch == 1 else f"{report.batch} inferences"
