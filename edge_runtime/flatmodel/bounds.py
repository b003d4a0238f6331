"""What normalising may make of a file: checked before the schema's object API is let at it.

Nothing in a flatbuffer keeps thousands of entries from pointing to one long list. The object API makes an object of
each; copying shared constants multiplies them; and packing writes every list as often as it is pointed to. All three
are bounded here by a multiple of the file's size.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import flatbuffers

from edge_runtime.errors import ModelFileError
from edge_runtime.flatmodel.flatbuffer import Reader
from edge_runtime.flatmodel.schema import ModelField, SignatureField, SubGraphField, TensorField

if TYPE_CHECKING:
    from collections.abc import Iterable

    from edge_runtime.flatmodel.flatbuffer import Table
    from edge_runtime.flatmodel.graph import Graph

__all__ = ["BoundedBuilder", "check_copies", "check_lists"]

# How much larger than the file all copies of its constants may be; converters share little more than zero biases.
_COPIES_PER_BYTE: Final = 16
_METADATA_PER_BYTE: Final = 4
_LEAST: Final = 1 << 20
# Element size of the largest bias.
_BIAS_BYTES: Final = 8
# Fields, by number, of tables that only the object API reads (schema.fbs).
_MODEL_GROUPS: Final[dict[int, tuple[int, ...]]] = {8: (0,), 9: (4,)}
_MAP_TEXTS: Final = (0,)
_GRAPH_TEXTS, _TENSOR_VARIANTS, _SPARSITY_DIMENSIONS = (4,), 9, 2
# An operator's field with the type of its options (these follow it) -> type -> texts in the options: of
# VarHandleOptions; of StablehloCustomCallOptions and StableHLOCompositeOptions.
_OPTIONS_TEXTS: Final[dict[int, dict[int, tuple[int, ...]]]] = {3: {111: (0, 1)}, 11: {5: (0, 2), 21: (0,)}}


def check_lists(content: bytes) -> None:
    """Check that the lists of tables and texts that `read_graph` does not look at hold no more than the file.

    Raises
    ------
    ModelFileError
        They do, or lie outside of the file.
    """
    model = Reader(content).root()
    model.text(ModelField.DESCRIPTION)
    for signature in model.tables(ModelField.SIGNATURE_DEFS):
        signature.text(SignatureField.KEY)
        for field in (SignatureField.INPUTS, SignatureField.OUTPUTS):
            for entry in signature.tables(field):
                _read_texts(entry, _MAP_TEXTS)
    for field, texts in _MODEL_GROUPS.items():
        for group in model.tables(field):
            _read_texts(group, texts)
    for graph in model.tables(ModelField.SUBGRAPHS):
        _read_texts(graph, _GRAPH_TEXTS)
        for tensor in graph.tables(SubGraphField.TENSORS):
            tensor.tables(_TENSOR_VARIANTS)
            sparsity = tensor.table(TensorField.SPARSITY)
            if sparsity is not None:
                sparsity.tables(_SPARSITY_DIMENSIONS)
        for operator in graph.tables(SubGraphField.OPERATORS):
            _read_options(operator)


def _read_options(operator: Table) -> None:
    for field, by_type in _OPTIONS_TEXTS.items():
        options = operator.table(field + 1) if operator.u8(field) in by_type else None
        if options is not None:
            _read_texts(options, by_type[operator.u8(field)])


def _read_texts(table: Table, fields: Iterable[int]) -> None:
    for field in fields:
        table.text(field)


def check_copies(graph: Graph, size: int) -> None:
    """Check that a copy of a constant for each of its readers, and a bias for each layer, are not far beyond `size`.

    Raises
    ------
    ModelFileError
        They are.
    """
    sizes = {tensor.index: len(tensor.stored) for tensor in graph.tensors if tensor.stored is not None}
    for operator in graph.operators:
        if operator.kind == "DEQUANTIZE" and operator.input(0) in sizes:
            sizes |= dict.fromkeys(operator.outputs, sizes[operator.input(0)])
    copied = sum(sizes.get(tensor, 0) for operator in graph.operators for tensor in operator.inputs)
    biased = [operator for operator in graph.operators if operator.kind in {"CONV_2D", "FULLY_CONNECTED"}]
    copied += sum(_BIAS_BYTES * math.prod(graph.tensors[operator.outputs[0]].shape[-1:]) for operator in biased)
    if copied > _COPIES_PER_BYTE * size + _LEAST:
        raise ModelFileError(f"damaged .tflite: copies of the constants that layers share would take {copied} bytes")


class BoundedBuilder(flatbuffers.Builder):  # type: ignore[misc] # flatbuffers has no types
    """Builds the metadata of a file that was made from one of `size` bytes; refuses to grow far beyond that."""

    def __init__(self, size: int) -> None:
        super().__init__(1 << 16)
        self._most = _METADATA_PER_BYTE * size + _LEAST

    def GrowByteBuffer(self) -> Any:  # noqa: N802 - the library's name
        """Double the buffer."""
        if len(self.Bytes) > self._most:
            raise ModelFileError("damaged .tflite: its lists hold far more than the file: they point to one another")
        return super().GrowByteBuffer()
