"""ThiNet's choice of channels: greedily those whose sum matters least to the next layer's output.

Luo, Wu and Lin, "ThiNet: a filter level pruning method for deep neural network compression", ICCV 2017, section 3.2,
known to us from memory. A sample is one value of the next layer's output, without its bias: the sum of what each input
channel contributes. The set T of channels that go is built one by one; next is always the channel with which the sum of
squares of T's contributions, over the samples, is smallest (their algorithm 1). Then each channel that stays is scaled
so that the rest gives the samples' values best, by least squares (their equation 7).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["greedy_channels", "rescaling"]


def greedy_channels(contributions: NDArray[np.floating], keep: int) -> NDArray[np.int64]:
    """Return the `keep` channels that stay, ascending.

    Parameters
    ----------
    contributions
        `(samples, channels)`: what each channel adds to each sampled value.
    keep
        How many stay, 1 to all.

    Raises
    ------
    ValueError
        So many cannot stay.
    """
    channels = contributions.shape[1]
    if not 1 <= keep <= channels:
        raise ValueError(f"{keep} of {channels} channels cannot stay")
    columns = contributions.astype(np.float64)
    gram = columns.T @ columns
    # |s + x_i|^2 - |s|^2 for the sum s of what went so far.
    growth = np.diag(gram).copy()
    stays = np.ones(channels, dtype=bool)
    for _ in range(channels - keep):
        goes = int(np.argmin(np.where(stays, growth, np.inf)))
        stays[goes] = False
        growth += 2.0 * gram[goes]
    return np.flatnonzero(stays)


def rescaling(contributions: NDArray[np.floating], kept: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the factor of each channel in `kept`, `(kept,)`, with which they give the samples' values best."""
    columns = contributions.astype(np.float64)
    factors: NDArray[np.float64] = np.linalg.lstsq(columns[:, kept], columns.sum(axis=1), rcond=None)[0]
    return factors
