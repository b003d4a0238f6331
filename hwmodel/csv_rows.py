"""Reports as CSV: a row for each layer, or for each step of a sweep."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from hwmodel.report import Report
    from hwmodel.sweep import Sweep

__all__ = ["layers_csv", "sweep_csv"]


def layers_csv(reports: Iterable[Report]) -> str:
    """Return a row for each layer of each report; nested figures have names such as "dram.weights"."""
    rows = [
        {"model": report.model, **_flat(report.layer_dict(figures))} for report in reports for figures in report.layers
    ]
    return _csv(rows)


def sweep_csv(plan: Sweep, reports: Sequence[Sequence[Report]]) -> str:
    """Return a row for each value and model with the totals."""
    rows = [
        {
            **dict.fromkeys(plan.fields, value),
            "model": report.model,
            **_flat(report.to_dict()["total"]),
        }
        for value, models in zip(plan.values, reports, strict=True)
        for report in models
    ]
    return _csv(rows)


def _flat(fields: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in fields.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


def _csv(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return ""
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().rstrip("\n")
