"""Reads FlatBuffers tables in place, with every access checked against the file's bounds.

The binary format: an unsigned 32-bit offset points forward from where it stands; a table begins with a signed offset
back to its vtable, which lists where in the table each field stands (0 = absent); a vector begins with its length.
Little-endian throughout. (FlatBuffers internals, "FlatBuffer Binary Format".)

Nothing in the format keeps thousands of entries from pointing to one long list, so that a small file could ask for
terabytes. A reader therefore has a budget: the lists that it turns into Python objects hold together at most four
times the bytes of the file (and 64 KiB more), and never more than 16 MiB; a table in a list counts for 64 bytes.
Constants are not turned into objects, and do not count. With what is made of them (`graph`), reading a file takes at
most 1 MiB and 64 times the file's size, and never more than 300 MiB.
"""

from __future__ import annotations

import struct
from array import array
from typing import TYPE_CHECKING, Final

import numpy as np

from edge_runtime.errors import ModelFileError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Reader", "Table", "Vector"]

_U8 = struct.Struct("<B")
_U16 = struct.Struct("<H")
_U32 = struct.Struct("<I")
_I32 = struct.Struct("<i")
_U64 = struct.Struct("<Q")

# The budget of a reader, in bytes. Files of real networks need an eighth of it at most.
_BUDGET_PER_BYTE: Final = 4
_BUDGET_LEAST: Final = 1 << 16
_BUDGET_MOST: Final = 1 << 24
_TABLE_COST: Final = 64


class Reader:
    """The bytes of a flatbuffer with bounds-checked access; positions are bytes from the start of the file."""

    __slots__ = ("_budget", "_claims", "_vtables", "data", "size")

    def __init__(self, data: bytes | bytearray | memoryview) -> None:
        self.data = memoryview(data)
        self.size = len(self.data)
        self._budget = min(_BUDGET_PER_BYTE * self.size + _BUDGET_LEAST, _BUDGET_MOST)
        self._claims = array("q")
        self._vtables: dict[int, tuple[int, ...]] = {}

    def unpack(self, kind: struct.Struct, position: int) -> int:
        """Read one number."""
        # A negative position would count from the end of the buffer: refuse it like one beyond the end.
        if position < 0 or position + kind.size > self.size:
            raise ModelFileError(f"damaged .tflite: position {position} lies outside the file's {self.size} bytes")
        value: int = kind.unpack_from(self.data, position)[0]
        return value

    def follow(self, position: int) -> int:
        """Return where the forward offset at `position` points."""
        return position + self.unpack(_U32, position)

    def root(self) -> Table:
        """Return the root table."""
        return Table(self, self.follow(0))

    def charge(self, size: int) -> None:
        """Account for `size` bytes that are about to be turned into objects.

        Raises
        ------
        ModelFileError
            The budget is used up: parts of the file are read over and over.
        """
        self._budget -= size
        if self._budget < 0:
            raise ModelFileError("damaged .tflite: its lists hold far more than the file: they point to one another")

    def claim(self, begin: int, end: int) -> None:
        """Note that a table, vtable or vector takes up the bytes from `begin` to `end`."""
        self._claims.extend((begin, end))

    def claims(self) -> NDArray[np.int64]:
        """Return begin and end of every table, vtable and vector read so far, `(n, 2) int64`; a vtable once."""
        return np.array(self._claims, dtype=np.int64).reshape(-1, 2)

    def vtable(self, position: int) -> tuple[int, ...]:
        """Return the vtable at `position`: the size of its tables, then where in them each field stands (0: absent)."""
        known = self._vtables.get(position)
        if known is not None:
            return known
        size = self.unpack(_U16, position)
        if size < 4 or size % 2 or position + size > self.size:
            raise ModelFileError(f"damaged .tflite: at {position} should be a vtable")
        self.charge(size)
        self.claim(position, position + size)
        fields = struct.unpack_from(f"<{size // 2 - 1}H", self.data, position + 2)
        if fields[0] < 4 or any(0 < offset < 4 or offset >= fields[0] for offset in fields[1:]):
            raise ModelFileError(f"damaged .tflite: the vtable at {position} has fields outside of its tables")
        self._vtables[position] = fields
        return fields


class Table:
    """One table: access to its fields by number."""

    __slots__ = ("_vtable", "position", "reader")

    def __init__(self, reader: Reader, position: int) -> None:
        self.reader = reader
        self.position = position
        self._vtable = reader.vtable(position - reader.unpack(_I32, position))
        end = position + self._vtable[0]
        if end > reader.size:
            raise ModelFileError(f"damaged .tflite: the table at {position} runs past the file's {reader.size} bytes")
        reader.claim(position, end)

    def at(self, field: int, size: int = 4) -> int | None:
        """Return the position of a field's value of `size` bytes, or None where the table does not have it."""
        if field + 1 >= len(self._vtable):
            return None
        offset = self._vtable[field + 1]
        if not offset:
            return None
        if offset + size > self._vtable[0]:
            raise ModelFileError(f"damaged .tflite: field {field} of the table at {self.position} lies outside of it")
        return self.position + offset

    def u8(self, field: int, default: int = 0) -> int:
        """Read an unsigned byte; `default` where the table does not have it."""
        position = self.at(field, 1)
        return default if position is None else self.reader.unpack(_U8, position)

    def i32(self, field: int, default: int = 0) -> int:
        """Read a signed 32-bit integer; `default` where the table does not have it."""
        position = self.at(field)
        return default if position is None else self.reader.unpack(_I32, position)

    def u32(self, field: int, default: int = 0) -> int:
        """Read an unsigned 32-bit integer; `default` where the table does not have it."""
        position = self.at(field)
        return default if position is None else self.reader.unpack(_U32, position)

    def u64(self, field: int, default: int = 0) -> int:
        """Read an unsigned 64-bit integer; `default` where the table does not have it."""
        position = self.at(field, 8)
        return default if position is None else self.reader.unpack(_U64, position)

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
        vector.claim()
        self.reader.charge(_TABLE_COST * vector.length)
        return [Table(self.reader, self.reader.follow(vector.start + 4 * i)) for i in range(vector.length)]

    def ints(self, field: int) -> tuple[int, ...]:
        """Return a vector of 32-bit integers; an absent vector is an empty one."""
        vector = self.vector(field, 4)
        return () if vector is None else vector.claim().ints()

    def text(self, field: int) -> str:
        """Return a string field; an absent one is empty."""
        vector = self.vector(field, 1)
        return "" if vector is None else vector.claim().copy().decode("utf-8", errors="replace")


class Vector:
    """One vector of scalars: where its items stand and how many there are."""

    __slots__ = ("item_size", "length", "reader", "start")

    def __init__(self, reader: Reader, position: int, item_size: int) -> None:
        self.reader = reader
        self.length = reader.unpack(_U32, position)
        self.start = position + 4
        self.item_size = item_size
        if self.end > reader.size:
            raise ModelFileError(
                f"damaged .tflite: a list of {self.length} items at {position} runs past the file's {reader.size} "
                "bytes: is the file whole?"
            )

    @property
    def end(self) -> int:
        """Position behind the last item."""
        return self.start + self.length * self.item_size

    def claim(self) -> Vector:
        """Note that the file has these bytes for this vector (`Reader.claims`); return it."""
        self.reader.claim(self.start - 4, self.end)
        return self

    def raw(self) -> memoryview:
        """Return the items' bytes, shared with the file."""
        return self.reader.data[self.start : self.end]

    def copy(self) -> bytes:
        """Return a copy of the items' bytes."""
        self.reader.charge(self.length * self.item_size)
        return bytes(self.raw())

    def ints(self) -> tuple[int, ...]:
        """Return the items, 32-bit integers."""
        self.reader.charge(self.length * self.item_size)
        return struct.unpack_from(f"<{self.length}i", self.reader.data, self.start)

    def view(self, dtype: np.dtype[np.generic]) -> NDArray[np.generic]:
        """Return the items as a numpy array that shares the file's memory."""
        return np.frombuffer(self.reader.data, dtype=dtype, count=self.length, offset=self.start)
