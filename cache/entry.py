"""An entry, and the bytes in which the stores that outlast a process keep it.

=========  ======  =====================================================================
bytes      type    is
=========  ======  =====================================================================
0 to 31            SHA-256 of the key's length, the key, and all that follows here
32 to 39   double  what the value had cost to compute, in s (big-endian, as the next)
40 to 47   double  when it was put, in s since 1970
48 on              the value
=========  ======  =====================================================================

With the key in the digest, a value that lies under another's key shows as well as a flipped bit does.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

__all__ = [
    "HEADER_BYTES",
    "SCHEMA_VERSION",
    "Entry",
    "EntryInfo",
    "Verification",
    "decode",
    "encode",
    "size_of",
    "told",
]

SCHEMA_VERSION = 2
"""Raise this when these bytes change, SQLite's tables, Redis' names, or what the cache puts in values."""

_TIMES = struct.Struct(">dd")
_DIGEST_BYTES = 32
HEADER_BYTES = _DIGEST_BYTES + _TIMES.size
"""Bytes before the value."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A value, and what it had cost."""

    value: bytes
    cost: float = 0.0
    """Time that the value took to compute, in s."""


@dataclass(frozen=True, slots=True)
class EntryInfo:
    """An entry without its value."""

    key: str
    bytes: int
    """Of key and value."""
    cost: float
    """Time that the value took to compute, in s."""
    created: float
    """When it was put, in s since 1970."""
    last_used: float | None
    """When it was put or last read, in s since 1970; None if the store cannot tell."""


@dataclass(frozen=True, slots=True)
class Verification:
    """What a look at all of a store found."""

    store: str
    """The store's name."""
    entries: int
    """Entries read, corrupt ones among them."""
    corrupt: tuple[str, ...]
    """Keys of entries whose checksum does not match."""
    damage: tuple[str, ...] = ()
    """What is wrong with the store itself, one line each."""

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.corrupt and not self.damage


def encode(key: str, entry: Entry, created: float) -> bytes:
    """Return the bytes to keep for an entry that was put at `created` (s since 1970)."""
    body = _TIMES.pack(entry.cost, created) + entry.value
    return _digest(key, body) + body


def decode(key: str, kept: bytes) -> Entry | None:
    """Return the entry that was kept under `key`, or None if the bytes are not what was put there."""
    digest, body = kept[:_DIGEST_BYTES], kept[_DIGEST_BYTES:]
    if len(body) < _TIMES.size or digest != _digest(key, body):
        return None
    cost, _created = _TIMES.unpack_from(body)
    return Entry(body[_TIMES.size :], cost)


def told(key: str, header: bytes, kept_bytes: int, last_used: float | None) -> EntryInfo:
    """Describe an entry from its first `HEADER_BYTES` and the number of all its bytes, unchecked."""
    cost, created = _TIMES.unpack(header[_DIGEST_BYTES:].ljust(_TIMES.size, b"\0"))
    return EntryInfo(key, len(key.encode()) + max(kept_bytes - HEADER_BYTES, 0), cost, created, last_used)


def size_of(key: str, value: bytes) -> int:
    """Count the bytes by which limits and statistics weigh an entry."""
    return len(key.encode()) + len(value)


def _digest(key: str, body: bytes) -> bytes:
    name = key.encode()
    return hashlib.sha256(len(name).to_bytes(4, "big") + name + body).digest()
