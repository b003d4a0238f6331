"""Writes small .tflite files layer by layer, in milliseconds: for tests that need hundreds of networks.

The files are made with the schema's object API, as the converter makes them, and with the same habits: constants may be
shared, a dense layer may come without a bias, activations are fused.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

RELU = schema.ActivationFunctionType.RELU
NONE = schema.ActivationFunctionType.NONE
SAME, VALID = schema.Padding.SAME, schema.Padding.VALID


@dataclass
class SequentialBuilder:
    """Builds a network of one path; each method appends a layer and returns the builder."""

    input_shape: tuple[int, ...]
    rng: np.random.Generator
    share_equal_constants: bool = False
    model: schema.ModelT = field(default_factory=schema.ModelT)

    def __post_init__(self) -> None:
        empty = schema.BufferT()
        self.graph = schema.SubGraphT()
        self.graph.tensors, self.graph.operators = [], []
        self.model.version = 3
        self.model.buffers = [empty]
        self.model.operatorCodes = []
        self.model.subgraphs = [self.graph]
        self.model.description = "made by a test"
        self._constants = {}
        self.output = self._activation((1, *self.input_shape), "input")
        self.graph.inputs = np.array([self.output], np.int32)

    def conv(
        self, filters, kernel=3, *, stride=1, padding=SAME, activation=RELU, bias=True
    ):  # no convolution runs without a bias
        height, width, channels = self._shape()[1:]
        weights = self._normal((filters, kernel, kernel, channels), np.sqrt(2 / (kernel * kernel * channels)))
        options = schema.Conv2DOptionsT()
        options.padding, options.strideH, options.strideW = padding, stride, stride
        options.fusedActivationFunction, options.dilationHFactor, options.dilationWFactor = activation, 1, 1
        shape = (1, *(_sides((height, width), kernel, stride, padding)), filters)
        return self._layer(
            schema.BuiltinOperator.CONV_2D, weights, bias, shape, schema.BuiltinOptions.Conv2DOptions, options
        )

    def dense(self, units, *, activation=RELU, bias=True):
        weights = self._normal((units, self._shape()[1]), np.sqrt(2 / self._shape()[1]))
        options = schema.FullyConnectedOptionsT()
        options.fusedActivationFunction = activation
        kind = schema.BuiltinOptions.FullyConnectedOptions
        return self._layer(schema.BuiltinOperator.FULLY_CONNECTED, weights, bias, (1, units), kind, options)

    def pool(self, size=2, *, average=False, padding=VALID):
        options = schema.Pool2DOptionsT()
        options.padding, options.strideH, options.strideW = padding, size, size
        options.filterHeight, options.filterWidth = size, size
        options.fusedActivationFunction = NONE
        height, width = _sides(self._shape()[1:3], size, size, padding)
        code = schema.BuiltinOperator.AVERAGE_POOL_2D if average else schema.BuiltinOperator.MAX_POOL_2D
        shape = (1, height, width, self._shape()[3])
        return self._operator(code, [], shape, schema.BuiltinOptions.Pool2DOptions, options)

    def relu(self):
        return self._operator(schema.BuiltinOperator.RELU, [], self._shape())

    def softmax(self):
        options = schema.SoftmaxOptionsT()
        options.beta = 1.0
        return self._operator(
            schema.BuiltinOperator.SOFTMAX, [], self._shape(), schema.BuiltinOptions.SoftmaxOptions, options
        )

    def flatten(self):
        size = int(np.prod(self._shape()[1:]))
        target = self._constant(np.array([1, size], np.int32))
        options = schema.ReshapeOptionsT()
        options.newShape = [1, size]
        return self._operator(
            schema.BuiltinOperator.RESHAPE, [target], (1, size), schema.BuiltinOptions.ReshapeOptions, options
        )

    def mean(self):
        axes = self._constant(np.array([1, 2], np.int32))
        options = schema.ReducerOptionsT()
        shape = (1, self._shape()[3])
        return self._operator(schema.BuiltinOperator.MEAN, [axes], shape, schema.BuiltinOptions.ReducerOptions, options)

    def scale(self, kind="MUL", *, per_channel=True):
        """Append a multiplication or addition with a constant, as batch normalisation behind a ReLU leaves them."""
        channels = self._shape()[-1] if per_channel else 1
        constant = self._constant(self._normal((channels,), 1.0))
        code, options = getattr(schema.BuiltinOperator, kind), schema.BuiltinOptions
        known = {"MUL": (options.MulOptions, schema.MulOptionsT()), "ADD": (options.AddOptions, schema.AddOptionsT())}
        return self._operator(code, [constant], self._shape(), *known[kind])

    def quantize_last_weights(self):
        """Store the last layer's weights as int8 with a scale for each output channel, as dynamic-range files do."""
        tensor = self.graph.tensors[self.graph.operators[-1].inputs[1]]
        buffer = self.model.buffers[tensor.buffer]
        values = np.frombuffer(bytes(buffer.data), np.float32).reshape(tensor.shape)
        scales = np.abs(values).reshape(len(values), -1).max(axis=1) / 127
        whole = np.rint(values / scales.reshape(-1, *[1] * (values.ndim - 1))).astype(np.int8)
        buffer.data = np.frombuffer(whole.tobytes(), np.uint8)
        tensor.type, tensor.quantization = schema.TensorType.INT8, schema.QuantizationParametersT()
        tensor.quantization.scale = scales.astype(np.float32)
        tensor.quantization.zeroPoint = np.zeros(len(scales), np.int64)
        return self

    def cumulative_sum(self):
        """Append an operator that slicing does not understand."""
        axis = self._constant(np.array(3, np.int32))
        options = schema.CumsumOptionsT()
        return self._operator(
            schema.BuiltinOperator.CUMSUM, [axis], self._shape(), schema.BuiltinOptions.CumsumOptions, options
        )

    def build(self) -> bytes:
        self.graph.outputs = np.array([self.output], np.int32)
        builder = flatbuffers.Builder(1024)
        builder.Finish(self.model.Pack(builder), file_identifier=b"TFL3")
        return bytes(builder.Output())

    def _layer(self, code, weights, bias, shape, options_type, options):
        constants = [self._constant(weights)]
        if bias:
            # `bias="zero"` gives equal biases, which a converter shares.
            values = np.zeros(shape[-1], np.float32) if bias == "zero" else self._normal((shape[-1],), 0.3)
            constants.append(self._constant(values))
        else:
            constants.append(-1)
        return self._operator(code, constants, shape, options_type, options)

    def _operator(self, code, constants, shape, options_type=schema.BuiltinOptions.NONE, options=None):
        operator = schema.OperatorT()
        operator.opcodeIndex = self._code(code)
        output = self._activation(shape, f"activation_{len(self.graph.operators)}")
        operator.inputs = np.array([self.output, *constants], np.int32)
        operator.outputs = np.array([output], np.int32)
        operator.builtinOptionsType, operator.builtinOptions = options_type, options
        self.graph.operators.append(operator)
        self.output = output
        return self

    def _code(self, code):
        for index, known in enumerate(self.model.operatorCodes):
            if known.builtinCode == code:
                return index
        entry = schema.OperatorCodeT()
        entry.builtinCode, entry.deprecatedBuiltinCode, entry.version = code, min(code, 127), 1
        self.model.operatorCodes.append(entry)
        return len(self.model.operatorCodes) - 1

    def _constant(self, values):
        content = values.tobytes()
        key = (values.dtype.name, values.shape, content)
        if self.share_equal_constants and key in self._constants:
            return self._constants[key]
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(content, np.uint8)
        self.model.buffers.append(buffer)
        kind = schema.TensorType.INT32 if values.dtype == np.int32 else schema.TensorType.FLOAT32
        index = self._tensor(values.shape, kind, len(self.model.buffers) - 1, f"constant_{len(self.graph.tensors)}")
        self._constants[key] = index
        return index

    def _activation(self, shape, name):
        return self._tensor(shape, schema.TensorType.FLOAT32, 0, name)

    def _tensor(self, shape, kind, buffer, name):
        tensor = schema.TensorT()
        tensor.shape, tensor.type, tensor.buffer, tensor.name = np.array(shape, np.int32), kind, buffer, name
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def _normal(self, shape, scale):
        return self.rng.normal(0.0, scale, shape).astype(np.float32)

    def _shape(self):
        return tuple(int(side) for side in self.graph.tensors[self.output].shape)


def _sides(sides, kernel, stride, padding):
    return tuple(-(-side // stride) if padding == SAME else (side - kernel) // stride + 1 for side in sides)
