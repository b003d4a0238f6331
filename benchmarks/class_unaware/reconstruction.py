"""Channel pruning by reconstruction: LASSO says which channels stay, least squares what the weights become.

He, Zhang and Sun, "Channel pruning for accelerating very deep neural networks", ICCV 2017, section 3.1, known to us
from memory. With the windows X_i of input channel i at sampled positions, its weights W_i, and the outputs Y of the
*original* network there (without the bias), `min_b |Y - sum_i b_i X_i W_i|^2 + lambda |b|_1` with a growing lambda
leaves as many b_i that are not 0 as channels shall stay; then `min_W |Y - sum_i X_i W_i|^2` over those gives their new
weights. Of their alternation between the two steps there is one round. All of it is in second moments: X is not kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from sklearn.linear_model import lars_path_gram

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["WindowMoments", "lasso_channels", "refitted"]

_RIDGE = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class WindowMoments:
    """Second moments of the windows that a layer reads, and of what it should make of them.

    Attributes
    ----------
    inputs
        `(taps, channels, taps, channels) float64`: X^T X.
    outputs
        `(taps, channels, outputs) float64`: X^T Y.
    samples
        How many windows.
    """

    inputs: NDArray[np.float64]
    outputs: NDArray[np.float64]
    samples: int

    @classmethod
    def of(cls, windows: NDArray[np.floating], outputs: NDArray[np.floating]) -> WindowMoments:
        """Return those of `windows` `(samples, taps, channels)` and `outputs` `(samples, outputs)`."""
        samples, taps, channels = windows.shape
        flat = windows.reshape(samples, -1).astype(np.float64)
        return cls(
            (flat.T @ flat).reshape(taps, channels, taps, channels),
            (flat.T @ outputs.astype(np.float64)).reshape(taps, channels, -1),
            samples,
        )


def lasso_channels(moments: WindowMoments, kernel: NDArray[np.floating], keep: int) -> NDArray[np.int64]:
    """Return the channels that stay, ascending: `keep` of them, or fewer where fewer do anything.

    `kernel` `(taps, channels, outputs)` are the weights as they are.

    Raises
    ------
    ValueError
        So many cannot stay.
    """
    taps, channels, outputs = kernel.shape
    if not 1 <= keep <= channels:
        raise ValueError(f"{keep} of {channels} channels cannot stay")
    weights = kernel.astype(np.float64)
    flat = weights.reshape(-1, outputs)
    products = (flat @ flat.T).reshape(taps, channels, taps, channels)
    gram = (moments.inputs * products).sum(axis=(0, 2))
    targets = (moments.outputs * weights).sum(axis=(0, 2))
    _, _, path = lars_path_gram(targets, gram, n_samples=moments.samples, method="lasso", max_iter=8 * channels)
    # From the largest lambda, where all are 0, to none: the last point before there are too many.
    counts = np.count_nonzero(path, axis=0)
    stays = path[:, np.flatnonzero(counts <= keep)[-1]] != 0
    if not stays.any():  # nothing that goes in explains what comes out: any channel will do
        stays[0] = True
    return np.flatnonzero(stays)


def refitted(moments: WindowMoments, kept: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the weights `(taps, kept, outputs)` with which the channels that stay give the outputs best."""
    inputs = moments.inputs[:, kept][:, :, :, kept]
    taps, channels = inputs.shape[:2]
    size = taps * channels
    square = inputs.reshape(size, size)
    # Units that never fire leave no moments: the ridge keeps their weights at 0.
    ridge = max(_RIDGE * float(np.trace(square)) / size, float(np.finfo(np.float64).tiny))
    wanted = moments.outputs[:, kept].reshape(size, -1)
    solved: NDArray[np.float64] = np.linalg.solve(square + ridge * np.eye(size), wanted)
    return solved.reshape(taps, channels, -1)
