"""Rows of figures that survive an interruption: what was computed once is read back.

A table is a file of lines, one for each key: `{"key": ..., "rows": [...]}`, appended and on the disk before it counts.
Power may fail within a line: the last one, where it has no end, is cut off at opening.
"""

from __future__ import annotations

import json
import math
import os
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from edge_runtime.durable import sync_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

__all__ = ["ROW", "TABLE", "Row", "Store", "StoreError", "Value", "columns_of", "select"]

Value: TypeAlias = "str | int | float | bool | None"
Row: TypeAlias = "dict[str, Value]"

TABLE: Final = "table"
"""The field of a row that names its table; it is in no file."""

ROW: Final = "row"
"""The field of a row that holds its number in the table, from 1."""


class StoreError(ValueError):
    """A file of rows is damaged, or a row holds what cannot be kept."""


class Store:
    """The tables of one folder. For one process at a time.

    Parameters
    ----------
    folder
        Tables are `rows/TABLE.jsonl` in it.

    Raises
    ------
    StoreError
        A file is damaged, but for its end.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "rows"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._known = {path.stem: _read(path) for path in sorted(self._folder.glob("*.jsonl"))}
        self._asked: dict[str, dict[str, list[Row]]] = {}

    def has(self, table: str, key: str) -> bool:
        """Say whether the rows of `key` were computed before."""
        return key in self._known.get(table, {})

    def once(self, table: str, key: str, compute: Callable[[], Sequence[Row]]) -> list[Row]:
        """Return the rows of `key`: what was computed before, or else what `compute` gives, kept from now on.

        Each row has two fields more, `TABLE` and `ROW`. Numbers count the rows of a table in the order in which
        they are asked for in this run.

        Raises
        ------
        StoreError
            A row holds what is no `Value`.
        """
        asked = self._asked.setdefault(table, {})
        if key not in asked:
            if not self.has(table, key):
                self.keep(table, key, compute())
            before = sum(map(len, asked.values()))
            rows = self._known[table][key]
            asked[key] = [{TABLE: table, ROW: number, **row} for number, row in enumerate(rows, before + 1)]
        return [dict(row) for row in asked[key]]

    def table(self, table: str) -> list[Row]:
        """Return all rows of a table that were asked for in this run, by their numbers."""
        return [dict(row) for rows in self._asked.get(table, {}).values() for row in rows]

    def tables(self) -> list[str]:
        """Return the tables that were asked for in this run, in that order."""
        return list(self._asked)

    def keep(self, table: str, key: str, rows: Iterable[Row]) -> None:
        """Keep the rows of `key`, which was not there yet; they are on the disk when this returns.

        Raises
        ------
        StoreError
            A row holds what is no `Value`.
        """
        kept = [_checked(row, table) for row in rows]
        line = json.dumps({"key": key, "rows": kept}, ensure_ascii=False, allow_nan=False) + "\n"
        path = self._folder / f"{table}.jsonl"
        is_new = not path.exists()
        with path.open("ab") as file:
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())
        if is_new:
            sync_folder(self._folder)
        self._known.setdefault(table, {})[key] = kept


def columns_of(rows: Iterable[Row]) -> list[str]:
    """Return the names of the rows' fields without `TABLE`, in the order in which they first come up."""
    return list(dict.fromkeys(name for row in rows for name in row if name != TABLE))


def select(rows: Iterable[Row], **wanted: Value) -> list[Row]:
    """Return the rows whose fields are as `wanted`."""
    return [row for row in rows if all(row[name] == value for name, value in wanted.items())]


def _checked(row: Row, table: str) -> Row:
    for name, value in row.items():
        if name in (TABLE, ROW):
            raise StoreError(f"table {table}: '{name}' is a name that rows get by themselves: choose another")
        is_endless = isinstance(value, float) and not math.isfinite(value)
        if is_endless or not isinstance(value, (str, int, float, bool, type(None))):
            raise StoreError(f"table {table}: {name} is {value!r}: a row holds text, finite numbers, truth or None")
    return row


def _read(path: Path) -> dict[str, list[Row]]:
    """Return key -> rows; cut off an end that was not written whole."""
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(path, whole)
    known: dict[str, list[Row]] = {}
    number = 0
    try:
        for number, line in enumerate(content[:whole].splitlines(), 1):  # noqa: B007 - the error below tells it
            entry: dict[str, Any] = json.loads(line)
            known[entry["key"]] = entry["rows"]
    except (ValueError, KeyError, TypeError):
        raise StoreError(f"{path}: line {number} is damaged: remove the line, or start again with --restart") from None
    return known
