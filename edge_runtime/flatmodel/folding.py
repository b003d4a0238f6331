"""Folds pruned units into the layer that read them, with the same bits on every machine.

With kept units S and pruned units P, `a_P ~ v + B a_S` (`Fold`) turns the next layer's `W_S a_S + W_P a_P + b` into
`(W_S + W_P B) a_S + (b + W_P v)`: closed form, no training (`docs/decisions/0003-exact-folding.md`).

A sum of products depends, in its last bits, on the order in which a BLAS adds; a device would then rebuild another
file than the cloud digested. So the products are made exact: B and v are 16-bit integers times a power of two, W_P is
rounded to integers so narrow that every partial sum stays below 2**53, and float64 adds such integers without error in
any order. Integer weights are such integers already.

Quantised weights that outgrow their range after a fold get a wider scale, and their bias with them
(`docs/decisions/0009-folding-quantised-layers.md`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_runtime.errors import PlanError
from edge_runtime.flatmodel.quantization import Affine

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from edge_runtime.flatmodel.plan import Fold

__all__ = ["Layer", "PlacedFold", "exact_product", "fold_layer"]

_FLOAT64_BITS = 53
_COEFFICIENT_BITS = 15
# Elements that are widened to float64 at a time.
_BLOCK = 1 << 22


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """A layer that multiplies channels, or what has become of one.

    Attributes
    ----------
    weights
        `(outputs, ..., inputs)`: float32, float16, or quantised to int8 or uint8.
    bias
        `(outputs,)`: of a float type, or integers in units of the input's scale times the weights' scale.
    weights_affine, bias_affine
        How these are quantised; None where they are floats.
    input_scale
        Scale of the activation that the layer reads, where that is quantised.
    """

    weights: NDArray[Any]
    bias: NDArray[Any]
    weights_affine: Affine | None = None
    bias_affine: Affine | None = None
    input_scale: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class PlacedFold:
    """A fold, and where its units lie along a layer's inputs.

    Attributes
    ----------
    kept, pruned
        `(positions, kept)` and `(positions, pruned)` int64: indices of the inputs; a unit shows at each position of a
        flattened map.
    """

    fold: Fold
    kept: NDArray[np.int64]
    pruned: NDArray[np.int64]


def exact_product(weights: NDArray[Any], integers: NDArray[np.int16], exponent: int) -> NDArray[np.float64]:
    """Return `weights @ integers * 2**exponent`, the same bits whatever order it is summed in.

    `weights` `(rows, n)` are first rounded to a fixed point of `53 - 15 - log2(n)` bits under their largest magnitude
    (28 bits for 512 summands, finer than float32 itself; integers of up to 16 bits are not rounded at all); `integers`
    is `(n, columns)` or `(n,)`.

    Raises
    ------
    PlanError
        The weights are not finite.
    """
    rows, summands = weights.shape
    product = np.zeros((rows, *integers.shape[1:]))
    largest = float(np.max(np.abs(weights), initial=0.0).astype(np.float64))
    if not np.isfinite(largest):
        raise PlanError("weights that should take up a fold are not finite (NaN or infinity)")
    if largest == 0.0:
        return product
    bits = _FLOAT64_BITS - _COEFFICIENT_BITS - int(np.ceil(np.log2(max(summands, 2)))) - 1
    shift = bits - int(np.ceil(np.log2(largest)))
    factors = integers.astype(np.float64)
    step = max(_BLOCK // max(summands, 1), 1)
    for start in range(0, rows, step):
        fixed = np.rint(np.ldexp(weights[start : start + step].astype(np.float64), shift))
        product[start : start + step] = np.ldexp(fixed @ factors, exponent - shift)
    return product


@np.errstate(over="ignore", invalid="ignore", divide="ignore")
def fold_layer(layer: Layer, folds: Sequence[PlacedFold], columns: NDArray[np.int64]) -> Layer:
    """Return the layer with inputs `columns` (ascending) left, and `folds` taken up.

    Raises
    ------
    PlanError
        Weights or scales that are not finite, or that the folds take out of the range of their type.
    """
    _check_scales(layer)
    outputs, inputs = layer.weights.shape[0], layer.weights.shape[-1]
    affine = layer.weights_affine
    rows = layer.weights.reshape(outputs, -1, inputs)
    if affine is not None:
        # uint8 and int8 less their zero point.
        rows = rows.astype(np.int16) - affine.zero_points.astype(np.int16).reshape(-1, 1, 1)
    shift = np.zeros(outputs)
    for placed in folds:
        pruned = rows[:, :, placed.pruned].reshape(outputs, -1)
        repeated = np.tile(placed.fold.offsets, pruned.shape[1] // max(len(placed.fold.offsets), 1))
        shift += exact_product(pruned, repeated, placed.fold.offset_exponent)
    linear = [placed for placed in folds if placed.fold.is_linear]
    shape = (*layer.weights.shape[:-1], len(columns))
    if not linear:
        weights = np.ascontiguousarray(layer.weights[..., columns])
        return _with_bias(layer, weights, affine, shift, np.ones(1))
    folded = rows[:, :, columns].astype(np.float64)
    for placed in linear:
        pruned = rows[:, :, placed.pruned]
        correction = exact_product(
            pruned.reshape(-1, pruned.shape[-1]), placed.fold.coefficients, placed.fold.coefficient_exponent
        )
        folded[:, :, np.searchsorted(columns, placed.kept)] += correction.reshape(*pruned.shape[:-1], -1)
    if affine is None:
        weights = _finite(folded.astype(layer.weights.dtype)).reshape(shape)
        return _with_bias(layer, weights, None, shift, np.ones(1))
    whole, affine, growth = _quantize(folded, affine, layer.weights.dtype)
    return _with_bias(layer, whole.reshape(shape), affine, shift, growth)


def _check_scales(layer: Layer) -> None:
    """Raise PlanError unless all scales are positive, and the weights' zero points are values that weights can have."""
    scales = [affine.scales for affine in (layer.weights_affine, layer.bias_affine) if affine is not None]
    scales += [] if layer.input_scale is None else [np.array([layer.input_scale], np.float32)]
    if not all((np.isfinite(values) & (values > 0)).all() for values in scales):
        raise PlanError("a layer that should take up a fold has scales that are not positive numbers")
    if layer.weights_affine is not None:
        limits, zero_points = np.iinfo(layer.weights.dtype), layer.weights_affine.zero_points
        if (zero_points < limits.min).any() or (zero_points > limits.max).any():
            raise PlanError("a layer that should take up a fold has zero points that its weights cannot have")


def _finite(values: NDArray[Any]) -> NDArray[Any]:
    if not np.isfinite(values).all():
        raise PlanError("a fold takes weights or bias out of the range of their type")
    return values


def _quantize(
    values: NDArray[np.float64], affine: Affine, dtype: np.dtype[Any]
) -> tuple[NDArray[Any], Affine, NDArray[np.float64]]:
    """Round `values` `(outputs, positions, inputs)`, in units of their scale, to `dtype`.

    Returns the integers, how they are quantised now, and by what each scale grew, `(scales,)`.
    """
    parts = _finite(values).reshape(len(affine.scales), -1)
    low, high = np.minimum(parts.min(axis=1), 0.0), np.maximum(parts.max(axis=1), 0.0)
    if dtype == np.int8:
        # The kernels take weights from -127 to 127 around 0.
        least, most, zero_points = -127, 127, affine.zero_points
        growth = np.maximum(1.0, np.maximum(-low, high) / 127.0)
    else:
        least, most = 0, 255
        inside = (low >= -affine.zero_points) & (high <= 255 - affine.zero_points)
        growth = np.where(inside, 1.0, (high - low) / 255.0)
        zero_points = np.where(inside, affine.zero_points, np.rint(-low / growth)).astype(np.int64)
    whole = np.rint(parts / growth[:, None]) + zero_points[:, None]
    scales = np.where(growth == 1.0, affine.scales, (affine.scales.astype(np.float64) * growth).astype(np.float32))
    _finite(scales)
    integers: NDArray[Any] = np.clip(whole, least, most).astype(dtype).reshape(values.shape)
    return integers, Affine(scales.astype(np.float32), zero_points), growth


def _with_bias(
    layer: Layer,
    weights: NDArray[Any],
    affine: Affine | None,
    shift: NDArray[np.float64],
    growth: NDArray[np.float64],
) -> Layer:
    """Add `shift` `(outputs,)`, in units of the layer's weights, to its bias; the weights' scales grew by `growth`."""
    before = layer.weights_affine
    if layer.bias.dtype.kind == "f":
        if before is not None:
            shift = shift * before.scales.astype(np.float64)
        bias = _finite((layer.bias.astype(np.float64) + shift).astype(layer.bias.dtype))
        return Layer(weights, bias, affine, None, layer.input_scale)
    if layer.input_scale is None or layer.bias_affine is None or affine is None:
        raise PlanError("an integer bias without the scales of input and weights takes up no fold")
    whole = _finite(np.rint((layer.bias.astype(np.float64) + shift / layer.input_scale) / growth))
    limits = np.iinfo(layer.bias.dtype)
    if whole.min() < limits.min or whole.max() > limits.max:
        raise PlanError(f"a fold's offsets leave the range of the {layer.bias.dtype} bias that should take them up")
    scales = layer.bias_affine.scales
    if (growth != 1.0).any():
        if len(scales) != len(affine.scales):
            raise PlanError(f"{len(affine.scales)} scales of the weights and {len(scales)} of the bias: no fold fits")
        product = (layer.input_scale * affine.scales.astype(np.float64)).astype(np.float32)
        scales = _finite(np.where(growth == 1.0, scales, product).astype(np.float32))
    bias_affine = Affine(scales, layer.bias_affine.zero_points)
    return Layer(weights, whole.astype(layer.bias.dtype), affine, bias_affine, layer.input_scale)
