"""Folds pruned units into the layer that read them, with the same bits on every machine.

With kept units S and pruned units P, `a_P ~ v + B a_S` (`Fold`) turns the next layer's `W_S a_S + W_P a_P + b` into
`(W_S + W_P B) a_S + (b + W_P v)`: closed form, no training (`docs/decisions/0003-exact-folding.md`).

A sum of products depends, in its last bits, on the order in which a BLAS adds; a device would then rebuild another
file than the cloud digested. So the products are made exact: B and v are 16-bit integers times a power of two, W_P is
rounded to integers so narrow that every partial sum stays below 2**53, and float64 adds such integers without error in
any order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edge_runtime.errors import PlanError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edge_runtime.flatmodel.plan import Fold

__all__ = ["exact_product", "fold_bias", "fold_weights"]

_FLOAT64_BITS = 53
_COEFFICIENT_BITS = 15


def exact_product(weights: NDArray[np.float32], integers: NDArray[np.int16], exponent: int) -> NDArray[np.float64]:
    """Return `weights @ integers * 2**exponent`, the same bits whatever order it is summed in.

    `weights` `(rows, n) float32` are first rounded to a fixed point of `53 - 15 - log2(n)` bits under their largest
    magnitude (28 bits for 512 summands, finer than float32 itself); `integers` is `(n, columns)` or `(n,)`.

    Raises
    ------
    PlanError
        The weights are not finite.
    """
    summands = weights.shape[-1]
    largest = float(np.max(np.abs(weights), initial=0.0))
    if not np.isfinite(largest):
        raise PlanError("weights that should take up a fold are not finite (NaN or infinity)")
    if largest == 0.0:
        return np.zeros((*weights.shape[:-1], *integers.shape[1:]))
    bits = _FLOAT64_BITS - _COEFFICIENT_BITS - int(np.ceil(np.log2(max(summands, 2)))) - 1
    shift = bits - int(np.ceil(np.log2(largest)))
    fixed = np.rint(np.ldexp(weights.astype(np.float64), shift))
    product: NDArray[np.float64] = np.ldexp(fixed @ integers.astype(np.float64), exponent - shift)
    return product


def fold_weights(kept: NDArray[np.float32], pruned: NDArray[np.float32], fold: Fold) -> NDArray[np.float32]:
    """Return `W_S + W_P B` in float32.

    `kept` `(rows, S)` and `pruned` `(rows, P)`, a row for each output channel and kernel position.
    """
    if not fold.is_linear:
        return kept
    correction = exact_product(pruned, fold.coefficients, fold.coefficient_exponent)
    return (kept.astype(np.float64) + correction).astype(np.float32)


def fold_bias(bias: NDArray[np.float32], pruned: NDArray[np.float32], fold: Fold) -> NDArray[np.float32]:
    """Return `b + sum over positions of W_P v` in float32; `bias` `(outputs,)`, `pruned` `(outputs, positions, P)`."""
    outputs, positions, units = pruned.shape
    repeated = np.tile(fold.offsets, positions)
    correction = exact_product(pruned.reshape(outputs, positions * units), repeated, fold.offset_exponent)
    return (bias.astype(np.float64) + correction).astype(np.float32)
