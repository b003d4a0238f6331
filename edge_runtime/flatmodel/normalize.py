"""Rewrites a .tflite once, so that it can be sliced many times: metadata first, then the constants.

Every use of a shared constant gets its own copy (a converter shares equal ones, and slicing one would corrupt another
layer), every layer gets a bias (mean folding needs somewhere to go), and the constants move behind everything else, so
that slicing rewrites only the tail of the file and a few numbers before it. The network computes what it did before.

Needs the schema's object API (shipped with ai-edge-litert); done in the cloud. What reads the result (`slicing`) does
not.
"""

from __future__ import annotations

import copy
import struct
from typing import Any

import flatbuffers
import numpy as np

from edge_runtime.errors import ModelFileError
from edge_runtime.flatmodel.graph import read_graph
from edge_runtime.flatmodel.layout import LAYOUT_BYTES, LAYOUT_ENTRY, place_constants
from edge_runtime.flatmodel.schema import FILE_IDENTIFIER, OPERATOR_NAMES

__all__ = ["extract", "normalize"]

_FLOAT32 = 0


def normalize(content: bytes, name: str = "model") -> bytes:
    """Return the model of `content` in the layout that `slicing.BaseModel` needs.

    A file that has it already is returned as it is.

    Raises
    ------
    ModelFileError
        The bytes are no .tflite file, damaged, or have more than one subgraph; `name` leads the message.
    """
    graph = read_graph(content, name)
    if LAYOUT_ENTRY in graph.metadata:
        return content
    if graph.subgraphs != 1:
        raise ModelFileError(
            f"{name}: has {graph.subgraphs} subgraphs: control flow is not supported, export plain inference"
        )
    return _rewrite(_parse(content, name))


def extract(content: bytes, inputs: list[int], outputs: list[int]) -> bytes:
    """Return the part of a normalised model that computes activations `outputs` from `inputs`, with an open batch.

    Tensor indices stay what they are in `content`; operators and constants that are not needed go. The batch (first
    side) may then be resized: reshapes to a batch of one are rewritten to "as many as there are".

    Raises
    ------
    ModelFileError
        An output does not follow from the inputs and constants alone.
    """
    model = _parse(content, "base model")
    _keep_part(model, inputs, outputs)
    return _rewrite(model)


def _rewrite(model: Any) -> bytes:
    graph = model.subgraphs[0]
    _own_constants(model, graph)
    _add_biases(model, graph)
    constants = _take_constants(model, graph)
    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(model.Pack(builder), file_identifier=FILE_IDENTIFIER)
    return place_constants(bytearray(builder.Output()), constants)


def _schema() -> Any:
    try:
        from ai_edge_litert import schema_py_generated  # noqa: PLC0415 - heavy, and not there beside tflite-runtime
    except ImportError:
        raise ModelFileError("rewriting a .tflite needs ai-edge-litert: pip install ai-edge-litert") from None
    return schema_py_generated


def _parse(content: bytes, name: str) -> Any:
    try:
        return _schema().ModelT.InitFromPackedBuf(content, 0)
    except (struct.error, IndexError, ValueError, TypeError, AttributeError, UnicodeDecodeError) as error:
        raise ModelFileError(f"{name}: damaged .tflite ({type(error).__name__} while reading it)") from error


def _kind(model: Any, operator: Any) -> str:
    code = model.operatorCodes[operator.opcodeIndex]
    number = max(code.deprecatedBuiltinCode, code.builtinCode)
    return OPERATOR_NAMES[number] if number < len(OPERATOR_NAMES) else f"BUILTIN_{number}"


def _data(model: Any, tensor: Any) -> Any:
    data = model.buffers[tensor.buffer].data
    return data if data is not None and len(data) else None


def _own_constants(model: Any, graph: Any) -> None:
    """Give every use of a constant tensor a tensor and a buffer of its own."""
    used: set[int] = set()
    claimed: set[int] = set()
    for operator in graph.operators:
        operator.inputs = np.array(operator.inputs, dtype=np.int32)  # what the parser gives is read-only
        for slot, index in enumerate(operator.inputs.tolist()):
            if index < 0 or _data(model, graph.tensors[index]) is None:
                continue
            if index in used:
                graph.tensors.append(copy.copy(graph.tensors[index]))
                index = len(graph.tensors) - 1  # noqa: PLW2901 - the use goes on with its own copy
                operator.inputs[slot] = index
            used.add(index)
            tensor = graph.tensors[index]
            if tensor.buffer in claimed:
                tensor.buffer = _new_buffer(model, model.buffers[tensor.buffer].data)
            claimed.add(tensor.buffer)
    for index, tensor in enumerate(graph.tensors):
        if index not in used and index not in graph.outputs and _data(model, tensor) is not None:
            tensor.buffer = 0  # nobody reads it


def _new_buffer(model: Any, data: Any) -> int:
    buffer = type(model.buffers[0])()
    buffer.data = np.array(data, dtype=np.uint8)
    model.buffers.append(buffer)
    return len(model.buffers) - 1


def _add_biases(model: Any, graph: Any) -> None:
    """Give every float32 dense layer without a bias one of zeros (a convolution always has one)."""
    for operator in graph.operators:
        if _kind(model, operator) != "FULLY_CONNECTED" or len(operator.inputs) < 2:
            continue
        if len(operator.inputs) > 2 and operator.inputs[2] >= 0:
            continue
        output = graph.tensors[operator.outputs[0]]
        if output.type != _FLOAT32:
            continue
        channels = int(output.shape[-1])
        bias = copy.copy(output)
        bias.name = (output.name or b"") + b"/zero_bias"
        bias.shape, bias.shapeSignature = np.array([channels], dtype=np.int32), None
        bias.buffer = _new_buffer(model, np.zeros(4 * channels, dtype=np.uint8))
        graph.tensors.append(bias)
        operator.inputs = np.array([*operator.inputs[:2], len(graph.tensors) - 1], dtype=np.int32)


def _take_constants(model: Any, graph: Any) -> dict[int, bytes]:
    """Take the constants' values out of their buffers and note that the layout is ours.

    Return buffer index -> values.
    """
    constants = {}
    for tensor in graph.tensors:
        data = _data(model, tensor)
        if data is not None:
            constants[tensor.buffer] = bytes(np.asarray(data, dtype=np.uint8))
    for index in constants:
        model.buffers[index].data = np.zeros(0, dtype=np.uint8)
    model.metadata = [entry for entry in model.metadata or [] if entry.name != LAYOUT_ENTRY.encode()]
    entry = _schema().MetadataT()
    entry.name, entry.buffer = LAYOUT_ENTRY, _new_buffer(model, np.zeros(LAYOUT_BYTES, dtype=np.uint8))
    model.metadata.append(entry)
    return constants


def _keep_part(model: Any, inputs: list[int], outputs: list[int]) -> None:
    graph = model.subgraphs[0]
    producer = {int(tensor): operator for operator in graph.operators for tensor in operator.outputs}
    needed: set[int] = set()
    kept: list[Any] = []
    pending = list(outputs)
    while pending:
        tensor = pending.pop()
        if tensor in needed or tensor in inputs or tensor < 0 or _data(model, graph.tensors[tensor]) is not None:
            needed.add(tensor)
            continue
        needed.add(tensor)
        if tensor not in producer:
            raise ModelFileError(f"tensor {tensor} does not follow from tensors {inputs}")
        operator = producer[tensor]
        kept.append(operator)
        pending.extend(int(i) for i in operator.inputs)
    graph.operators = [operator for operator in graph.operators if operator in kept]
    graph.inputs, graph.outputs = np.array(inputs, np.int32), np.array(outputs, np.int32)
    for index, tensor in enumerate(graph.tensors):
        if index not in needed and _data(model, tensor) is not None:
            model.buffers[tensor.buffer].data = None
    model.signatureDefs = None  # they name the whole model's inputs
    for operator in graph.operators:
        if _kind(model, operator) == "RESHAPE":
            _open_batch(model, graph, operator)


def _open_batch(model: Any, graph: Any, operator: Any) -> None:
    """Let a reshape to a batch of one take any batch."""
    if len(operator.inputs) < 2 or (data := _data(model, graph.tensors[operator.inputs[1]])) is None:
        return
    sides = np.frombuffer(bytes(np.asarray(data, np.uint8)), dtype="<i4").copy()
    if len(sides) and sides[0] == 1 and -1 not in sides:
        sides[0] = -1
        model.buffers[graph.tensors[operator.inputs[1]].buffer].data = np.frombuffer(sides.tobytes(), np.uint8)
        operator.builtinOptions = None
        operator.builtinOptionsType = 0
