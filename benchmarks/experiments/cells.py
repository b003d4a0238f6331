"""Numbers of a report that can be traced: each says which rows of which table it comes from, and how.

Intervals are Student's t at 95 %, over sets of classes where rows name theirs: what was measured of one set, with other
usage or on other networks, is not independent. Otherwise over rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, cast, get_args

from benchmarks.experiments.store import ROW, TABLE
from cloud_pruner.evaluation_summary import mean_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.experiments.store import Row, Store, Value

__all__ = [
    "STATISTICS",
    "Cell",
    "Paper",
    "Statistic",
    "interval_of",
    "mean_cell",
    "mean_over",
    "number_ranges",
    "value_cell",
]

Statistic: TypeAlias = Literal["value", "mean", "low", "high", "share", "max", "min", "sum"]
STATISTICS: Final[tuple[Statistic, ...]] = get_args(Statistic)

NOTHING: Final = "-"
"""Stands where there is no number: the interval of a single row, or a value that a row does not have."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One number of ours.

    Attributes
    ----------
    table, rows, column
        Where its values stand: numbers of rows, ascending.
    statistic
        "value" (of one row), "mean", "low" and "high" (ends of the mean's 95 % interval), "share" (of rows whose value
        is true), "max", "min" or "sum".
    factor
        What it is shown in: 100 for per cent.
    digits
        After the point.
    interval
        Whether the interval of the mean is shown with it.
    """

    table: str
    rows: tuple[int, ...]
    column: str
    statistic: Statistic
    factor: float = 1.0
    digits: int = 2
    interval: bool = False

    def __post_init__(self) -> None:
        if not self.rows or (self.statistic == "value" and len(self.rows) != 1):
            raise ValueError(f"{self.column} of {self.table}: a {self.statistic} of {len(self.rows)} rows says nothing")
        if self.interval and self.statistic != "mean":
            raise ValueError(f"{self.column} of {self.table}: a {self.statistic} has no interval, a mean has")

    def value(self, store: Store, statistic: Statistic | None = None) -> float | None:
        """Return the number, before `factor`; None where there is none.

        `statistic` asks for another one of the same values.
        """
        rows = [store.table(self.table)[number - 1] for number in self.rows]
        asked = statistic or self.statistic
        if asked in ("low", "high"):
            interval = interval_of(rows, self.column)
            return None if interval is None else interval[asked == "high"]
        return _statistic_of([row[self.column] for row in rows], asked)

    def text(self, store: Store, statistic: Statistic | None = None) -> str:
        """Return the number as it is shown."""
        return shown(self.value(store, statistic), self.factor, self.digits)


@dataclass(frozen=True, slots=True)
class Paper:
    """A number as a paper prints it."""

    text: str


def mean_cell(
    rows: Sequence[Row],
    column: str,
    *,
    statistic: Statistic = "mean",
    factor: float = 1.0,
    digits: int = 2,
    interval: bool = False,
) -> Cell:
    """Return a number over `rows`, which the store gave and which are of one table."""
    tables = {cast("str", row[TABLE]) for row in rows}
    if len(tables) != 1:
        raise ValueError(f"{column}: rows of {len(tables)} tables: a number is over rows of one")
    numbers = tuple(sorted({cast("int", row[ROW]) for row in rows}))
    return Cell(tables.pop(), numbers, column, statistic, factor, digits, interval)


def value_cell(row: Row, column: str, *, factor: float = 1.0, digits: int = 2) -> Cell:
    """Return the number that stands in one row."""
    return mean_cell([row], column, statistic="value", factor=factor, digits=digits)


def mean_over(rows: Sequence[Row], column: str) -> float:
    """Return the mean of a column that all of `rows`, one or more, have numbers in."""
    mean = _statistic_of([row[column] for row in rows], "mean")
    assert mean is not None
    return mean


def interval_of(rows: Sequence[Row], column: str) -> tuple[float, float] | None:
    """Return the ends of the 95 % interval of a column's mean; None where some value is None, or all are of one set."""
    of_set: dict[Value, list[float]] = {}
    for number, row in enumerate(rows):
        value = row[column]
        if value is None or isinstance(value, str):
            return None
        of_set.setdefault(row.get("classes", number), []).append(value)
    sets = mean_of([fmean(values) for values in of_set.values()])
    if sets.low is None or sets.high is None:
        return None
    half = (sets.high - sets.low) / 2
    mean = mean_over(rows, column)
    return mean - half, mean + half


def _statistic_of(values: Sequence[Value], statistic: Statistic) -> float | None:
    """Return a statistic of one or more values, which is no end of an interval; None where some value is None."""
    numbers = [float(value) for value in values if value is not None and not isinstance(value, str)]
    if len(numbers) != len(values):
        return None
    if statistic in ("max", "min"):
        return max(numbers) if statistic == "max" else min(numbers)
    if statistic == "sum":
        return sum(numbers)
    if statistic == "share":
        return sum(map(bool, numbers)) / len(numbers)
    return fmean(numbers)


def shown(value: float | None, factor: float, digits: int) -> str:
    """Return a number as it is shown: rounded, and never as minus nothing."""
    if value is None:
        return NOTHING
    text = f"{value * factor:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text


def number_ranges(numbers: Sequence[int]) -> str:
    """Return ascending numbers as text: `1-4,7`."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1][1:] = [number]
        else:
            parts.append([number])
    return ",".join("-".join(map(str, part)) for part in parts)
