"""Affine quantisation as arrays: `real = scale * (stored - zero_point)` (TFLite 8-bit quantisation specification)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edge_runtime.errors import ModelFileError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edge_runtime.flatmodel.graph import Quantization, Tensor

__all__ = ["Affine", "affine_of", "real_values"]


@dataclass(frozen=True, slots=True, eq=False)
class Affine:
    """Scales `(1,)` or one for each slice of an axis, float32, and as many zero points, int64."""

    scales: NDArray[np.float32]
    zero_points: NDArray[np.int64]

    def at(self, indices: NDArray[np.int64]) -> Affine:
        """Return what is left for the slices `indices`; one scale for all stays that."""
        return Affine(self.scales[indices], self.zero_points[indices]) if len(self.scales) > 1 else self


def affine_of(quantization: Quantization) -> Affine:
    """Read the scales and zero points from the file."""
    scales: NDArray[np.float32] = quantization.scales.view(np.dtype("<f4")).astype(np.float32)
    zero_points = np.zeros(len(scales), np.int64)
    if quantization.zero_points is not None and quantization.zero_points.length:
        zero_points[:] = quantization.zero_points.view(np.dtype("<i8"))
    return Affine(scales, zero_points)


def real_values(tensor: Tensor) -> NDArray[np.float64]:
    """Return the values that a constant stands for, as float64.

    Raises
    ------
    ModelFileError
        The tensor is no constant, or stored in a form that cannot be read; or its scales do not fit its shape.
    """
    if tensor.data is None:
        raise ModelFileError(f"tensor {tensor.index} is no constant that can be read")
    values: NDArray[np.float64] = tensor.data.astype(np.float64)
    if tensor.quantization is None:
        return values
    if not tensor.quantization.fits(tensor.shape):
        raise ModelFileError(f"tensor {tensor.index} has scales that do not fit its shape")
    affine = affine_of(tensor.quantization)
    sides = [1] * values.ndim
    if len(affine.scales) > 1:
        sides[tensor.quantization.axis] = -1
    return affine.scales.astype(np.float64).reshape(sides) * (values - affine.zero_points.reshape(sides))
