"""Reports as aligned plain text, for a terminal or a file."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hwmodel.report import Comparison, Report
    from hwmodel.sweep import Sweep

__all__ = ["comparison_text", "quantity", "report_text", "short_name", "sweep_text"]

_NAME_WIDTH = 24
# What converters call the operators that others are fused into.
_PRODUCTS = ("convolution", "depthwise", "MatMul")
_LARGE = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_JOULES = ((1e12, "J"), (1e9, "mJ"), (1e6, "uJ"), (1e3, "nJ"))
_SECONDS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns"))
_FIGURES = {
    "time_s": "time",
    **{f"energy.{part}": f"energy, {part}" for part in ("dram", "sram", "macs", "pooling", "activation", "arithmetic")},
}


def quantity(value: float, *, energy: bool = False, time: bool = False) -> str:
    """Return a count ("15.47 G"), an energy given in pJ ("112.76 mJ") or a time in s ("8.63 ms") in a unit of its size.

    Examples
    --------
    >>> quantity(15_470_264_320), quantity(720), quantity(0)
    ('15.47 G', '720', '-')
    >>> quantity(112_759_000_000, energy=True)
    '112.76 mJ'
    >>> quantity(0.008634, time=True)
    '8.63 ms'
    """
    if value == 0:
        return "-"
    for size, unit in _SECONDS if time else _JOULES if energy else _LARGE:
        # What would round up to 1000.00 of a unit goes to the next.
        if value >= size * 0.999995:
            return f"{value / size:.2f} {unit}"
    return f"{value:.2f} pJ" if energy else f"{value * 1e9:.2f} ns" if time else f"{value:.0f}"


def report_text(report: Report) -> str:
    """Return a report as text: one line per layer, the total, its energy by component, and what is left out."""
    total = report.energy.total
    rows = [
        ["layer", "kind", "MACs", "weights", "cycles", "array use", "time", "waits for", "DRAM words", "SRAM words",
         "energy", "share"]
    ]  # fmt: skip
    for figures in report.layers:
        fields = report.layer_dict(figures)
        rows.append(
            [
                short_name(figures.layer.name),
                figures.layer.kind,
                quantity(figures.layer.macs),
                quantity(figures.layer.weights),
                quantity(figures.cycles),
                _share(fields["utilisation"], 1),
                quantity(fields["time_s"] or 0, time=True),
                {"compute": "array" if figures.array_cycles else "vector", "memory": "DRAM", None: "-"}[figures.bound],
                quantity(figures.traffic.dram_words),
                quantity(figures.traffic.sram_words),
                quantity(figures.energy.total, energy=True),
                _share(figures.energy.total, total),
            ]
        )
    rows.append(
        [
            "total",
            "",
            quantity(report.macs),
            quantity(report.weights),
            quantity(report.cycles),
            _share(report.utilisation, 1),
            quantity(report.time_s or 0, time=True),
            "",
            quantity(report.traffic.dram_words),
            quantity(report.traffic.sram_words),
            quantity(total, energy=True),
            _share(total, total),
        ]
    )
    components = [
        [component, quantity(energy, energy=True), _share(energy, total)]
        for component, energy in asdict(report.energy).items()
    ]
    return "\n".join(
        [
            f"{report.model} on {_description(report)}, {_inferences(report)}",
            "",
            *_align(rows, texts=2),
            "",
            "energy by component",
            *_align(components, texts=1),
            *_notes(report),
        ]
    )


def comparison_text(comparison: Comparison) -> str:
    """Return a comparison as text: each total of both models, and its ratio."""
    base, cut = comparison.base, comparison.cut
    rows = [["", "base", "cut", "cut / base"]]
    for figure, ratio in comparison.ratios.items():
        energy, time = figure.startswith("energy"), figure == "time_s"
        before, after = (quantity(report.totals[figure] or 0, energy=energy, time=time) for report in (base, cut))
        rows.append([_FIGURES.get(figure, figure.replace("_", " ")), before, after, _ratio(ratio)])
    lines = [
        f"base: {base.model}",
        f"cut:  {cut.model}",
        f"on    {_description(base)}, {_inferences(base)}",
        "",
        *_align(rows, texts=1),
        *_notes(base),
        *_notes(cut),
    ]
    return "\n".join(lines)


def sweep_text(plan: Sweep, reports: Sequence[Sequence[Report]]) -> str:
    """Return a sweep as text: for each value the totals of each model (base, or base and cut)."""
    rows = [[plan.label, "model", "cycles", "array use", "time", "DRAM words", "SRAM words", "energy"]]
    for value, models in zip(plan.values, reports, strict=True):
        rows.extend(
            [
                f"{value:g}",
                name,
                quantity(report.cycles),
                _share(report.utilisation, 1),
                quantity(report.time_s or 0, time=True),
                quantity(report.traffic.dram_words),
                quantity(report.traffic.sram_words),
                quantity(report.energy.total, energy=True),
            ]
            for name, report in zip(("base", "cut"), models, strict=False)
        )
    models = reports[0]
    named = [f"{name}: {report.model}" for name, report in zip(("base", "cut"), models, strict=False)]
    notes = [line for report in models for line in _notes(report, warnings=False)]
    lines = [*named, f"on {models[0].accelerator.name}, {_inferences(models[0])}", "", *_align(rows, texts=2), *notes]
    return "\n".join(lines)


def short_name(name: str) -> str:
    """Return the layer that a tensor is named for, as reports show it; a long name loses its beginning.

    Converters join the names of all that they fused ("net/conv1/convolution;net/bn1/batchnorm/sub"): the product's part
    is the layer's own, and its last component says what it does. What would steer a terminal is replaced.
    """
    parts = [part.split("/") for part in name.split(";")]
    products = [part for part in parts if len(part) > 1 and part[-1].startswith(_PRODUCTS)]
    components = products[0] if products else parts[-1]
    owners = [component for component in components[:-1] if component != "batchnorm"]
    short = "".join(one if one.isprintable() else "?" for one in (owners[-1] if owners else components[-1]))
    return short if len(short) <= _NAME_WIDTH else f"...{short[3 - _NAME_WIDTH :]}"


def _description(report: Report) -> str:
    one = report.accelerator
    dataflow = {"ws": "weight", "os": "output", "is": "input"}[one.dataflow]
    return f"{one.name} ({one.rows} x {one.columns} array, {dataflow} stationary, {one.word} words)"


def _inferences(report: Report) -> str:
    return "one inference" if report.batch == 1 else f"{report.batch} inferences together"


def _share(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f} %" if part else "-"


def _ratio(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.3f}"


def _notes(report: Report, *, warnings: bool = True) -> list[str]:
    lines: list[str] = []
    if warnings:
        lines += [line for warning in report.warnings for line in ("", f"warning: {report.model}: {warning}")]
    if report.uncosted:
        listed = [f"  {work.operator} ({short_name(work.name)}): {work.reason}" for work in report.uncosted]
        lines += ["", f"not costed in {report.model}, so that its totals are lower bounds:", *listed]
    return lines


def _align(rows: Sequence[Sequence[str]], *, texts: int) -> list[str]:
    """Return one line per row: the first `texts` columns flush left, the others, numbers, flush right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if i < texts else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
