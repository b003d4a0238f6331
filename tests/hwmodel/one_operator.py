"""Writes a .tflite file of one operator, of any kind, without the values of its constants."""

from __future__ import annotations

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edge_runtime.flatmodel.schema import OPERATOR_NAMES


def one_operator(kind, inputs, outputs, *, stored=(), values=None, options=None, custom=None) -> bytes:
    """Return a file with the operator `kind` (a name, or a number).

    Parameters
    ----------
    inputs, outputs
        Shapes of its tensors; None for an optional input that is left out. The first tensor that is not stored is the
        network's input, and so are all others that are not stored.
    stored
        Positions of the inputs that are constants.
    values
        Position of an input -> the int32 values of that constant; others have none, which the cost does not need.
    options
        The object of its options (`Conv2DOptionsT`), if it has any.
    """
    graph, model = schema.SubGraphT(), schema.ModelT()
    model.buffers, graph.tensors = [schema.BufferT()], []

    def tensor(shape, name, content=None):
        made = schema.TensorT()
        made.shape, made.name, made.type, made.buffer = np.array(shape, np.int32), name, schema.TensorType.FLOAT32, 0
        if content is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(np.array(content, np.int32).tobytes(), np.uint8)
            made.type, made.buffer = schema.TensorType.INT32, len(model.buffers)
            model.buffers.append(buffer)
        graph.tensors.append(made)
        return len(graph.tensors) - 1

    read = [
        -1 if shape is None else tensor(shape, f"input {position}", (values or {}).get(position))
        for position, shape in enumerate(inputs)
    ]
    operator = schema.OperatorT()
    operator.opcodeIndex, operator.inputs = 0, np.array(read, np.int32)
    operator.outputs = np.array([tensor(shape, f"output {i}") for i, shape in enumerate(outputs)], np.int32)
    if options is not None:
        operator.builtinOptions = options
        operator.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__.removesuffix("T"))
    fed = [index for position, index in enumerate(read) if index >= 0 and position not in stored]
    graph.inputs = np.array(fed or [tensor((1,), "not read")], np.int32)
    graph.outputs, graph.operators = operator.outputs, [operator]
    code = schema.OperatorCodeT()
    code.builtinCode = kind if isinstance(kind, int) else OPERATOR_NAMES.index(kind)
    code.deprecatedBuiltinCode, code.version, code.customCode = min(code.builtinCode, 127), 1, custom
    model.version, model.subgraphs, model.operatorCodes = 3, [graph], [code]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())
