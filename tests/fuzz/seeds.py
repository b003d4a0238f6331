"""The good files and plans that mutations start from: small ones, of every kind that reader and slicer know."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from functools import lru_cache

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edge_runtime.flatmodel import BaseModel, PruningPlan, normalize
from tests.support.random_cuts import random_cuts
from tests.support.tflite_builder import NONE, SAME, SequentialBuilder

OPERATOR, OPTIONS = schema.BuiltinOperator, schema.BuiltinOptions


@dataclass(frozen=True)
class Seed:
    """A network as a converter leaves it, normalised, and encoded plans of cuts of it."""

    name: str
    plain: bytes
    normalised: bytes
    plans: tuple[bytes, ...]

    @property
    def files(self) -> tuple[bytes, bytes]:
        return self.plain, self.normalised


@lru_cache(maxsize=1)
def seeds() -> tuple[Seed, ...]:
    """Return all seeds, the same ones in every process."""
    return tuple(_seed(network.__name__, network(_builder())) for network in _NETWORKS)


def _seed(name, plain) -> Seed:
    normalised = normalize(plain)
    base, rng = BaseModel(normalised), np.random.default_rng(0)
    plans = [PruningPlan(base.digest, tuple(random_cuts(base, rng))).to_bytes() for _ in range(6)]
    return Seed(name, plain, normalised, tuple(plans))


def _builder():
    return SequentialBuilder((6, 6, 2), np.random.default_rng(7))


def sequential(builder):
    return builder.conv(6).pool().conv(5).flatten().dense(7).dense(3, activation=0).softmax().build()


def shared_constants(builder):
    builder.share_equal_constants = True
    builder.conv(4, bias="zero").scale("MUL").conv(4, bias="zero").relu().scale("ADD").mean()
    return builder.dense(4, bias="zero").dense(3, activation=0, bias=False).build()


def dynamic_range(builder):
    """Weights in int8 with a scale for each output channel, activations in float32."""
    builder.conv(6).quantize_last_weights().conv(4, 1).quantize_last_weights()
    return builder.mean().dense(5).quantize_last_weights().dense(3, activation=0).build()


def full_integer(builder):
    return quantized(builder.conv(6).pool().conv(4).flatten().dense(5).dense(3, activation=0))


def half_precision(builder):
    """Weights in float16, each behind a DEQUANTIZE."""
    builder.conv(6).conv(4, 1).mean().dense(3, activation=0)
    for operator in list(builder.graph.operators):
        if len(operator.inputs) == 3:
            _store_as_float16(builder, operator)
    return builder.build()


def branches(builder):
    """Residual additions, concatenation, parts, a depthwise convolution, padding and a gate."""
    builder.conv(6)
    stem = builder.output
    _depthwise(builder.conv(6))
    _operator(builder, OPERATOR.ADD, [builder.output, stem], _shape(builder, stem))
    joined = builder.output
    builder.conv(4, 1)
    _concatenation(builder, [builder.output, joined])
    first, second = _split(builder, 2)
    _operator(builder, OPERATOR.MUL, [first, second], _shape(builder, first))
    amounts = builder._constant(np.array([[0, 0], [1, 1], [0, 0], [1, 2]], np.int32))
    _operator(builder, OPERATOR.PAD, [builder.output, amounts], (1, 8, 6, 8))
    return builder.conv(4).mean().dense(3, activation=0).build()


def moved_channels(builder):
    """Channels on other axes: transposed, sliced, blocks of pixels as channels, slopes for each channel."""
    builder.conv(8)
    order = builder._constant(np.array([0, 3, 1, 2], np.int32))
    _operator(builder, OPERATOR.TRANSPOSE, [builder.output, order], (1, 8, 6, 6))
    back = builder._constant(np.array([0, 2, 3, 1], np.int32))
    _operator(builder, OPERATOR.TRANSPOSE, [builder.output, back], (1, 6, 6, 8))
    slopes = builder._constant(np.linspace(0.1, 0.5, 8, dtype=np.float32).reshape(1, 1, 8))
    _operator(builder, OPERATOR.PRELU, [builder.output, slopes], (1, 6, 6, 8))
    begin, size = (builder._constant(np.array(sides, np.int32)) for sides in ([0, 0, 0, 2], [1, 6, 6, 5]))
    _operator(builder, OPERATOR.SLICE, [builder.output, begin, size], (1, 6, 6, 5))
    options = schema.SpaceToDepthOptionsT()
    options.blockSize = 2
    kind = OPTIONS.SpaceToDepthOptions
    _operator(builder, OPERATOR.SPACE_TO_DEPTH, [builder.output], (1, 3, 3, 20), kind, options)
    bounds = [builder._constant(np.array(sides, np.int32)) for sides in ([0] * 4, [1, 3, 3, 12], [1] * 4)]
    options = schema.StridedSliceOptionsT()
    kind = OPTIONS.StridedSliceOptions
    _operator(builder, OPERATOR.STRIDED_SLICE, [builder.output, *bounds], (1, 3, 3, 12), kind, options)
    return builder.conv(4).flatten().dense(3, activation=0).build()


def further_operators(builder):
    """Groups, unequal parts, a sum of several, blocks of channels as pixels, resizing, and a transposed convolution."""
    builder.conv(8)
    grouped = builder._normal((4, 3, 3, 4), 0.3)
    options = schema.Conv2DOptionsT()
    options.padding, options.strideH, options.strideW = SAME, 1, 1
    options.dilationHFactor, options.dilationWFactor = 1, 1
    kind = OPTIONS.Conv2DOptions
    builder._layer(OPERATOR.CONV_2D, np.repeat(grouped, 2, axis=0), "random", (1, 6, 6, 8), kind, options)
    sizes, axis = builder._constant(np.array([3, 5], np.int32)), builder._constant(np.array(3, np.int32))
    options = schema.SplitVOptionsT()
    options.numSplits = 2
    kind = OPTIONS.SplitVOptions
    _operator(builder, OPERATOR.SPLIT_V, [builder.output, sizes, axis], (1, 6, 6, 3), kind, options)
    first, second = builder.output, builder._activation((1, 6, 6, 5), "rest")
    builder.graph.operators[-1].outputs = np.array([first, second], np.int32)
    builder.output = second
    branches = [second, builder.conv(5, 1).output, builder.conv(5, 1).output]
    _operator(builder, OPERATOR.ADD_N, branches, (1, 6, 6, 5), OPTIONS.AddNOptions, schema.AddNOptionsT())
    _concatenation(builder, [first, builder.output])
    options = schema.DepthToSpaceOptionsT()
    options.blockSize = 2
    kind = OPTIONS.DepthToSpaceOptions
    _operator(builder, OPERATOR.DEPTH_TO_SPACE, [builder.output], (1, 12, 12, 2), kind, options)
    size = builder._constant(np.array([6, 6], np.int32))
    options, kind = schema.ResizeBilinearOptionsT(), OPTIONS.ResizeBilinearOptions
    _operator(builder, OPERATOR.RESIZE_BILINEAR, [builder.output, size], (1, 6, 6, 2), kind, options)
    return _transposed_convolution(builder.conv(4), 3).mean().dense(3, activation=0).build()


def annotated(builder):
    """With a signature, shape signatures, metadata of its own, and labels packed behind the model."""
    builder.conv(5).pool().flatten().dense(4).dense(3, activation=0)
    for tensor in builder.graph.tensors:
        tensor.shapeSignature = np.array([-1, *tensor.shape[1:]], np.int32)
    buffer, entry = schema.BufferT(), schema.MetadataT()
    buffer.data = np.frombuffer(b"1.5.0\0\0\0\0\0\0", np.uint8)
    builder.model.buffers.append(buffer)
    entry.name, entry.buffer = "min_runtime_version", len(builder.model.buffers) - 1
    builder.model.metadata = [entry]
    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = "serving_default", 0
    signature.inputs, signature.outputs = [_named("image", 0)], [_named("scores", builder.output)]
    builder.model.signatureDefs = [signature]
    builder.graph.outputs = np.array([builder.output], np.int32)
    packer = flatbuffers.Builder(1024)
    packer.Finish(builder.model.Pack(packer), file_identifier=b"TFL3")
    packed = io.BytesIO(bytes(packer.Output()))
    with zipfile.ZipFile(packed, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo("labels.txt"), "cat\ndog\nowl\n" * 20)
    return packed.getvalue()


_NETWORKS = (
    *(sequential, shared_constants, dynamic_range, full_integer, half_precision),
    *(branches, moved_channels, further_operators, annotated),
)


def quantized(builder: SequentialBuilder) -> bytes:
    """Return the network in int8: weights with a scale for each output channel, int32 biases."""
    graph, model = builder.graph, builder.model
    for tensor in graph.tensors:
        if tensor.buffer == 0:
            tensor.type, tensor.quantization = schema.TensorType.INT8, _affine([0.05], [-3])
    for operator in graph.operators:
        if len(operator.inputs) < 3:
            continue
        weights, bias = (graph.tensors[index] for index in operator.inputs[1:3])
        values = np.frombuffer(bytes(model.buffers[weights.buffer].data), np.float32).reshape(weights.shape)
        scales = np.abs(values).reshape(len(values), -1).max(axis=1) / 127
        whole = np.rint(values / scales.reshape(-1, *[1] * (values.ndim - 1))).astype(np.int8)
        _store(model, weights, whole, schema.TensorType.INT8, _affine(scales, [0] * len(scales)))
        added = np.frombuffer(bytes(model.buffers[bias.buffer].data), np.float32) / (0.05 * scales)
        integers = np.rint(added).astype(np.int32)
        _store(model, bias, integers, schema.TensorType.INT32, _affine(0.05 * scales, [0] * len(scales)))
    return builder.build()


def _affine(scales, zero_points):
    quantization = schema.QuantizationParametersT()
    quantization.scale, quantization.zeroPoint = np.array(scales, np.float32), np.array(zero_points, np.int64)
    return quantization


def _store(model, tensor, values, kind, quantization=None):
    model.buffers[tensor.buffer].data = np.frombuffer(values.tobytes(), np.uint8)
    tensor.type, tensor.quantization = kind, quantization


def _store_as_float16(builder, operator):
    weights = builder.graph.tensors[operator.inputs[1]]
    values = np.frombuffer(bytes(builder.model.buffers[weights.buffer].data), np.float32).astype(np.float16)
    _store(builder.model, weights, values, schema.TensorType.FLOAT16)
    whole, output, operators = (
        builder._activation(weights.shape, "dequantized"),
        builder.output,
        builder.graph.operators,
    )
    _operator(builder, OPERATOR.DEQUANTIZE, [int(operator.inputs[1])], weights.shape)
    operators.insert(operators.index(operator), operators.pop())
    operators[operators.index(operator) - 1].outputs = np.array([whole], np.int32)
    operator.inputs = np.array([operator.inputs[0], whole, operator.inputs[2]], np.int32)
    builder.output = output


def _operator(builder, code, inputs, shape, kind=OPTIONS.NONE, options=None):
    """Append an operator that reads any tensors, not only the last one."""
    builder._operator(code, [], shape, kind, options)
    builder.graph.operators[-1].inputs = np.array(inputs, np.int32)


def _shape(builder, tensor):
    return tuple(int(side) for side in builder.graph.tensors[tensor].shape)


def _depthwise(builder):
    channels = builder._shape()[3]
    options = schema.DepthwiseConv2DOptionsT()
    options.padding, options.strideH, options.strideW, options.depthMultiplier = SAME, 1, 1, 1
    weights, kind = builder._normal((1, 3, 3, channels), 0.3), OPTIONS.DepthwiseConv2DOptions
    builder._layer(OPERATOR.DEPTHWISE_CONV_2D, weights, "random", builder._shape(), kind, options)


def _transposed_convolution(builder, filters):
    height, width, channels = builder._shape()[1:]
    shape = (1, 2 * height, 2 * width, filters)
    options = schema.TransposeConvOptionsT()
    options.padding, options.strideH, options.strideW = SAME, 2, 2
    weights = builder._constant(builder._normal((filters, 2, 2, channels), 0.3))
    inputs = [builder._constant(np.array(shape, np.int32)), weights, builder.output]
    bias = builder._constant(builder._normal((filters,), 0.3))
    _operator(builder, OPERATOR.TRANSPOSE_CONV, [*inputs, bias], shape, OPTIONS.TransposeConvOptions, options)
    return builder


def _concatenation(builder, tensors):
    shapes = [_shape(builder, tensor) for tensor in tensors]
    options = schema.ConcatenationOptionsT()
    options.axis, options.fusedActivationFunction = 3, NONE
    shape, kind = (*shapes[0][:3], sum(shape[3] for shape in shapes)), OPTIONS.ConcatenationOptions
    _operator(builder, OPERATOR.CONCATENATION, tensors, shape, kind, options)


def _split(builder, parts):
    *sides, channels = builder._shape()
    options = schema.SplitOptionsT()
    options.numSplits = parts
    axis, shape = builder._constant(np.array(3, np.int32)), (*sides, channels // parts)
    _operator(builder, OPERATOR.SPLIT, [axis, builder.output], shape, OPTIONS.SplitOptions, options)
    outputs = [builder.output, *(builder._activation(shape, f"part_{i}") for i in range(1, parts))]
    builder.graph.operators[-1].outputs = np.array(outputs, np.int32)
    return outputs


def _named(name, tensor):
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = name, tensor
    return entry
