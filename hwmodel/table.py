"""Reports as aligned plain text, for a terminal or a file."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hwmodel.report import Comparison, Report

__all__ = ["comparison_text", "quantity", "report_text"]

_NAME_WIDTH = 32
_LARGE = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_JOULES = ((1e12, "J"), (1e9, "mJ"), (1e6, "uJ"), (1e3, "nJ"))


def quantity(value: float, *, energy: bool = False) -> str:
    """Return a count ("15.47 G") or an energy given in pJ ("112.76 mJ") in the unit that suits its size.

    Examples
    --------
    >>> quantity(15_470_264_320), quantity(720), quantity(0)
    ('15.47 G', '720', '-')
    >>> quantity(112_759_000_000, energy=True)
    '112.76 mJ'
    """
    if value == 0:
        return "-"
    for size, unit in _JOULES if energy else _LARGE:
        # What would round up to 1000.00 of a unit goes to the next.
        if value >= size * 0.999995:
            return f"{value / size:.2f} {unit}"
    return f"{value:.2f} pJ" if energy else f"{value:.0f}"


def report_text(report: Report) -> str:
    """Return a report as text: one line per layer, the total, its energy by component, and what is left out."""
    accelerator, total = report.accelerator, report.energy.total
    rows = [["layer", "kind", "MACs", "weights", "DRAM words", "SRAM words", "energy", "share"]]
    rows.extend(
        [
            _short(figures.layer.name),
            figures.layer.kind,
            quantity(figures.layer.macs),
            quantity(figures.layer.weights),
            quantity(figures.traffic.dram_words),
            quantity(figures.traffic.sram_words),
            quantity(figures.energy.total, energy=True),
            _share(figures.energy.total, total),
        ]
        for figures in report.layers
    )
    rows.append(
        [
            "total",
            "",
            quantity(report.macs),
            quantity(report.weights),
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
    array = f"{accelerator.rows} x {accelerator.columns} array, {accelerator.word_bits}-bit words"
    lines = [
        f"{report.model} on {accelerator.name} ({array}), one inference",
        "",
        *_align(rows, texts=2),
        "",
        "energy by component",
        *_align(components, texts=1),
        *_uncosted(report),
    ]
    return "\n".join(lines)


def comparison_text(comparison: Comparison) -> str:
    """Return a comparison as text: each total of both models, and its ratio."""
    base, cut = comparison.base, comparison.cut
    rows = [["", "base", "cut", "cut / base"]]
    for figure, ratio in comparison.ratios.items():
        energy = figure.startswith("energy")
        before, after = (quantity(report.totals[figure], energy=energy) for report in (base, cut))
        rows.append([figure, before, after, "-" if ratio is None else f"{ratio:.3f}"])
    lines = [
        f"base: {base.model}",
        f"cut:  {cut.model}",
        "",
        *_align(rows, texts=1),
        *_uncosted(base),
        *_uncosted(cut),
    ]
    return "\n".join(lines)


def _short(name: str) -> str:
    # Converters join the names of all that they fused; the last one is the layer's own.
    name = name.rsplit(";", 1)[-1]
    return name if len(name) <= _NAME_WIDTH else f"...{name[3 - _NAME_WIDTH :]}"


def _share(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f} %" if part else "-"


def _uncosted(report: Report) -> list[str]:
    if not report.uncosted:
        return []
    listed = [f"  {work.operator} ({_short(work.name)})" for work in report.uncosted]
    return ["", f"not costed in {report.model}, so that its totals are lower bounds:", *listed]


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
