"""A .tflite file as a graph of operators and tensors, read in place: constants are views of the file's own bytes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edge_runtime.errors import ModelFileError
from edge_runtime.flatmodel import schema
from edge_runtime.flatmodel.flatbuffer import Reader
from edge_runtime.flatmodel.schema import (
    BufferField,
    MetadataField,
    ModelField,
    OperatorCodeField,
    OperatorField,
    QuantizationField,
    SubGraphField,
    TensorField,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from numpy.typing import NDArray

    from edge_runtime.flatmodel.flatbuffer import Table, Vector

__all__ = ["Graph", "Operator", "Quantization", "Tensor", "read_graph"]

# No interpreter runs more; a damaged file may ask for more than numpy can count.
_RANK_MAX: Final = 16
_ELEMENTS_MAX: Final = 1 << 40
_CUSTOM_NAME_MAX: Final = 128
# What nobody here reads, number of the field -> bytes of a list's item, or 0 for a number (schema.fbs). It is claimed
# all the same.
_UNREAD_OF_MODEL: Final = {0: 0, 3: 1, 5: 4}
_UNREAD_OF_SUBGRAPH: Final = {4: 1}
_UNREAD_OF_OPERATOR_CODE: Final = {1: 1, 2: 0}
_UNREAD_OF_OPERATOR: Final = {5: 1, 7: 1, 8: 4}
_UNREAD_OF_QUANTIZATION: Final = {0: 4, 1: 4}
_UNREAD_OF_SIGNATURE: Final = {2: 1, 4: 0}
_UNREAD_OF_SIGNATURE_ENTRY: Final = {0: 1, 1: 0}
_SIGNATURES: Final = 7
_SIGNATURE_ENTRIES: Final = (0, 1)
# `BuiltinOptions` of RESHAPE and SQUEEZE, which begin with a list of integers.
_OPTIONS_WITH_A_LIST: Final = (17, 30)


@dataclass(frozen=True, slots=True)
class Quantization:
    """Affine quantisation: `real = scale * (stored - zero_point)`, per tensor (length 1) or per slice of `axis`.

    `scales` float32 and `zero_points` int64 are the vectors in the file; `zero_points` is None where it has none, and
    otherwise has length 0, 1 or that of `scales`.
    """

    scales: Vector
    zero_points: Vector | None
    axis: int

    @property
    def count(self) -> int:
        """How many scales there are."""
        return self.scales.length

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether there is one scale, or one for each index along `axis` of a tensor of this shape."""
        return self.count == 1 or (0 <= self.axis < len(shape) and shape[self.axis] == self.count)


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """One tensor of the graph.

    Attributes
    ----------
    dtype
        None for kinds that numpy has no view for; such tensors are never sliced.
    data
        The constant's values, `shape` `dtype`, a view of the file; None for an activation, and for a constant that is
        stored in a form of its own (4-bit, sparse, strings).
    stored
        The constant's bytes as they lie in the file; None for an activation.
    buffer
        Index of the tensor's buffer in the file.
    shape_at, signature_at
        Byte positions of the first side of the shape and of the shape signature; None where the file has none.
    """

    index: int
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic] | None
    data: NDArray[Any] | None
    stored: memoryview | None
    buffer: int
    quantization: Quantization | None
    shape_at: int | None
    signature_at: int | None

    @property
    def is_constant(self) -> bool:
        """Whether the file holds the tensor's values."""
        return self.stored is not None

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Operator:
    """One operator.

    `kind` is its TFLite name ("CONV_2D"); `inputs` and `outputs` are tensor indices (-1: an optional input, absent).
    `options` holds those that `schema.OPTIONS` names; enumerations as numbers.
    """

    index: int
    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Mapping[str, int]

    def input(self, position: int) -> int:
        """Return the tensor index of an input, or -1 where the operator does not have it."""
        return self.inputs[position] if position < len(self.inputs) else -1


@dataclass(frozen=True)
class Graph:
    """The main subgraph of a .tflite file.

    `inputs` and `outputs` are tensor indices; `subgraphs` counts all of the file's subgraphs (control flow has more
    than one). `claims` `(n, 2) int64` are begin and end of all pieces of the file that were read but for constants.
    """

    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    subgraphs: int
    metadata: Mapping[str, bytes]
    claims: NDArray[np.int64] = field(repr=False)

    @cached_property
    def producer(self) -> dict[int, Operator]:
        """Tensor index -> the operator that writes it."""
        return {tensor: operator for operator in self.operators for tensor in operator.outputs}

    def constant_behind(self, tensor: int) -> Tensor | None:
        """Return the constant that `tensor` is, or is the DEQUANTIZE of (float16 weights); None for an activation."""
        producer = self.producer.get(tensor)
        if producer is not None and producer.kind == "DEQUANTIZE":
            tensor = producer.input(0)
        return self.tensors[tensor] if tensor >= 0 and self.tensors[tensor].is_constant else None

    def output_maker(self, passed: Collection[str]) -> Operator | None:
        """Return the operator that the first output comes from, behind operators of the kinds `passed`, if any."""
        operator = self.producer.get(self.outputs[0])
        while operator is not None and operator.kind in passed:
            operator = self.producer.get(operator.input(0))
        return operator

    @cached_property
    def parameters(self) -> int:
        """Number of weights and biases: the elements of all constants that are floats or quantised.

        Shapes, axes and the like, which are plain integers, do not count.
        """
        return sum(
            tensor.size
            for tensor in self.tensors
            if tensor.is_constant
            and (tensor.quantization is not None or (tensor.dtype is not None and tensor.dtype.kind == "f"))
        )


def read_graph(content: bytes | bytearray | memoryview, name: str = "model") -> Graph:
    """Read the main subgraph of a .tflite file.

    Raises
    ------
    ModelFileError
        The bytes are no .tflite file, or damaged; `name` leads the message. What it takes at most to read a file is
        said in `flatbuffer`.
    """
    try:
        return _read(Reader(content))
    except ModelFileError as error:
        raise ModelFileError(f"{name}: {error}") from error


def _read(reader: Reader) -> Graph:
    if reader.size < 8 or bytes(reader.data[4:8]) != schema.FILE_IDENTIFIER:
        raise ModelFileError("not a .tflite file (the identifier TFL3 is missing)")
    model = reader.root()
    subgraphs = model.tables(ModelField.SUBGRAPHS)
    if not subgraphs:
        raise ModelFileError("damaged .tflite: it has no subgraph")
    main = subgraphs[0]
    buffers = model.tables(ModelField.BUFFERS)
    tensors = tuple(_tensor(i, table, buffers) for i, table in enumerate(main.tables(SubGraphField.TENSORS)))
    names = [_operator_name(code) for code in model.tables(ModelField.OPERATOR_CODES)]
    operators = tuple(_operator(i, table, names) for i, table in enumerate(main.tables(SubGraphField.OPERATORS)))
    inputs, outputs = main.ints(SubGraphField.INPUTS), main.ints(SubGraphField.OUTPUTS)
    metadata = {
        entry.text(MetadataField.NAME): _metadata(entry, buffers) for entry in model.tables(ModelField.METADATA)
    }
    for index in set(range(len(buffers))) - {tensor.buffer for tensor in tensors}:
        _claimed(buffers[index].vector(BufferField.DATA, 1))
    _claim_unread(model, main)
    graph = Graph(tensors, operators, inputs, outputs, len(subgraphs), metadata, reader.claims())
    _check_references(graph)
    return graph


def _metadata(entry: Table, buffers: list[Table]) -> bytes:
    buffer = entry.u32(MetadataField.BUFFER)
    if buffer >= len(buffers):
        raise ModelFileError(f"damaged .tflite: metadata names buffer {buffer} of {len(buffers)}")
    data = buffers[buffer].vector(BufferField.DATA, 1)
    return b"" if data is None else data.claim().copy()


def _tensor(index: int, table: Table, buffers: list[Table]) -> Tensor:
    sides = _claimed(table.vector(TensorField.SHAPE, 4))
    signature = _claimed(table.vector(TensorField.SHAPE_SIGNATURE, 4))
    shape = _shape(index, sides)
    dtype = schema.TENSOR_DTYPES.get(table.u8(TensorField.TYPE))
    buffer = table.u32(TensorField.BUFFER)
    if buffer >= len(buffers):
        raise ModelFileError(f"damaged .tflite: tensor {index} names buffer {buffer} of {len(buffers)}")
    if signature is not None and signature.length != len(shape):
        signature = None
    stored = _stored(buffers[buffer])
    is_plain = stored is not None and dtype is not None and table.at(TensorField.SPARSITY) is None
    return Tensor(
        index=index,
        name=table.text(TensorField.NAME),
        shape=shape,
        dtype=dtype,
        data=_values(index, shape, dtype, stored) if is_plain and stored is not None and dtype is not None else None,
        stored=stored,
        buffer=buffer,
        quantization=_quantization(table.table(TensorField.QUANTIZATION)),
        shape_at=sides.start if sides is not None else None,
        signature_at=signature.start if signature is not None else None,
    )


def _claimed(vector: Vector | None) -> Vector | None:
    return None if vector is None else vector.claim()


def _claim(table: Table, fields: Mapping[int, int]) -> None:
    for number, item_size in fields.items():
        if item_size:
            _claimed(table.vector(number, item_size))
        else:
            table.at(number)  # a number is part of its table, and has to lie within


def _claim_unread(model: Table, main: Table) -> None:
    """Claim the names and texts that are of no use here: a cut must not change them either."""
    _claim(model, _UNREAD_OF_MODEL)
    _claim(main, _UNREAD_OF_SUBGRAPH)
    for signature in model.tables(_SIGNATURES):
        _claim(signature, _UNREAD_OF_SIGNATURE)
        for entries in _SIGNATURE_ENTRIES:
            for entry in signature.tables(entries):
                _claim(entry, _UNREAD_OF_SIGNATURE_ENTRY)


def _shape(index: int, sides: Vector | None) -> tuple[int, ...]:
    if sides is not None and sides.length > _RANK_MAX:
        raise ModelFileError(f"damaged .tflite: tensor {index} has {sides.length} dimensions")
    shape = () if sides is None else sides.ints()
    # An empty tensor, too, may have sides that overflow.
    if any(side < 0 for side in shape) or math.prod(max(side, 1) for side in shape) > _ELEMENTS_MAX:
        raise ModelFileError(f"damaged .tflite: tensor {index} has the shape {shape}")
    return shape


def _stored(buffer: Table) -> memoryview | None:
    if buffer.u64(BufferField.OFFSET) > 1:
        raise ModelFileError("constants outside the flatbuffer (files over 2 GiB) are not supported")
    data = buffer.vector(BufferField.DATA, 1)
    if data is None:
        return None
    if not data.length:
        data.claim()
        return None
    return data.raw()


def _values(index: int, shape: tuple[int, ...], dtype: np.dtype[np.generic], stored: memoryview) -> NDArray[Any]:
    expected = math.prod(shape) * dtype.itemsize
    if len(stored) != expected:
        raise ModelFileError(
            f"damaged .tflite: tensor {index} of shape {shape} {dtype} needs {expected} bytes, "
            f"its buffer has {len(stored)}"
        )
    return np.frombuffer(stored, dtype=dtype).reshape(shape)


def _quantization(table: Table | None) -> Quantization | None:
    if table is None:
        return None
    _claim(table, _UNREAD_OF_QUANTIZATION)
    scales = _claimed(table.vector(QuantizationField.SCALE, 4))
    zero_points = _claimed(table.vector(QuantizationField.ZERO_POINT, 8))
    if scales is None or scales.length == 0:
        return None
    if zero_points is not None and zero_points.length not in (0, 1, scales.length):
        raise ModelFileError(f"damaged .tflite: {scales.length} scales have {zero_points.length} zero points")
    return Quantization(scales, zero_points, table.i32(QuantizationField.QUANTIZED_DIMENSION))


def _operator_name(code: Table) -> str:
    # Old writers fill only the one-byte code, new ones both; the larger one is right (schema.fbs, OperatorCode).
    _claim(code, _UNREAD_OF_OPERATOR_CODE)
    number = max(code.u8(OperatorCodeField.DEPRECATED_BUILTIN_CODE), code.i32(OperatorCodeField.BUILTIN_CODE))
    if number >= len(schema.OPERATOR_NAMES):
        return f"BUILTIN_{number}"
    if schema.OPERATOR_NAMES[number] != "CUSTOM":
        return schema.OPERATOR_NAMES[number]
    name = code.text(OperatorCodeField.CUSTOM_CODE)
    if len(name) > _CUSTOM_NAME_MAX or not name.isprintable():
        raise ModelFileError("damaged .tflite: a custom operator has a name that cannot be shown")
    return f"CUSTOM:{name}"


def _operator(index: int, table: Table, names: list[str]) -> Operator:
    code = table.u32(OperatorField.OPCODE_INDEX)
    if code >= len(names):
        raise ModelFileError(f"damaged .tflite: operator {index} names operator code {code} of {len(names)}")
    kind = names[code]
    _claim(table, _UNREAD_OF_OPERATOR)
    options, options_type = table.table(OperatorField.OPTIONS), table.u8(OperatorField.OPTIONS_TYPE)
    if options is not None and options_type != schema.OPTIONS_TYPES.get(kind, options_type):
        raise ModelFileError(f"damaged .tflite: operator {index} ({kind}) has the options of another kind")
    if options is not None and options_type in _OPTIONS_WITH_A_LIST:
        _claimed(options.vector(0, 4))
    values = {
        name: default if options is None else (options.u8(i, default) if width == 1 else options.i32(i, default))
        for i, (name, width, default) in enumerate(schema.OPTIONS.get(kind, ()))
    }
    return Operator(index, kind, table.ints(OperatorField.INPUTS), table.ints(OperatorField.OUTPUTS), values)


def _check_references(graph: Graph) -> None:
    count = len(graph.tensors)
    written = set(graph.inputs)
    computed = {i for operator in graph.operators for i in operator.outputs}
    for what, indices in (("inputs", graph.inputs), ("outputs", graph.outputs)):
        _check_indices(f"the graph's {what}", indices, 0, count)
    for operator in graph.operators:
        where = f"operator {operator.index} ({operator.kind})"
        _check_indices(f"what {where} writes", operator.outputs, 0, count)
        if operator.inputs:
            _check_indices(f"what {where} reads", operator.inputs, -1, count)
        for i in operator.inputs:
            if i in computed and i not in written:
                raise ModelFileError(f"damaged .tflite: {where} reads tensor {i}, which is only computed later")
        for i in operator.outputs:
            if i in written or graph.tensors[i].is_constant:
                raise ModelFileError(f"damaged .tflite: {where} overwrites tensor {i}")
            written.add(i)


def _check_indices(what: str, indices: tuple[int, ...], least: int, count: int) -> None:
    if not indices:
        raise ModelFileError(f"damaged .tflite: {what} is not said")
    wrong = next((i for i in indices if not least <= i < count), None)
    if wrong is not None:
        raise ModelFileError(f"damaged .tflite: {what} includes tensor {wrong} of {count}")
