"""Rewrites a .tflite once, so that it can be sliced many times: metadata first, then the constants.

Every use of a shared constant gets its own copy (a converter shares equal ones, and slicing one would corrupt another
layer), every layer gets a bias (mean folding needs somewhere to go), a reshape whose shape is computed from the batch
gets a constant one, and the constants move behind everything else, so that slicing rewrites only the tail of the file
and a few numbers before it. The network computes what it did before; its names, signatures, metadata and packed files
stay.

Needs the schema's object API (shipped with ai-edge-litert); done in the cloud. What reads the result (`slicing`) does
not.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from edge_runtime.errors import ModelFileError
from edge_runtime.flatmodel.associated_files import packed_files
from edge_runtime.flatmodel.bounds import BoundedBuilder, check_copies, check_lists
from edge_runtime.flatmodel.graph import read_graph
from edge_runtime.flatmodel.layout import LAYOUT_BYTES, LAYOUT_ENTRY, place_constants, read_layout
from edge_runtime.flatmodel.rewriting import (
    add_biases,
    drop_unread_ranges,
    fix_reshapes,
    kind_of,
    new_buffer,
    open_batch,
    own_constants,
    stored,
)
from edge_runtime.flatmodel.schema import FILE_IDENTIFIER

__all__ = ["extract", "normalize"]


def normalize(content: bytes, name: str = "model") -> bytes:
    """Return the model of `content` in the layout that `slicing.BaseModel` needs.

    A file that has it already is returned as it is.

    Raises
    ------
    ModelFileError
        The bytes are no .tflite file, damaged, or have more than one subgraph; `name` leads the message.
    """
    graph = read_graph(content, name)
    if LAYOUT_ENTRY in graph.metadata and _is_current(content):
        return content
    if graph.subgraphs != 1:
        raise ModelFileError(
            f"{name}: has {graph.subgraphs} subgraphs: control flow is not supported, export plain inference"
        )
    try:
        check_copies(graph, len(content))
        normalized = _rewrite(_parse(content), len(content), packed_files(content))
        read_graph(normalized)  # written out, lists that were shared may be more than a reader takes
    except ModelFileError as error:
        raise ModelFileError(f"{name}: {error}") from error
    return normalized


def _is_current(content: bytes) -> bool:
    try:
        read_layout(content)
    except ModelFileError:
        return False
    return True


def extract(content: bytes, inputs: list[int], outputs: list[int]) -> bytes:
    """Return the part of a normalised model that computes activations `outputs` from `inputs`, with an open batch.

    Tensor indices stay what they are in `content`; operators and constants that are not needed go. The batch (first
    side) may then be resized: reshapes to a batch of one are rewritten to "as many as there are".

    Raises
    ------
    ModelFileError
        An output does not follow from the inputs and constants alone.
    """
    model = _parse(content)
    _keep_part(model, inputs, outputs)
    return _rewrite(model, len(content))


def _rewrite(model: Any, size: int, tail: bytes = b"") -> bytes:
    try:
        graph = model.subgraphs[0]
        fix_reshapes(model, graph)
        own_constants(model, graph)
        add_biases(model, graph)
        drop_unread_ranges(model, graph)
        constants = _take_constants(model, graph)
        builder = BoundedBuilder(size)
        builder.Finish(model.Pack(builder), file_identifier=FILE_IDENTIFIER)
    except ModelFileError:
        raise
    except (struct.error, IndexError, ValueError, TypeError, AttributeError) as error:
        raise ModelFileError(f"damaged .tflite ({type(error).__name__} while rewriting it)") from error
    return place_constants(bytearray(builder.Output()), constants, tail)


def _schema() -> Any:
    try:
        from ai_edge_litert import schema_py_generated  # noqa: PLC0415 - heavy, and not there beside tflite-runtime
    except ImportError:
        raise ModelFileError("rewriting a .tflite needs ai-edge-litert: pip install ai-edge-litert") from None
    return schema_py_generated


def _parse(content: bytes) -> Any:
    check_lists(content)
    try:
        return _schema().ModelT.InitFromPackedBuf(content, 0)
    except (struct.error, IndexError, ValueError, TypeError, AttributeError, UnicodeDecodeError) as error:
        raise ModelFileError(f"damaged .tflite ({type(error).__name__} while reading it)") from error


def _take_constants(model: Any, graph: Any) -> dict[int, bytes]:
    """Take the constants' values out of their buffers and note that the layout is ours.

    Return buffer index -> values.
    """
    constants = {}
    for tensor in graph.tensors:
        data = stored(model, tensor)
        if data is not None:
            constants[tensor.buffer] = bytes(np.asarray(data, dtype=np.uint8))
    for index in constants:
        model.buffers[index].data = np.zeros(0, dtype=np.uint8)
    model.metadata = [entry for entry in model.metadata or [] if entry.name != LAYOUT_ENTRY.encode()]
    entry = _schema().MetadataT()
    entry.name, entry.buffer = LAYOUT_ENTRY, new_buffer(model, np.zeros(LAYOUT_BYTES, dtype=np.uint8))
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
        if tensor in needed or tensor in inputs or tensor < 0 or stored(model, graph.tensors[tensor]) is not None:
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
        if index not in needed and stored(model, tensor) is not None:
            model.buffers[tensor.buffer].data = None
    model.signatureDefs = None  # they name the whole model's inputs
    for operator in graph.operators:
        if kind_of(model, operator) == "RESHAPE":
            open_batch(model, graph, operator)
