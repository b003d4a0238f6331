"""Turns a full int8 .tflite with one scale per tensor into what converters wrote before 2019: uint8 with zero points.

TensorFlow 2 cannot write such files any more, but many are in use. The same real numbers are stored 128 higher.
"""

from __future__ import annotations

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema


def to_legacy_uint8(content: bytes) -> bytes:
    """Return the same network with every int8 tensor as uint8: values and zero points are 128 higher."""
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    (graph,) = model.subgraphs
    moved = set()
    for tensor in graph.tensors:
        if tensor.type != schema.TensorType.INT8:
            continue
        tensor.type = schema.TensorType.UINT8
        assert len(tensor.quantization.scale) == 1
        tensor.quantization.zeroPoint = np.array([tensor.quantization.zeroPoint[0] + 128], np.int64)
        buffer = model.buffers[tensor.buffer]
        if buffer.data is not None and len(buffer.data) and tensor.buffer not in moved:
            moved.add(tensor.buffer)
            buffer.data = (np.asarray(buffer.data, np.uint8).view(np.int8).astype(np.int16) + 128).astype(np.uint8)
    for code in model.operatorCodes:
        code.version = 1
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())
