"""Requests of a fleet, one row each, from a file of JSON lines or a Parquet table, read as a stream.

A row has `device` (a text), `usage` (class name -> how often it comes up; in Parquet a map, a struct, or JSON in a
text) and, where it wants other than the batch's defaults, `variant`, `epsilon`, `guarantee`, `delta` and `objective`.
A field of any other name is an error: with a misspelt one, a cut would promise something else than was meant.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from cloud_pruner.asked import Asked
from cloud_pruner.errors import RequestError
from cloud_pruner.requests import PruneRequest
from edge_runtime.errors import MessageError
from edge_runtime.messages import field

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cloud_pruner.profile import Profile

__all__ = ["BadRow", "BatchDefaults", "BatchRow", "check_requests_file", "read_requests"]

_WISHES: Final = {"variant": str, "epsilon": float, "guarantee": str, "delta": float, "objective": str}
_FIELDS: Final = ("device", "usage", *_WISHES)
_DEVICE_LETTERS_MAX: Final = 256
_LINE_BYTES_MAX: Final = 1 << 20
_SHOWN_LETTERS: Final = 300
_ROWS_AT_ONCE: Final = 4096


@dataclass(frozen=True, slots=True)
class BatchDefaults:
    """What holds for rows that do not say; fields as of `PruneRequest`, and raises as that does."""

    variant: str = "L"
    epsilon: float = 0.03
    guarantee: str = "certified"
    delta: float = 0.1
    objective: str = "size"

    def __post_init__(self) -> None:
        PruneRequest({}, **dataclasses.asdict(self))


@dataclass(frozen=True, slots=True, eq=False)
class BatchRow:
    """A request: its number in the file (lines, or rows of a table; from 1), whose it is, and what it asks for."""

    number: int
    device: str
    asked: Asked


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that is no request: its number, the beginning of it, and in one line what is wrong."""

    number: int
    content: str
    error: str


def check_requests_file(path: Path) -> None:
    """Raise RequestError for a file of neither kind, OSError for one that cannot be read."""
    if path.suffix not in _READERS:
        raise RequestError(f"{path}: is neither .jsonl nor .parquet: give JSON lines or a Parquet table")
    with path.open("rb") as file:
        file.read(1)


def read_requests(path: Path, profile: Profile, defaults: BatchDefaults) -> Iterator[BatchRow | BadRow]:
    """Yield the rows of a file, in its order.

    Raises
    ------
    RequestError
        It is of neither kind, or damaged, or a table without the columns that it takes.
    OSError
        It cannot be read.
    """
    check_requests_file(path)
    for number, content in _READERS[path.suffix](path):
        yield _row(number, content, path.name, profile, defaults)


def _row(
    number: int, content: bytes | dict[str, Any], file: str, profile: Profile, defaults: BatchDefaults
) -> BatchRow | BadRow:
    try:
        device, request = _request(content if isinstance(content, dict) else _parsed(content), defaults)
        return BatchRow(number, device, Asked.of(profile, request))
    except (RequestError, MessageError, OverflowError) as error:
        return BadRow(number, _shown(content), f"{file}:{number}: {error}")


def _json_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield each line that is not empty; of one that is too long, its beginning."""
    with path.open("rb") as file:
        number = 0
        while line := file.readline(_LINE_BYTES_MAX + 1):
            number += 1
            rest = line
            while len(rest) > _LINE_BYTES_MAX and not rest.endswith(b"\n"):
                rest = file.readline(_LINE_BYTES_MAX + 1)
            if line.strip():
                yield number, line


def _table_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    import pyarrow as pa  # noqa: PLC0415 - takes a while to load, and JSON lines go without
    from pyarrow import parquet  # noqa: PLC0415 - likewise

    try:
        with parquet.ParquetFile(path) as table:
            names = table.schema_arrow.names
            _check_names(names, f"{path}: column")
            for needed in ("device", "usage"):
                if needed not in names:
                    raise RequestError(f"{path}: has no column '{needed}': a request has {', '.join(_FIELDS)}")
            number = 0
            for rows in table.iter_batches(_ROWS_AT_ONCE):
                for row in rows.to_pylist():
                    number += 1
                    yield number, {name: value for name, value in row.items() if value is not None}
    except (pa.ArrowException, OSError) as error:
        why = str(error).splitlines()[0]
        raise RequestError(f"{path}: cannot be read as a Parquet table ({why}): write it anew") from error


_READERS: Final[dict[str, Callable[[Path], Iterator[tuple[int, bytes | dict[str, Any]]]]]] = {
    ".jsonl": _json_lines,
    ".parquet": _table_rows,
}


def _parsed(line: bytes) -> dict[str, Any]:
    if len(line) > _LINE_BYTES_MAX:
        raise RequestError(f"line is longer than {_LINE_BYTES_MAX} bytes: give class names and weights only")
    fields = _json(line)
    if not isinstance(fields, dict):
        raise RequestError(f"line is a JSON {type(fields).__name__}, not an object")
    return fields


def _json(text: bytes | str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        if isinstance(error, RequestError):
            raise
        raise RequestError(f"is not valid JSON: {error}") from error


def _object(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    """Return a mapping of pairs; of two values under one name neither is to be preferred."""
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise RequestError(f"'{twice}' is named twice")
    return made


def _request(fields: dict[str, Any], defaults: BatchDefaults) -> tuple[str, PruneRequest]:
    _check_names(fields, "field")
    device: str = field(fields, "device", str, "request")
    if not 0 < len(device) <= _DEVICE_LETTERS_MAX or not device.isprintable():
        raise RequestError(f"field 'device' is {device!r:.80}, expected 1 to {_DEVICE_LETTERS_MAX} printable letters")
    wishes = {
        name: field(fields, name, kind, "request") for name, kind in _WISHES.items() if fields.get(name) is not None
    }
    return device, PruneRequest(_usage(fields), **{**dataclasses.asdict(defaults), **wishes})


def _usage(fields: dict[str, Any]) -> dict[str, float]:
    value = fields.get("usage")
    if isinstance(value, str):
        value = _json(value)
    if isinstance(value, list) and all(isinstance(pair, tuple) for pair in value):
        value = _object(value)  # a map, as Parquet gives it
    usage = field({**fields, "usage": value} if "usage" in fields else fields, "usage", dict, "request")
    named = {name: weight for name, weight in usage.items() if weight is not None}  # a struct has all names in each row
    return {str(name): field(named, name, float, "request: usage") for name in named}


def _check_names(names: Any, what: str) -> None:
    unknown = [str(name) for name in names if name not in _FIELDS]
    if unknown:
        raise RequestError(f"{what} '{unknown[0]}' is unknown: a request has {', '.join(_FIELDS)}")


def _shown(content: bytes | dict[str, Any]) -> str:
    text = content.decode(errors="replace").rstrip() if isinstance(content, bytes) else str(content)
    return text[:_SHOWN_LETTERS]
