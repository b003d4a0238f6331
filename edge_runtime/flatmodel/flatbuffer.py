"""Reads FlatBuffers tables in place, with every access checked against the file's bounds.

The binary format: an unsigned 32-bit offset points forward from where it stands; a table begins with a signed offset
back to its vtable, which lists where in the table each field stands (0 = absent); a vector begins with its length.
Little-endian throughout. (FlatBuffers internals, "FlatBuffer Binary Format".)
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np

from edge_runtime.errors import ModelFileError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Reader", "Table", "Vector"]

_U16 = struct.Struct("<H")
_U32 = struct.Struct("<I")
_I32 = struct.Struct("<i")
_U64 = struct.Struct("<Q")


class Reader:
    """The bytes of a flatbuffer with bounds-checked access; positions are bytes from the start of the file."""

    __slots__ = ("data", "size")

    def __init__(self, data: bytes | bytearray | memoryview) -> None:
        self.data = memoryview(data)
        self.size = len(self.data)

    def _unpack(self, kind: struct.Struct, position: int) -> int:
        # A negative position would count from the end of the buffer: refuse it like one beyond the end.
        if position < 0 or position + kind.size > self.size:
            raise ModelFileError(f"damaged .tflite: position {position} lies outside the file's {self.size} bytes")
        value: int = kind.unpack_from(self.data, position)[0]
        return value

    def u8(self, position: int) -> int:
        """Read an unsigned byte."""
        if not 0 <= position < self.size:
            raise ModelFileError(f"damaged .tflite: position {position} lies outside the file's {self.size} bytes")
        return self.data[position]

    def u16(self, position: int) -> int:
        """Read an unsigned 16-bit integer."""
        return self._unpack(_U16, position)

    def u32(self, position: int) -> int:
        """Read an unsigned 32-bit integer."""
        return self._unpack(_U32, position)

    def i32(self, position: int) -> int:
        """Read a signed 32-bit integer."""
        return self._unpack(_I32, position)

    def u64(self, position: int) -> int:
        """Read an unsigned 64-bit integer."""
        return self._unpack(_U64, position)

    def follow(self, position: int) -> int:
        """Return where the forward offset at `position` points."""
        return position + self.u32(position)

    def root(self) -> Table:
        """Return the root table."""
        return Table(self, self.follow(0))


class Table:
    """One table: access to its fields by number."""

    __slots__ = ("_fields", "_vtable", "position", "reader")

    def __init__(self, reader: Reader, position: int) -> None:
        self.reader = reader
        self.position = position
        self._vtable = position - reader.i32(position)
        self._fields = (reader.u16(self._vtable) - 4) // 2

    def at(self, field: int) -> int | None:
        """Return the position of a field's value, or None where the table does not have it."""
        if field >= self._fields:
            return None
        offset = self.reader.u16(self._vtable + 4 + 2 * field)
        return self.position + offset if offset else None

    def u8(self, field: int, default: int = 0) -> int:
        """Read an unsigned byte; `default` where the table does not have it."""
        position = self.at(field)
        return default if position is None else self.reader.u8(position)

    def i32(self, field: int, default: int = 0) -> int:
        """Read a signed 32-bit integer; `default` where the table does not have it."""
        position = self.at(field)
        return default if position is None else self.reader.i32(position)

    def u32(self, field: int, default: int = 0) -> int:
        """Read an unsigned 32-bit integer; `default` where the table does not have it."""
        position = self.at(field)
        return default if position is None else self.reader.u32(position)

    def u64(self, field: int, default: int = 0) -> int:
        """Read an unsigned 64-bit integer; `default` where the table does not have it."""
        position = self.at(field)
        return default if position is None else self.reader.u64(position)

    def table(self, field: int) -> Table | None:
        """Return a table field, or None."""
        position = self.at(field)
        return None if position is None else Table(self.reader, self.reader.follow(position))

    def vector(self, field: int, item_size: int) -> Vector | None:
        """Return a vector field of items of `item_size` bytes, or None."""
        position = self.at(field)
        return None if position is None else Vector(self.reader, self.reader.follow(position), item_size)

    def tables(self, field: int) -> list[Table]:
        """Return the tables of a vector of tables; an absent vector is an empty one."""
        vector = self.vector(field, 4)
        if vector is None:
            return []
        return [Table(self.reader, self.reader.follow(vector.start + 4 * i)) for i in range(vector.length)]

    def ints(self, field: int) -> tuple[int, ...]:
        """Return a vector of 32-bit integers; an absent vector is an empty one."""
        vector = self.vector(field, 4)
        return () if vector is None else tuple(vector.view(np.dtype("<i4")).tolist())

    def text(self, field: int) -> str:
        """Return a string field; an absent one is empty."""
        vector = self.vector(field, 1)
        return "" if vector is None else bytes(vector.bytes()).decode("utf-8", errors="replace")


class Vector:
    """One vector of scalars: where its items stand and how many there are."""

    __slots__ = ("item_size", "length", "reader", "start")

    def __init__(self, reader: Reader, position: int, item_size: int) -> None:
        self.reader = reader
        self.length = reader.u32(position)
        self.start = position + 4
        self.item_size = item_size
        if self.start + self.length * item_size > reader.size:
            raise ModelFileError(
                f"damaged .tflite: a list of {self.length} items at {position} runs past the file's {reader.size} "
                "bytes: is the file whole?"
            )

    def bytes(self) -> memoryview:
        """Return the items' bytes, shared with the file."""
        return self.reader.data[self.start : self.start + self.length * self.item_size]

    def view(self, dtype: np.dtype[np.generic]) -> NDArray[np.generic]:
        """Return the items as a numpy array that shares the file's memory."""
        return np.frombuffer(self.reader.data, dtype=dtype, count=self.length, offset=self.start)
