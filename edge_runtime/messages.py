"""Messages as bytes: maps of plain values in msgpack, with every field checked as it is read."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeVar

import msgpack

from edge_runtime.errors import MessageError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["field", "pack", "unpack"]

_T = TypeVar("_T")


def pack(fields: Mapping[str, Any]) -> bytes:
    """Encode a message's fields as msgpack."""
    return bytes(msgpack.packb(dict(fields), use_bin_type=True))


def unpack(content: bytes, *, limit: int = 1 << 30) -> dict[str, Any]:
    """Decode msgpack to a map.

    Raises
    ------
    MessageError
        The bytes are no msgpack map, hold lengths beyond `limit` bytes, or nest deeper than msgpack allows.
    """
    if len(content) > limit:
        raise MessageError(f"message of {len(content)} bytes is over the limit of {limit}")
    try:
        fields = msgpack.unpackb(content, raw=False, strict_map_key=True)
    except (ValueError, msgpack.UnpackException) as error:
        raise MessageError(f"message is not valid msgpack: {error or type(error).__name__}") from error
    if not isinstance(fields, dict):
        raise MessageError(f"message is a msgpack {type(fields).__name__}, not a map")
    return fields


def field(fields: Mapping[str, Any], name: str, kind: type[_T] | tuple[type, ...], where: str) -> Any:
    """Return `fields[name]` after checking its type; an int passes for a float, a bool for neither."""
    if name not in fields:
        raise MessageError(f"{where}: field '{name}' is missing")
    value = fields[name]
    kinds = kind if isinstance(kind, tuple) else (kind,)
    if float in kinds and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        expected = " or ".join(k.__name__ for k in kinds)
        raise MessageError(f"{where}: field '{name}' is a {type(value).__name__}, expected {expected}")
    if isinstance(value, float) and not math.isfinite(value):
        raise MessageError(f"{where}: field '{name}' is {value}, expected a finite number")
    return value
