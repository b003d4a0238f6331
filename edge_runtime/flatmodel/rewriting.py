"""The steps of `normalize`, on the schema's object API: each changes how a model is written, and not what it computes.

`model` is a `ModelT` and `graph` its one `SubGraphT` throughout.
"""

from __future__ import annotations

import copy
import math
from typing import Any, Final

import numpy as np

from edge_runtime.flatmodel.schema import OPERATOR_NAMES, TENSOR_DTYPES

__all__ = [
    "add_biases",
    "drop_unread_ranges",
    "fix_reshapes",
    "kind_of",
    "new_buffer",
    "open_batch",
    "own_constants",
    "stored",
]

_CODES: Final = {dtype.name: code for code, dtype in TENSOR_DTYPES.items()}
# Type of the bias that goes with activations of a type.
_BIAS_TYPES: Final = {"float32": "float32", "int8": "int32", "uint8": "int32", "int16": "int64"}


def kind_of(model: Any, operator: Any) -> str:
    """Return the operator's TFLite name."""
    code = model.operatorCodes[operator.opcodeIndex]
    number = max(code.deprecatedBuiltinCode, code.builtinCode)
    return OPERATOR_NAMES[number] if number < len(OPERATOR_NAMES) else f"BUILTIN_{number}"


def stored(model: Any, tensor: Any) -> Any:
    """Return the bytes of a constant tensor, or None for an activation."""
    data = model.buffers[tensor.buffer].data
    return data if data is not None and len(data) else None


def new_buffer(model: Any, data: Any) -> int:
    """Append a buffer with the bytes `data`; return its index."""
    buffer = type(model.buffers[0])()
    buffer.data = np.array(data, dtype=np.uint8)
    model.buffers.append(buffer)
    return len(model.buffers) - 1


def own_constants(model: Any, graph: Any) -> None:
    """Give every use of a constant a tensor and a buffer of its own, also behind a DEQUANTIZE (float16 weights)."""
    _own_dequantized(model, graph)
    used: set[int] = set()
    claimed: set[int] = set()
    for operator in graph.operators:
        operator.inputs = np.array(operator.inputs, dtype=np.int32)  # what the parser gives is read-only
        for slot, index in enumerate(operator.inputs.tolist()):
            if index < 0 or stored(model, graph.tensors[index]) is None:
                continue
            if index in used:
                index = _copied(graph, index)  # noqa: PLW2901 - the use goes on with its own copy
                operator.inputs[slot] = index
            used.add(index)
            _own_buffer(model, graph.tensors[index], claimed)
    for index, tensor in enumerate(graph.tensors):
        if stored(model, tensor) is None or index in used:
            continue
        if index in graph.outputs:
            _own_buffer(model, tensor, claimed)
        else:
            tensor.buffer = 0  # nobody reads it


def _own_buffer(model: Any, tensor: Any, claimed: set[int]) -> None:
    if tensor.buffer in claimed:
        tensor.buffer = new_buffer(model, model.buffers[tensor.buffer].data)
    claimed.add(tensor.buffer)


def _copied(graph: Any, index: int) -> int:
    graph.tensors.append(copy.copy(graph.tensors[index]))
    return len(graph.tensors) - 1


def _own_dequantized(model: Any, graph: Any) -> None:
    """Give every reader of a dequantised constant a DEQUANTIZE of its own, right before it."""
    made_by = {
        int(operator.outputs[0]): operator
        for operator in graph.operators
        if kind_of(model, operator) == "DEQUANTIZE" and stored(model, graph.tensors[operator.inputs[0]]) is not None
    }
    read: set[int] = set(np.asarray(graph.outputs).tolist())
    operators: list[Any] = []
    for operator in graph.operators:
        inputs = np.array(operator.inputs, dtype=np.int32)
        for slot, index in enumerate(inputs.tolist()):
            if index in made_by and index in read:
                twin = copy.copy(made_by[index])
                inputs[slot] = _copied(graph, index)
                twin.outputs = inputs[slot : slot + 1].copy()
                operators.append(twin)
            read.add(index)
        operator.inputs = inputs
        operators.append(operator)
    graph.operators = operators


def add_biases(model: Any, graph: Any) -> None:
    """Give every dense or convolutional layer without a bias one of zeros."""
    for operator in graph.operators:
        if kind_of(model, operator) not in ("FULLY_CONNECTED", "CONV_2D") or len(operator.inputs) < 2:
            continue
        if len(operator.inputs) > 2 and operator.inputs[2] >= 0:
            continue
        source, weights = (graph.tensors[index] for index in operator.inputs[:2])
        output = graph.tensors[operator.outputs[0]]
        dtype = TENSOR_DTYPES.get(output.type)
        if dtype is None or dtype.name not in _BIAS_TYPES or not len(output.shape):
            continue
        bias_dtype, channels = np.dtype(_BIAS_TYPES[dtype.name]), int(output.shape[-1])
        bias = copy.copy(output)
        bias.name = (output.name or b"") + b"/zero_bias"
        bias.type = _CODES[bias_dtype.name]
        bias.shape, bias.shapeSignature = np.array([channels], dtype=np.int32), None
        bias.quantization = None if bias_dtype.kind == "f" else _product_quantization(source, weights)
        bias.buffer = new_buffer(model, np.zeros(bias_dtype.itemsize * channels, dtype=np.uint8))
        graph.tensors.append(bias)
        operator.inputs = np.array([*operator.inputs[:2], len(graph.tensors) - 1], dtype=np.int32)


def _product_quantization(source: Any, weights: Any) -> Any:
    """Return how a bias is quantised: by the scale of the input times that of the weights."""
    quantization = copy.copy(weights.quantization)
    product = float(source.quantization.scale[0]) * np.asarray(weights.quantization.scale, dtype=np.float64)
    quantization.scale, quantization.zeroPoint = product.astype(np.float32), np.zeros(len(product), dtype=np.int64)
    quantization.quantizedDimension = 0
    return quantization


def drop_unread_ranges(model: Any, graph: Any) -> None:
    """Drop the recorded minima and maxima of constants: no interpreter reads them, and they would not be sliced."""
    for tensor in graph.tensors:
        if tensor.quantization is not None and stored(model, tensor) is not None:
            tensor.quantization.min = tensor.quantization.max = None


def fix_reshapes(model: Any, graph: Any) -> None:
    """Give every reshape its shape as a constant input, with -1 for a batch that it computes."""
    computed_by = {int(index): operator for operator in graph.operators for index in operator.outputs}
    replaced: list[int] = []
    for operator in graph.operators:
        if kind_of(model, operator) != "RESHAPE":
            continue
        inputs = np.asarray(operator.inputs).tolist()
        if len(inputs) < 2:
            shape = getattr(operator.builtinOptions, "newShape", None)
            if shape is None:
                continue
            sides = [int(side) for side in shape]
        elif stored(model, graph.tensors[inputs[1]]) is None:
            packed = _packed_shape(model, graph, computed_by.get(inputs[1]))
            if packed is None:
                continue
            sides = packed
            replaced.append(inputs[1])
        else:
            _forget_options(operator)
            continue
        operator.inputs = np.array([inputs[0], _shape_constant(model, graph, sides)], dtype=np.int32)
        _forget_options(operator)
    _drop_dead(graph, replaced)


def _packed_shape(model: Any, graph: Any, pack: Any) -> list[int] | None:
    """Return the sides that a PACK of numbers makes, -1 for the one that it computes; None for anything else."""
    if pack is None or kind_of(model, pack) != "PACK":
        return None
    sides = []
    for index in np.asarray(pack.inputs).tolist():
        data = stored(model, graph.tensors[index])
        if data is not None and (len(data) != 4 or graph.tensors[index].type != _CODES["int32"]):
            return None
        sides.append(-1 if data is None else int(np.frombuffer(bytes(np.asarray(data, np.uint8)), "<i4")[0]))
    return sides if sides.count(-1) == 1 else None


def _shape_constant(model: Any, graph: Any, sides: list[int]) -> int:
    shape = copy.copy(graph.tensors[0])
    shape.name, shape.type, shape.quantization = b"reshape/shape", _CODES["int32"], None
    shape.shape, shape.shapeSignature = np.array([len(sides)], dtype=np.int32), None
    shape.isVariable, shape.sparsity, shape.variantTensors = False, None, None
    shape.buffer = new_buffer(model, np.frombuffer(np.array(sides, "<i4").tobytes(), np.uint8))
    graph.tensors.append(shape)
    return len(graph.tensors) - 1


def _forget_options(operator: Any) -> None:
    """Drop a reshape's options: they repeat the shape, and a cut would make them wrong."""
    operator.builtinOptions, operator.builtinOptionsType = None, 0


def _drop_dead(graph: Any, unread: list[int]) -> None:
    """Drop the operators that computed tensors `unread`, and what they alone read, where nobody reads them any more."""
    while unread:
        read = {int(index) for operator in graph.operators for index in operator.inputs}
        read |= set(np.asarray(graph.outputs).tolist())
        dead = [
            operator
            for operator in graph.operators
            if set(np.asarray(operator.outputs).tolist()) & set(unread)
            and not set(np.asarray(operator.outputs).tolist()) & read
        ]
        graph.operators = [operator for operator in graph.operators if operator not in dead]
        unread = [int(index) for operator in dead for index in operator.inputs]


def open_batch(model: Any, graph: Any, operator: Any) -> None:
    """Let a reshape to a batch of one take any batch."""
    if len(operator.inputs) < 2 or (data := stored(model, graph.tensors[operator.inputs[1]])) is None:
        return
    sides = np.frombuffer(bytes(np.asarray(data, np.uint8)), dtype="<i4").copy()
    target = graph.tensors[operator.outputs[0]]
    if len(sides) and sides[0] == 1 and -1 not in sides and math.prod(target.shape) == math.prod(sides.tolist()):
        sides[0] = -1
        model.buffers[graph.tensors[operator.inputs[1]].buffer].data = np.frombuffer(sides.tobytes(), np.uint8)
