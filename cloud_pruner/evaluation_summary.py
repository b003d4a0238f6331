"""From single class sets to methods: means and shares with their confidence intervals, as values, JSON and CSV.

Intervals are at 95 %. A mean's is Student's t over class sets. The share of classes that lose more than epsilon has
Clopper and Pearson's exact one (Biometrika 1934), which takes classes for independent; as those of one set share a cut,
it is rather too narrow. Neither covers that other report images would have given other counts.
"""

from __future__ import annotations

import csv
import io
import math
from dataclasses import asdict, dataclass
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any, Final

from scipy.special import betaincinv, stdtrit  # type: ignore[import-untyped]

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloud_pruner.evaluation import SetFigures

__all__ = [
    "CONFIDENCE",
    "FIGURES",
    "Mean",
    "Share",
    "Summary",
    "mean_of",
    "rows_csv",
    "set_fields",
    "share_of",
    "summarise",
]

CONFIDENCE: Final = 0.95
FIGURES: Final = (
    "relative_size",
    "relative_bytes",
    "relative_macs",
    "relative_energy",
    "base_top1",
    "top1",
    "gain",
    "base_top5",
    "top5",
    "top5_gain",
    "worst_loss",
    "base_outside",
    "outside",
    "seconds",
)
"""Attributes of `SetFigures` of which a summary has means."""


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean over class sets, and the limits of its confidence interval: None with a single set."""

    mean: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Share:
    """`count` of `total`, as a share, and the limits of its confidence interval."""

    count: int
    total: int
    share: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Summary:
    """A method at one K.

    Attributes
    ----------
    method, k, sets
        What was run, on how many class sets.
    means
        For each of `FIGURES`; None where the method has no such thing.
    beyond_epsilon
        Classes that lose more than epsilon on the report images, of all classes of all sets.
    """

    method: str
    k: int
    sets: int
    means: dict[str, Mean | None]
    beyond_epsilon: Share

    def to_fields(self) -> dict[str, Any]:
        """Return the summary as plain values, fit for JSON."""
        means = {name: mean and asdict(mean) for name, mean in self.means.items()}
        return {
            "method": self.method,
            "k": self.k,
            "sets": self.sets,
            **means,
            "beyond_epsilon": asdict(self.beyond_epsilon),
        }


def mean_of(values: Sequence[float]) -> Mean:
    """Return the mean of one or more values with Student's t interval."""
    mean = fmean(values)
    if len(values) == 1:
        return Mean(mean, None, None)
    half = float(stdtrit(len(values) - 1, (1 + CONFIDENCE) / 2)) * stdev(values) / math.sqrt(len(values))
    return Mean(mean, mean - half, mean + half)


def share_of(count: int, total: int) -> Share:
    """Return the share of `count` among `total`, 1 or more, with Clopper and Pearson's interval."""
    tail = (1 - CONFIDENCE) / 2
    low = float(betaincinv(count, total - count + 1, tail)) if count else 0.0
    high = float(betaincinv(count + 1, total - count, 1 - tail)) if count < total else 1.0
    return Share(count, total, count / total, low, high)


def summarise(rows: Sequence[SetFigures]) -> list[Summary]:
    """Return a summary for each K and method, in the order in which they first appear."""
    groups: dict[tuple[int, str], list[SetFigures]] = {}
    for row in rows:
        groups.setdefault((row.k, row.method), []).append(row)
    return [_summary(k, method, group) for (k, method), group in groups.items()]


def _summary(k: int, method: str, rows: Sequence[SetFigures]) -> Summary:
    means: dict[str, Mean | None] = {}
    for name in FIGURES:
        values = [getattr(row, name) for row in rows]
        means[name] = None if None in values else mean_of(values)
    beyond = share_of(sum(row.beyond_epsilon for row in rows), k * len(rows))
    return Summary(method, k, len(rows), means, beyond)


def set_fields(row: SetFigures) -> dict[str, Any]:
    """Return a single class set's figures as plain values, fit for JSON."""
    return {
        "method": row.method,
        "k": row.k,
        "set": row.number,
        "classes": list(row.classes),
        "weights": list(row.weights),
        **{name: getattr(row, name) for name in FIGURES},
        "losses": list(row.losses),
        "beyond_epsilon": row.beyond_epsilon,
    }


def rows_csv(rows: Sequence[SetFigures]) -> str:
    """Return a line for each class set and method; lists are separated by semicolons, what there is not is empty."""
    lines = [
        {
            name: ";".join(map(str, value)) if isinstance(value, list) else value
            for name, value in set_fields(row).items()
        }
        for row in rows
    ]
    out = io.StringIO()
    writer = csv.DictWriter(out, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return out.getvalue()
