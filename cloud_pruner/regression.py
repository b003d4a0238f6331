"""Predicts a layer's pruned units from its kept ones, for one user.

The B and v that folding takes (`edge_runtime.flatmodel.folding`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edge_runtime.flatmodel import Fold

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Moments", "fit_fold", "weighted_moments"]


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """Mean `(units,)` and covariance `(units, units)` of a layer's activations over a user's classes, float64."""

    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]


def weighted_moments(activations: NDArray[np.float32], weights: NDArray[np.float64]) -> Moments:
    """Take moments over images and positions.

    Parameters
    ----------
    activations
        `(images, ..., units) float32`.
    weights
        `(images,)`, summing to 1: an image of class k counts `w_k / n_k`.
    """
    images, units = len(activations), activations.shape[-1]
    rows = activations.reshape(images, -1, units)
    positions = rows.shape[1]
    mean = np.einsum("i,iu->u", weights, rows.mean(axis=1, dtype=np.float64))
    centred = (rows - mean.astype(np.float32)).reshape(-1, units).astype(np.float64)
    centred *= np.sqrt(np.repeat(weights / positions, positions))[:, None]
    return Moments(mean, centred.T @ centred)


def fit_fold(moments: Moments, kept: NDArray[np.int64], pruned: NDArray[np.int64], ridge: float, weight: int) -> Fold:
    """Fit `a_P ~ mu_P + B (a_S - mu_S)` with `B = C_PS (C_SS + ridge * mean(diag C_SS) * I)^-1`.

    `weight` is the tensor of the layer that takes up the fold.
    Where the kept units do not vary at all, B is 0 and only the means are folded.
    """
    covariance, mean = moments.covariance, moments.mean
    within = covariance[np.ix_(kept, kept)]
    scale = float(np.mean(np.diag(within)))
    if scale <= 0.0:
        return Fold.of(weight, np.zeros((len(pruned), 0)), mean[pruned])
    within[np.diag_indices_from(within)] += ridge * scale
    coefficients = np.linalg.solve(within, covariance[np.ix_(kept, pruned)]).T
    return Fold.of(weight, coefficients, mean[pruned] - coefficients @ mean[kept])
