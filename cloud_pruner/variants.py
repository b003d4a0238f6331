"""The pruning variants: for each layer, which units to try to do without, most first.

A variant is two things: an order of a layer's units for a user's classes, and a schedule that says how far along that
order to try. The search (`search.py`) is the same for all.

- W, weighted (CAP'NN, Algorithm 2): a unit goes when its firing rate, weighted by usage, is at most T; T falls from
  0.4 in steps of 0.025 to 0. Nothing is folded.
- L, linear folding (ours): the units with the smallest replacement error go, a share q of them; q falls from 0.95 in
  steps of 0.05. What they did is predicted from the units that stay and folded into the next layer (`regression.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from cloud_pruner.profile import LayerProfile

__all__ = ["VARIANTS", "Candidate", "LinearFolding", "Usage", "Variant", "Weighted"]


@dataclass(frozen=True, slots=True, eq=False)
class Usage:
    """A user's classes: `labels` `(k,) int64`, ascending, and `weights` `(k,) float64` that sum to 1."""

    labels: NDArray[np.int64]
    weights: NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A cut of one layer to try.

    `figure` is its T or q, `kept` the units that stay (`(kept,) int64`, ascending, never empty).
    """

    figure: float
    kept: NDArray[np.int64]


class Variant(Protocol):
    """What the search needs to know of a variant."""

    name: ClassVar[str]

    @property
    def ridge(self) -> float | None:
        """Regularisation with which pruned units are predicted from kept ones; None where nothing is folded."""

    def candidates(self, layer: LayerProfile, usage: Usage) -> Iterator[Candidate]:
        """Yield the cuts of `layer` to try, the most daring first.

        Each differs from the one before, and all prune something.
        """


@dataclass(frozen=True, slots=True)
class Weighted:
    """W: threshold on the usage-weighted firing rate.

    Attributes
    ----------
    start, step
        First threshold and decrement (CAP'NN, section V: 0.4 and 0.025).
    """

    name: ClassVar[str] = "W"
    start: float = 0.4
    step: float = 0.025
    ridge: ClassVar[None] = None

    def candidates(self, layer: LayerProfile, usage: Usage) -> Iterator[Candidate]:
        """Yield a cut for each threshold."""
        rates = effective_firing_rates(layer, usage)
        # Thresholds are counted in whole steps: repeated subtraction would miss 0 by a rounding error.
        steps = round(self.start / self.step)
        thresholds = [self.step * number for number in range(steps, -1, -1)]
        masks = ((threshold, rates > threshold) for threshold in thresholds)
        return _distinct(masks, layer.units)


@dataclass(frozen=True, slots=True)
class LinearFolding:
    """L: share of the units, by replacement error; what goes is folded into what reads it.

    Attributes
    ----------
    start, step
        First share and decrement.
    ridge
        Regularisation of the prediction: relative to the mean variance of the kept units.
    """

    name: ClassVar[str] = "L"
    start: float = 0.95
    step: float = 0.05
    ridge: float = 0.02

    def candidates(self, layer: LayerProfile, usage: Usage) -> Iterator[Candidate]:
        """Yield a cut for each share."""
        order = np.argsort(replacement_errors(layer, usage), kind="stable")
        shares = [self.step * number for number in range(round(self.start / self.step), 0, -1)]

        def masks() -> Iterator[tuple[float, NDArray[np.bool_]]]:
            for share in shares:
                kept = np.ones(layer.units, dtype=bool)
                kept[order[: int(share * layer.units + 1e-9)]] = False
                yield share, kept

        return _distinct(masks(), layer.units)


def effective_firing_rates(layer: LayerProfile, usage: Usage) -> NDArray[np.float64]:
    """Return `sum_k w_k F(n, k)`, `(units,)` (CAP'NN, section III.B)."""
    rates: NDArray[np.float64] = layer.firing_rates[:, usage.labels].astype(np.float64) @ usage.weights
    return rates


def replacement_errors(layer: LayerProfile, usage: Usage) -> NDArray[np.float64]:
    """Return `Var_w(a_n) * ||W_out,n||^2`, `(units,)`: what the next layer loses with a unit at its mean (our own).

    The variance is that of the mixture of the user's classes: `sum_k w_k E_k[a^2] - (sum_k w_k E_k[a])^2`.
    """
    squares = layer.second_moments[:, usage.labels].astype(np.float64) @ usage.weights
    means = layer.means[:, usage.labels].astype(np.float64) @ usage.weights
    errors: NDArray[np.float64] = np.maximum(squares - means**2, 0.0) * layer.weight_norms
    return errors


def _distinct(masks: Iterator[tuple[float, NDArray[np.bool_]]], units: int) -> Iterator[Candidate]:
    """Drop cuts that keep what the one before kept, or nothing (a layer cannot be empty), or everything."""
    before = 0
    for figure, mask in masks:
        count = int(mask.sum())
        # Along a schedule the kept sets only grow, so equal numbers mean equal sets.
        if count in (0, before, units):
            continue
        before = count
        yield Candidate(figure, np.flatnonzero(mask))


VARIANTS: Final[dict[str, Variant]] = {variant.name: variant for variant in (Weighted(), LinearFolding())}
