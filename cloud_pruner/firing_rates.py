"""Firing rates at 3 bits each, the memory that a cloud keeps for every unit and class (CAP'NN, section V.C).

The paper "linearly quantizes" them without saying over which range. Here it is all of [0, 1]: level i of 8 stands for
i / 7, so 0 and 1 are exact (a unit that never fires stays one) and any other rate is off by at most 1/14. Finer levels
below the highest threshold, 0.4, with one for all rates above, were tried and make W and M prune less: in a mean over
classes the high rates count most.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["BITS", "pack", "unpack"]

BITS: Final = 3
_TOP: Final = (1 << BITS) - 1


def pack(rates: NDArray[np.floating]) -> tuple[NDArray[np.uint8], tuple[int, ...]]:
    """Return rates in [0, 1] as bytes, `(ceil(3 * size / 8),) uint8`, and their shape.

    In C order, each rate's highest bit first, the last byte filled up with zeros.

    Raises
    ------
    ValueError
        A rate lies outside [0, 1], or is no number.
    """
    rates = np.asarray(rates)
    if not ((rates >= 0) & (rates <= 1)).all():
        raise ValueError("firing rates are shares, between 0 and 1: these are none")
    levels = np.rint(rates.reshape(-1, 1) * _TOP).astype(np.uint8)
    bits = np.unpackbits(levels, axis=1)[:, 8 - BITS :]
    return np.packbits(bits), rates.shape


def unpack(packed: NDArray[np.uint8], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return what `pack` packed, `shape` float32, each rate as the level next to it.

    Raises
    ------
    ValueError
        There are more or fewer bytes than rates of this shape have.
    """
    count = int(np.prod(shape, dtype=np.int64))
    if packed.shape != (-(-count * BITS // 8),):
        raise ValueError(f"packed firing rates: {packed.size} bytes do not hold {count} rates of {BITS} bits")
    bits = np.unpackbits(packed, count=count * BITS).reshape(count, BITS)
    levels = bits @ np.array([4, 2, 1], dtype=np.uint8)
    return (levels.astype(np.float32) / np.float32(_TOP)).reshape(shape)
