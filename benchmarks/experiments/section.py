"""What an experiment gives to the report: tables, plots and text, and where they differ from the paper."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from benchmarks.experiments.cells import Cell, Paper

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Entry", "Plot", "Section", "Table"]

Entry: TypeAlias = "str | Cell | Paper"


@dataclass(frozen=True, slots=True)
class Table:
    """A table: the first entry of a line says what the line is of.

    Raises ValueError where a line has not an entry for each column.
    """

    caption: str
    columns: tuple[str, ...]
    lines: tuple[tuple[Entry, ...], ...]

    def __post_init__(self) -> None:
        for line in self.lines:
            if len(line) != len(self.columns):
                raise ValueError(
                    f"table '{self.caption}': a line of {len(line)} for {len(self.columns)} columns: {line}"
                )


@dataclass(frozen=True, slots=True)
class Plot:
    """A figure: `name` is its file without ".png", `alt` says in words what it shows."""

    name: str
    png: bytes
    caption: str
    alt: str


@dataclass(frozen=True, slots=True)
class Section:
    """One experiment in the report.

    Attributes
    ----------
    name, title
        The experiment's.
    source
        Which figure or table of which paper this is.
    intro
        What was done, in full sentences.
    parts
        Tables, plots and paragraphs, in the order in which they are shown.
    differences
        Where ours differ from the paper's and why, a sentence each.
    """

    name: str
    title: str
    source: str
    intro: str
    parts: tuple[Table | Plot | str, ...]
    differences: tuple[str, ...] = ()

    def cells(self) -> Iterator[Cell]:
        """Yield all numbers of ours."""
        for part in self.parts:
            if isinstance(part, Table):
                yield from (entry for line in part.lines for entry in line if isinstance(entry, Cell))

    def plots(self) -> list[Plot]:
        """Return all plots."""
        return [part for part in self.parts if isinstance(part, Plot)]
