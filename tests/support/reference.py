"""Obviously right counterparts of slicing and folding: the whole network, with zeros where units were pruned.

Nothing is sliced here. Where layers exchange floats, a multiplication by zeros and ones stands in front of each layer
that reads pruned units (behind their activation, so that neither their bias nor batch normalisation comes through).
Where they exchange integers, the reading layer's weights are their zero point at pruned units. Folds are applied to
the whole network's weights and biases, plainly, in float64.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

if TYPE_CHECKING:
    from edge_runtime.flatmodel import BaseModel


def masked_network(base: BaseModel, cuts) -> bytes:
    """Return the base with the pruned units masked: what reads them multiplies by zero, and takes up the folds."""
    network = _Network(base)
    keeps = kept_units(base, cuts)
    consumers, folds = {}, {}
    for cut in cuts:
        group = base.channels.groups[base.channels.group_of(cut.tensor)]
        consumers |= {consumer.weight: consumer for consumer in group.consumers}
        for fold in cut.folds:
            folds.setdefault(fold.weight, []).append((group, cut, fold))
    for weight, consumer in consumers.items():
        if weight in folds:
            _fold(network, consumer, folds[weight], keeps)
        if network.is_quantized(consumer.tensor):
            network.mask_weights(weight, keeps)
        else:
            network.mask_input(consumer.operator, consumer.tensor, keeps)
    for operator in base.graph.operators:
        # With int8 weights, a layer measures the range of what it reads as it runs: pruned units must not widen it.
        if operator.kind == "DEPTHWISE_CONV_2D" and not network.is_quantized(operator.inputs[0]):
            network.mask_input(operator.index, operator.inputs[0], keeps)
    return network.build()


def kept_units(base: BaseModel, cuts):
    """Return for each unit of the graph whether `cuts` keep it; the last one, index -1, is for indices that stay."""
    keeps = np.ones(base.channels.units + 1, bool)
    for cut in cuts:
        first = base.channels.groups[base.channels.group_of(cut.tensor)].first
        keeps[first : first + cut.units] = np.isin(np.arange(cut.units), cut.kept)
    return keeps


def _fold(network, consumer, folds, keeps):
    """Apply the folds of one layer: its weights become `W_S + W_R B`, its bias `b + W_R v`.

    The rows R of B and v are the pruned units, or all that the layer reads: then a kept unit's row is added to itself.
    """
    axes = network.base.channels.axes[consumer.weight]
    stored = network.values(consumer.weight)
    labels = axes[stored.ndim - 1]
    scales, zero_points = network.quantization(consumer.weight)
    whole = stored.astype(np.float64) - _by_row(zero_points, stored)
    folded, shift = whole.copy(), np.zeros(len(stored))
    for group, cut, fold in folds:
        places = [np.flatnonzero(labels == group.first + unit) for unit in range(group.units)]
        read = [unit for unit in range(group.units) if len(places[unit])]
        kept = [places[unit] for unit in read if unit in cut.kept]
        pruned = [places[unit] for unit in read if unit not in cut.kept]
        B = fold.coefficients * 2.0**fold.coefficient_exponent
        v = fold.offsets * 2.0**fold.offset_exponent
        rows = pruned if len(v) == len(pruned) else [places[unit] for unit in read]
        # The k-th appearances of all units belong together: those at one pixel of a flattened map.
        for k in range(len(places[read[0]])):
            mended = whole[..., [indices[k] for indices in rows]]
            shift += (mended @ v).reshape(len(shift), -1).sum(axis=1)
            if fold.is_linear:
                folded[..., [indices[k] for indices in kept]] += mended @ B
    growth = np.ones(len(scales))
    if any(fold.is_linear for _, _, fold in folds):
        if network.is_quantized(consumer.weight):
            rows = keeps[axes[0]] if 0 in axes else np.ones(len(stored), bool)
            left = folded[..., keeps[labels]]
            parts = left if len(scales) > 1 else left[rows][np.newaxis]
            growth, zero_points = _ranges(parts, zero_points, stored.dtype)
            folded = np.rint(folded / _by_row(growth, stored)) + _by_row(zero_points, stored)
        network.store(consumer.weight, folded)
        network.requantize(consumer.weight, growth, scales * growth, zero_points)
    bias = network.values(consumer.bias)
    if bias.dtype.kind == "f":
        network.store(consumer.bias, bias + scales * shift)
        return
    (input_scale,), _ = network.quantization(consumer.tensor)
    network.store(consumer.bias, np.rint((bias + shift / input_scale) / growth))
    after, _ = network.quantization(consumer.weight)
    network.requantize(consumer.bias, growth, input_scale * after, np.zeros(len(after)))


def _ranges(parts, zero_points, dtype):
    """Return by what each scale must grow for the weights that share it (one of `parts`) to fit; and zero points."""
    if dtype == np.int8:
        return np.array([max(1.0, np.abs(part).max() / 127) for part in parts]), zero_points
    growth, moved = np.ones(len(parts)), np.array(zero_points)
    for i, part in enumerate(parts):
        low, high = min(part.min(), 0.0), max(part.max(), 0.0)
        if low < 0 - zero_points[i] or high > 255 - zero_points[i]:
            growth[i] = (high - low) / 255
            moved[i] = np.rint(-low / growth[i])
    return growth, moved


def _by_row(numbers, weights):
    """Shape numbers, one for each row of `weights` or one for all, so that they broadcast against the rows."""
    return np.reshape(numbers, (-1, *[1] * (weights.ndim - 1)))


class _Network:
    """The base as objects that can be changed, tensors and operators at the same indices."""

    def __init__(self, base):
        self.base = base
        self.model = schema.ModelT.InitFromPackedBuf(bytes(base.content), 0)
        (self.graph,) = self.model.subgraphs
        self._masks = []

    def dtype(self, tensor):
        return self.base.graph.tensors[tensor].dtype

    def is_quantized(self, tensor):
        return self.dtype(tensor).kind in "iu"

    def values(self, tensor):
        stored = np.asarray(self.model.buffers[self.graph.tensors[tensor].buffer].data, np.uint8)
        return stored.view(self.dtype(tensor)).reshape(self.base.graph.tensors[tensor].shape)

    def store(self, tensor, values):
        dtype = self.dtype(tensor)
        if dtype.kind in "iu":  # rows that are pruned may have left the range
            values = np.clip(values, np.iinfo(dtype).min, np.iinfo(dtype).max)
        buffer = self.model.buffers[self.graph.tensors[tensor].buffer]
        buffer.data = np.ascontiguousarray(values.astype(dtype)).reshape(-1).view(np.uint8)

    def quantization(self, tensor):
        """Scales and zero points, float64, of a tensor; 1 and 0 of one that holds its values as they are."""
        if not self.is_quantized(tensor):
            return np.ones(1), np.zeros(1)
        quantization = self.graph.tensors[tensor].quantization
        return np.asarray(quantization.scale, np.float64), np.asarray(quantization.zeroPoint, np.float64)

    def requantize(self, tensor, growth, scales, zero_points):
        """Write new scales where they grew."""
        if (growth == 1).all():
            return
        quantization = self.graph.tensors[tensor].quantization
        quantization.scale = np.where(growth == 1, quantization.scale, scales.astype(np.float32)).astype(np.float32)
        quantization.zeroPoint = zero_points.astype(np.int64)

    def mask_weights(self, weight, keeps):
        """Let a layer's weights be their zero point, which is the number 0, where they meet a pruned unit."""
        values = self.values(weight).copy()
        labels = self.base.channels.axes[weight][values.ndim - 1]
        _, zero_points = self.quantization(weight)
        values[..., ~keeps[labels]] = _by_row(zero_points, values)
        self.store(weight, values)

    def mask_input(self, operator, tensor, keeps):
        """Multiply what an operator reads by 0 at pruned units and by 1 elsewhere."""
        ((axis, labels),) = self.base.channels.axes.get(tensor, {-1: np.zeros(0, np.int32)}).items()
        if keeps[labels].all():
            return
        shape = self.base.graph.tensors[tensor].shape
        ones = np.moveaxis(np.ones(shape, np.float32), axis, -1) * keeps[labels]
        buffer = schema.BufferT()
        buffer.data = np.ascontiguousarray(np.moveaxis(ones, -1, axis).astype(np.float32)).reshape(-1).view(np.uint8)
        self.model.buffers.append(buffer)
        mask, masked = self._float_tensor(shape, len(self.model.buffers) - 1), self._float_tensor(shape, 0)
        product = schema.OperatorT()
        product.opcodeIndex = self._multiplication()
        product.inputs, product.outputs = np.array([tensor, mask], np.int32), np.array([masked], np.int32)
        product.builtinOptionsType, product.builtinOptions = schema.BuiltinOptions.MulOptions, schema.MulOptionsT()
        reader = self.graph.operators[operator]
        reader.inputs = np.where(np.asarray(reader.inputs) == tensor, masked, reader.inputs).astype(np.int32)
        self._masks.append((operator, product))

    def build(self) -> bytes:
        for operator, product in sorted(self._masks, key=lambda pair: pair[0], reverse=True):
            self.graph.operators.insert(operator, product)
        builder = flatbuffers.Builder(len(self.base.content))  # a small one would be copied each time that it doubles
        builder.Finish(self.model.Pack(builder), file_identifier=b"TFL3")
        return bytes(builder.Output())

    def _float_tensor(self, shape, buffer):
        tensor = schema.TensorT()
        tensor.shape, tensor.type, tensor.buffer = np.array(shape, np.int32), schema.TensorType.FLOAT32, buffer
        tensor.name = f"reference_{len(self.graph.tensors)}"
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def _multiplication(self):
        code = schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.MUL
        code.version = 1
        self.model.operatorCodes.append(code)
        return len(self.model.operatorCodes) - 1
