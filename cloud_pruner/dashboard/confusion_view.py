"""What a page shows of a confusion: accuracies, and tables or the most frequent mistakes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from cloud_pruner.dashboard.confusion import Confusion

__all__ = ["Cell", "ClassAccuracy", "ConfusionView", "Mistake", "view_of"]

_SOURCES: Final = {
    "report": "that neither search nor certification has seen",
    "certify": "that the cut was certified with",
    "select": "that the cut was searched with",
}
# More are listed by their mistakes: nobody reads a table of hundreds of fields.
_TABLE_CLASSES_MAX: Final = 12
_MISTAKES_MAX: Final = 20
_OTHERS: Final = "a class that is not the user's"
# A share of a class's images from which on a mistake has heat 1, 2, ...
_HEATS: Final = (0.001, 0.03, 0.08, 0.2)


@dataclass(frozen=True, slots=True)
class ClassAccuracy:
    """Of one class: weight, images, and the share of them that base and cut get right."""

    name: str
    weight: float
    images: int
    base: float
    cut: float


@dataclass(frozen=True, slots=True)
class Cell:
    """One field of a table: images, and how much of a mistake they are, 0 (none, or right) to 4."""

    images: int
    heat: int


@dataclass(frozen=True, slots=True)
class Mistake:
    """Images of the class `name` that base and cut take for `other`."""

    name: str
    other: str
    base: int
    cut: int


@dataclass(frozen=True, slots=True)
class ConfusionView:
    """What the page shows.

    Attributes
    ----------
    names
        The user's classes.
    images, source
        How many were counted, and which.
    tables
        "base" and "cut" -> rows of cells; None where there are too many classes.
    mistakes
        The most frequent ones, of both together.
    """

    names: tuple[str, ...]
    images: int
    source: str
    classes: tuple[ClassAccuracy, ...]
    tables: dict[str, list[list[Cell]]] | None
    mistakes: tuple[Mistake, ...]


def view_of(confusion: Confusion, classes: Sequence[str], weights: Mapping[str, float]) -> ConfusionView:
    """Bring counts to the form of the page; `classes` are the names of all outputs."""
    names = tuple(classes[label] for label in confusion.labels)
    images = confusion.images()
    own = np.arange(len(names))
    shares = [counts[own, own] / np.maximum(images, 1) for counts in (confusion.base, confusion.cut)]
    return ConfusionView(
        names=names,
        images=int(images.sum()),
        source=_SOURCES[confusion.split],
        classes=tuple(
            ClassAccuracy(name, weights[name], *figures)
            for name, *figures in zip(names, images.tolist(), *(share.tolist() for share in shares), strict=True)
        ),
        tables={"base": _cells(confusion.base), "cut": _cells(confusion.cut)}
        if len(names) <= _TABLE_CLASSES_MAX
        else None,
        mistakes=_mistakes(confusion, names),
    )


def _cells(counts: NDArray[np.int64]) -> list[list[Cell]]:
    totals = np.maximum(counts.sum(axis=1, keepdims=True), 1)
    heats = np.searchsorted(_HEATS, counts / totals, side="right")
    np.fill_diagonal(heats, 0)
    return [
        [Cell(*cell) for cell in zip(row, row_heats, strict=True)]
        for row, row_heats in zip(counts.tolist(), heats.tolist(), strict=True)
    ]


def _mistakes(confusion: Confusion, names: Sequence[str]) -> tuple[Mistake, ...]:
    both = confusion.base + confusion.cut
    np.fill_diagonal(both, 0)
    others = (*names, _OTHERS)
    order = np.argsort(-both, axis=None, kind="stable")[:_MISTAKES_MAX]
    rows, columns = np.unravel_index(order, both.shape)
    return tuple(
        Mistake(names[row], others[column], int(confusion.base[row, column]), int(confusion.cut[row, column]))
        for row, column in zip(rows.tolist(), columns.tolist(), strict=True)
        if both[row, column]
    )
