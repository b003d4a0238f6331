"""The layout of a normalised file: metadata first, then one constant after the other, each 16-byte aligned.

An entry in the file's metadata says so and tells where the constants begin. The gaps between constants are zero, so
that equal models have equal bytes. Behind the constants may lie a tail that the flatbuffer knows nothing of: the zip of
labels and other files that TFLite metadata appends to a model.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from edge_runtime.errors import ModelFileError
from edge_runtime.flatmodel.flatbuffer import Reader
from edge_runtime.flatmodel.schema import BufferField, MetadataField, ModelField

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = [
    "LAYOUT_BYTES",
    "LAYOUT_ENTRY",
    "Layout",
    "check_apart",
    "constant_span",
    "data_fields",
    "place_constants",
    "read_layout",
]

LAYOUT_ENTRY: Final = "capnn_layout"
_FIELDS: Final = struct.Struct("<III")  # layout version, start of the constants, bytes of the tail
LAYOUT_BYTES: Final = _FIELDS.size
_VERSION: Final = 2
_ALIGNMENT: Final = 16
_SIZE_MAX: Final = (1 << 31) - 1


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the constants begin, which is where the metadata ends, and how many bytes follow the last one."""

    constants_start: int
    tail: int


def constant_span(cursor: int, size: int) -> tuple[int, int]:
    """Return where a constant of `size` bytes begins that is placed after `cursor`, and where it ends.

    Its length stands right before it.
    """
    start = -(-(cursor + 4) // _ALIGNMENT) * _ALIGNMENT
    return start, start + size


def data_fields(content: bytes | bytearray | memoryview) -> dict[int, int]:
    """Return buffer index -> position of the field that points to the buffer's bytes."""
    tables = Reader(content).root().tables(ModelField.BUFFERS)
    return {index: at for index, table in enumerate(tables) if (at := table.at(BufferField.DATA)) is not None}


def read_layout(content: bytes | bytearray | memoryview) -> Layout:
    """Return the layout of a normalised file.

    Raises
    ------
    ModelFileError
        The file is not normalised, or by another version of this layout.
    """
    at = _entry_position(content)
    if at is None:
        raise ModelFileError("not laid out for slicing: normalise it first (a profile's base.tflite is)")
    version, start, tail = _FIELDS.unpack_from(content, at)
    if version != _VERSION or not at + LAYOUT_BYTES <= start <= len(content) - tail:
        raise ModelFileError(
            f"laid out for slicing by another version ({version}, this is {_VERSION}): profile the model again"
        )
    return Layout(start, tail)


def check_apart(claims: NDArray[np.int64], changed: NDArray[np.int64], layout: Layout) -> None:
    """Check that a cut can change parts of the metadata without changing anything else.

    Parameters
    ----------
    claims
        `(n, 2)`: begin and end of all that the metadata consists of (`Graph.claims`).
    changed
        `(m, 2)`: begin and end of what a cut may change; each is part of one claim.

    Raises
    ------
    ModelFileError
        Two pieces of metadata share bytes of `changed`, or some lie among the constants.
    """
    begins, ends = np.sort(claims[:, 0]), np.sort(claims[:, 1])
    changed = changed[changed[:, 0] < changed[:, 1]]
    # Claims that begin before a change ends, less those that end before it begins.
    sharing = np.searchsorted(begins, changed[:, 1], "left") - np.searchsorted(ends, changed[:, 0], "right")
    if len(ends) and ends[-1] > layout.constants_start:
        raise ModelFileError("damaged .tflite: some of its metadata lies among the constants")
    if (sharing != 1).any():
        at = changed[np.argmax(sharing != 1), 0]
        raise ModelFileError(f"damaged .tflite: pieces of its metadata overlap at position {at}")


def place_constants(metadata: bytearray, constants: Mapping[int, bytes], tail: bytes = b"") -> bytes:
    """Return the whole file.

    `metadata` (complete but for the constants), then `constants` (buffer index -> bytes) in order of index, then
    `tail`, which no part of the flatbuffer refers to.
    """
    start = len(metadata)
    at = _entry_position(metadata)
    if at is None:
        raise ModelFileError("the layout entry is missing")
    _FIELDS.pack_into(metadata, at, _VERSION, start, len(tail))
    fields = data_fields(metadata)
    spans, cursor = {}, start
    for index in sorted(constants):
        spans[index] = constant_span(cursor, len(constants[index]))
        cursor = spans[index][1]
    if cursor > _SIZE_MAX:
        raise ModelFileError("its constants take more than 2 GiB, which no .tflite file holds")
    content = bytearray(cursor + len(tail))
    content[:start] = metadata
    for index, (begin, end) in spans.items():
        struct.pack_into("<I", content, begin - 4, end - begin)
        struct.pack_into("<I", content, fields[index], begin - 4 - fields[index])
        content[begin:end] = constants[index]
    content[cursor:] = tail
    return bytes(content)


def _entry_position(content: bytes | bytearray | memoryview) -> int | None:
    root = Reader(content).root()
    for entry in root.tables(ModelField.METADATA):
        if entry.text(MetadataField.NAME) == LAYOUT_ENTRY:
            buffers = root.tables(ModelField.BUFFERS)
            index = entry.u32(MetadataField.BUFFER)
            data = buffers[index].vector(BufferField.DATA, 1) if index < len(buffers) else None
            if data is not None and data.length == LAYOUT_BYTES:
                return data.start
    return None
