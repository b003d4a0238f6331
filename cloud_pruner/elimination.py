"""In which order a group's units are best done without, when those that stay make up for them.

Backward elimination in blocks, as optimal brain surgery removes weights (Hassibi & Stork, NIPS 1992; here for units and
linear folds). With C the covariance of what a layer reads, Q its regularised inverse and M = W^T W the layer's weights,
doing without the units P costs the layer's outputs, at best,

    tr(M_PP (Q_PP)^-1),

and a single unit n costs `M_nn / Q_nn`. The units that cost least go, their prediction from the others is folded into
W, Q loses their rows and columns, and so on. Units that say the same as others are thus told from units that say
nothing: one of two equal units goes for nothing, the second one only at its price.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["Elimination", "Observed", "eliminate"]

# Share of a group's units that go at a time.
_BLOCK: Final = 0.05
_TINY: Final = 1e-12
# Rows of a matrix that are worked on at a time.
_STRIP: Final = 256


@dataclass(frozen=True, slots=True, eq=False)
class Observed:
    """What one reader sees of a group. `eliminate` works in the memory of both matrices, and leaves nothing of them.

    Attributes
    ----------
    units
        `(n,) int64`: the group's units that it reads.
    covariance
        `(n, n) float64` of these.
    gram
        `(n, n) float64`: W^T W, summed over outputs and kernel positions.
    unit
        What errors are relative to; None: the variance of the layer's outputs.
    """

    units: NDArray[np.int64]
    covariance: NDArray[np.float64]
    gram: NDArray[np.float64]
    unit: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Elimination:
    """The order in which a group's units go, block by block.

    Attributes
    ----------
    order
        `(m,) int64`: units, the first to go first; those that never go are not in it.
    ends
        `(blocks,) int64`: how many of `order` are gone after each block.
    errors
        `(blocks,) float64`: by then lost, each reader's share relative to its `Observed.unit`, summed over readers.
    """

    order: NDArray[np.int64]
    ends: NDArray[np.int64]
    errors: NDArray[np.float64]


def eliminate(units: int, observed: Sequence[Observed], ridge: float) -> Elimination:
    """Order `units` units by what their readers lose; `ridge` is relative to the mean variance of what is read.

    The matrices of `observed` are used up.
    """
    readers = [_Reader(seen, ridge) for seen in observed]
    left = np.arange(units)
    step = max(int(units * _BLOCK), 1)
    order: list[NDArray[np.int64]] = []
    errors, total = [], 0.0
    while len(left) > 1:
        prices = np.zeros(units)
        for reader in readers:
            prices[reader.units] += reader.prices()
        cheapest = left[np.argsort(prices[left], kind="stable")[: min(step, len(left) - 1)]]
        total += sum(reader.remove(cheapest) for reader in readers)
        order.append(cheapest)
        errors.append(total)
        left = np.setdiff1d(left, cheapest)
    return Elimination(
        order=np.concatenate([np.zeros(0, np.int64), *order]),
        ends=np.cumsum([len(block) for block in order], dtype=np.int64),
        errors=np.array(errors),
    )


class _Reader:
    """What one reader still reads: Q and the folded W^T W of the units that are left.

    Two matrices, of thousands of units: both stay where they came in, and shrink in place.
    """

    def __init__(self, seen: Observed, ridge: float) -> None:
        self.units = seen.units
        variance = float(np.trace(seen.covariance)) / max(len(seen.units), 1)
        unit = float(np.vdot(seen.gram, seen.covariance)) if seen.unit is None else seen.unit
        self._precision, self._gram = seen.covariance, seen.gram
        self._precision[np.diag_indices_from(self._precision)] += ridge * variance + _TINY
        _invert(self._precision)
        self._gram /= max(unit, _TINY)

    def prices(self) -> NDArray[np.float64]:
        """Return what each unit that is left would cost alone."""
        prices: NDArray[np.float64] = np.diag(self._gram) / np.diag(self._precision)
        return prices

    def remove(self, gone: NDArray[np.int64]) -> float:
        """Do without the units `gone`; return what that costs."""
        goes = np.isin(self.units, gone)
        if not goes.any():
            return 0.0
        out, stay = np.flatnonzero(goes), np.flatnonzero(~goes)
        variance = np.linalg.inv(self._precision[np.ix_(out, out)])
        lost = self._gram[np.ix_(out, out)]
        across = self._precision[np.ix_(out, stay)]
        prediction = -variance @ across
        # W_S becomes W_S + W_P B, so its product with itself gains W_S W_P B, its transpose, and B W_P W_P B.
        half = self._gram[np.ix_(stay, out)] + 0.5 * prediction.T @ lost
        self._precision, self._gram = _shrunk(self._precision, stay), _shrunk(self._gram, stay)
        for strip in _strips(len(stay)):
            self._precision[strip] += across[:, strip].T @ prediction
            change = half[strip] @ prediction
            self._gram[strip] += change
            self._gram[:, strip] += change.T
        self.units = self.units[stay]
        return float(np.sum(lost * variance))


def _invert(matrix: NDArray[np.float64]) -> None:
    """Invert a symmetric positive definite matrix in place, by block Gauss-Jordan elimination."""
    for pivot in _strips(len(matrix)):
        inverse = np.linalg.inv(matrix[pivot, pivot])
        row = inverse @ matrix[pivot]
        column = matrix[:, pivot].copy()
        for strip in _strips(len(matrix)):
            if strip != pivot:
                matrix[strip] -= column[strip] @ row
        matrix[:, pivot] = column @ -inverse
        matrix[pivot] = row
        matrix[pivot, pivot] = inverse


def _shrunk(matrix: NDArray[np.float64], stay: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the part `stay` (ascending) of a matrix's rows and columns, as a view: moved to its upper left."""
    for strip in _strips(len(stay)):
        # No row is moved over one that is still to be moved.
        matrix[strip, : len(stay)] = matrix[np.ix_(stay[strip], stay)]
    return matrix[: len(stay), : len(stay)]


def _strips(size: int) -> list[slice]:
    return [slice(start, min(start + _STRIP, size)) for start in range(0, size, _STRIP)]
