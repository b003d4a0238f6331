"""VGG-16 and ResNet-152 for 224x224 images and 1000 classes as .tflite files without weights, for the hardware model.

Only shapes matter to it: a tensor that nothing computes counts as stored. Sources: Simonyan and Zisserman, "Very deep
convolutional networks for large-scale image recognition", ICLR 2015, column D; He et al., "Deep residual learning for
image recognition", CVPR 2016, table 1 (with the stride in the 3x3 convolution).
"""

from __future__ import annotations

from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from hwmodel import Workload, convolution, dense, max_pooling

__all__ = ["resnet152", "vgg16", "vgg16_workload"]

_VGG16 = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
_VGG16_PRUNED = ("conv5_1", "conv5_2", "conv5_3", "fc6", "fc7")
_RESNET152 = ((64, 3), (128, 8), (256, 36), (512, 3))
_RELU, _NONE = schema.ActivationFunctionType.RELU, schema.ActivationFunctionType.NONE


def vgg16() -> bytes:
    """Return VGG-16 as the content of a file."""
    network = _Network()
    x = network.image
    for number, widths in enumerate(_VGG16, 1):
        for step, filters in enumerate(widths, 1):
            x = network.convolution(x, filters, f"conv{number}_{step}")
        x = network.pooling(x, 2, 2, f"pool{number}")
    x = network.flatten(x)
    for number, (units, activation) in enumerate(((4096, _RELU), (4096, _RELU), (1000, _NONE)), 6):
        x = network.dense(x, units, f"fc{number}", activation)
    return network.content(x)


def vgg16_workload(*, kept: float = 1.0) -> Workload:
    """Return VGG-16 as the hardware model's input, with `kept` of the units of its last five hidden layers.

    Those are the layers that CAP'NN prunes (DAC 2020, sections V and V.C); the outputs of fc8 all stay.
    """
    layers = []
    side, channels = 224, 3

    def units(name: str, count: int) -> int:
        return round(kept * count) if name in _VGG16_PRUNED else count

    for block, widths in enumerate(_VGG16, 1):
        for step, width in enumerate(widths, 1):
            name = f"conv{block}_{step}"
            layers.append(convolution(name, (side, side, channels), units(name, width), relu=True))
            channels = units(name, width)
        layers.append(max_pooling(f"pool{block}", (side, side, channels)))
        side //= 2
    inputs = side * side * channels
    for name, count in (("fc6", 4096), ("fc7", 4096), ("fc8", 1000)):
        layers.append(dense(name, inputs, units(name, count), relu=name != "fc8"))
        inputs = units(name, count)
    return Workload(tuple(layers))


def resnet152() -> bytes:
    """Return ResNet-152 as the content of a file."""
    network = _Network()
    x = network.convolution(network.image, 64, "conv1", kernel=7, stride=2)
    x = network.pooling(x, 3, 2, "pool1")
    for number, (width, blocks) in enumerate(_RESNET152, 2):
        for block in range(1, blocks + 1):
            name, stride = f"conv{number}_{block}", 2 if block == 1 and number > 2 else 1
            shortcut = x
            if block == 1:
                shortcut = network.convolution(
                    x, 4 * width, f"{name}_shortcut", kernel=1, stride=stride, activation=_NONE
                )
            y = network.convolution(x, width, f"{name}_1", kernel=1)
            y = network.convolution(y, width, f"{name}_2", stride=stride)
            y = network.convolution(y, 4 * width, f"{name}_3", kernel=1, activation=_NONE)
            x = network.addition(shortcut, y, f"{name}_add")
    return network.content(network.dense(network.mean(x), 1000, "fc", _NONE))


class _Network:
    """Collects operators; every method returns the index of the tensor that its operator computes."""

    def __init__(self) -> None:
        self._tensors: list[Any] = []
        self._operators: list[Any] = []
        self._codes: dict[int, int] = {}
        self.image = self._tensor((1, 224, 224, 3), "image")

    def convolution(
        self, x: int, filters: int, name: str, *, kernel: int = 3, stride: int = 1, activation: int = _RELU
    ) -> int:
        _, height, width, channels = self._shape(x)
        options = schema.Conv2DOptionsT()
        options.padding, options.strideH, options.strideW = schema.Padding.SAME, stride, stride
        options.dilationHFactor, options.dilationWFactor, options.fusedActivationFunction = 1, 1, activation
        inputs = (x, self._tensor((filters, kernel, kernel, channels), f"{name}/w"), self._tensor((filters,), "b"))
        shape = (1, -(-height // stride), -(-width // stride), filters)
        return self._operator("CONV_2D", inputs, shape, name, options, schema.BuiltinOptions.Conv2DOptions)

    def pooling(self, x: int, size: int, stride: int, name: str) -> int:
        _, height, width, channels = self._shape(x)
        options = schema.Pool2DOptionsT()
        options.padding, options.strideH, options.strideW = schema.Padding.SAME, stride, stride
        options.filterHeight, options.filterWidth = size, size
        shape = (1, -(-height // stride), -(-width // stride), channels)
        return self._operator("MAX_POOL_2D", (x,), shape, name, options, schema.BuiltinOptions.Pool2DOptions)

    def dense(self, x: int, units: int, name: str, activation: int) -> int:
        options = schema.FullyConnectedOptionsT()
        options.fusedActivationFunction = activation
        inputs = (x, self._tensor((units, self._shape(x)[1]), f"{name}/w"), self._tensor((units,), "b"))
        kind = schema.BuiltinOptions.FullyConnectedOptions
        return self._operator("FULLY_CONNECTED", inputs, (1, units), name, options, kind)

    def addition(self, x: int, y: int, name: str) -> int:
        options = schema.AddOptionsT()
        options.fusedActivationFunction = _RELU
        return self._operator("ADD", (x, y), self._shape(x), name, options, schema.BuiltinOptions.AddOptions)

    def flatten(self, x: int) -> int:
        return self._operator("RESHAPE", (x,), (1, int(np.prod(self._shape(x)))), "flatten")

    def mean(self, x: int) -> int:
        return self._operator("MEAN", (x, self._tensor((2,), "axes")), (1, self._shape(x)[3]), "mean")

    def content(self, output: int) -> bytes:
        graph = schema.SubGraphT()
        graph.tensors, graph.operators = self._tensors, self._operators
        graph.inputs, graph.outputs = np.array([self.image], np.int32), np.array([output], np.int32)
        model = schema.ModelT()
        model.version, model.buffers, model.subgraphs = 3, [schema.BufferT()], [graph]
        model.operatorCodes = []
        for code in self._codes:
            entry = schema.OperatorCodeT()
            entry.builtinCode, entry.deprecatedBuiltinCode, entry.version = code, code, 1
            model.operatorCodes.append(entry)
        builder = flatbuffers.Builder(1 << 16)
        builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
        return bytes(builder.Output())

    def _shape(self, tensor: int) -> tuple[int, ...]:
        return tuple(int(side) for side in self._tensors[tensor].shape)

    def _tensor(self, shape: tuple[int, ...], name: str) -> int:
        tensor = schema.TensorT()
        tensor.shape, tensor.type, tensor.buffer = np.array(shape, np.int32), schema.TensorType.FLOAT32, 0
        tensor.name = name
        self._tensors.append(tensor)
        return len(self._tensors) - 1

    def _operator(
        self, kind: str, inputs: tuple[int, ...], shape: tuple[int, ...], name: str, options: Any = None,
        options_type: int = schema.BuiltinOptions.NONE,
    ) -> int:  # fmt: skip
        operator = schema.OperatorT()
        operator.opcodeIndex = self._codes.setdefault(getattr(schema.BuiltinOperator, kind), len(self._codes))
        output = self._tensor(shape, name)
        operator.inputs, operator.outputs = np.array(inputs, np.int32), np.array([output], np.int32)
        operator.builtinOptions, operator.builtinOptionsType = options, options_type
        self._operators.append(operator)
        return output
