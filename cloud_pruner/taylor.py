"""Centred Taylor scores: what doing without a unit costs, by the network's gradients; of any mixture of classes.

`gradients` measures them, offline.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cloud_pruner.variants import Usage

__all__ = ["TaylorMoments"]


@dataclass(frozen=True, slots=True, eq=False)
class TaylorMoments:
    """What the centred Taylor scores of one activation's channels are made of, per class.

    All are `(channels, classes) float32`, NaN for a class without images. For an image, g is the gradient of its loss
    by the activation a, `G = sum_p g_p` over positions p, and `s = sum_p (a_p - mean) g_p` with the mean of its class.

    Attributes
    ----------
    means
        `E[a]`, over images and positions.
    squares
        `E[s^2]`: the score for a user who meets this class alone.
    products, gradients
        `E[s G]` and `E[G^2]`: how the score grows as the mean moves away from the class's own.
    """

    means: NDArray[np.float32]
    squares: NDArray[np.float32]
    products: NDArray[np.float32]
    gradients: NDArray[np.float32]

    def to_array(self) -> NDArray[np.float32]:
        """Return all of it as `(4, channels, classes) float32`."""
        return np.stack([self.means, self.squares, self.products, self.gradients])

    @classmethod
    def from_array(cls, array: NDArray[np.float32]) -> TaylorMoments:
        """Return what `to_array` stacked."""
        return cls(*array)

    def scores(self, usage: Usage) -> NDArray[np.float64]:
        """Return `sum_k w_k E_k[(sum_p (a_p - mu) g_p)^2]`, `(channels,)`, with mu the mean of the user's mixture."""
        means, squares, products, gradients = (
            part[:, usage.labels].astype(np.float64)
            for part in (self.means, self.squares, self.products, self.gradients)
        )
        shift = means - (means @ usage.weights)[:, None]
        # A mean of squares; rounding can leave it below 0.
        each = np.maximum(squares + 2.0 * shift * products + shift**2 * gradients, 0.0)
        scores: NDArray[np.float64] = each @ usage.weights
        return scores
