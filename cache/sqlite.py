"""The store in a SQLite file: outlives the process, and is shared by the processes of one machine.

One row per entry, with the SHA-256 of its key and value: a row that does not match is deleted and counted, never
returned. The file is in write-ahead-log mode (readers never wait for a writer), and every put is on the disk when it
returns. Two pragmas say whose file it is and which schema it has; a file of another kind or version is refused at
opening and left as it is.

`last_used` is a count of uses, not a clock, since clocks step back. What is read is remembered in memory and written
with the next put: a read never waits for the disk. Only the order of eviction depends on it.

Source: SQLite's documentation of WAL mode, of `PRAGMA application_id` and `user_version`, and of its result codes.
"""
# ruff: noqa: D102 - the seam, store.py, describes the methods that a store must have

from __future__ import annotations

import hashlib
import sqlite3
import threading
import time
from collections import deque
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, ClassVar

from cache.errors import BudgetError, StoreError
from cache.statistics import StoreStatistics
from cache.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["SCHEMA_VERSION", "SqliteStore"]

SCHEMA_VERSION = 1
"""Raise this when the tables change, or the meaning of the bytes that the cache puts in them."""

_APPLICATION_ID = int.from_bytes(b"capn", "big")
_BUSY_SECONDS = 10.0  # how long to wait for another process's write, which takes milliseconds
_REMEMBERED_USES = 4096

# Triggers keep the totals, so that no statement can forget to; a sum over all rows would grow with the file.
_TABLES = """
CREATE TABLE IF NOT EXISTS entries (
    key TEXT PRIMARY KEY NOT NULL,
    value BLOB NOT NULL,
    sha256 BLOB NOT NULL,
    created REAL NOT NULL,      -- seconds since 1970
    last_used INTEGER NOT NULL  -- the larger, the later
);
CREATE INDEX IF NOT EXISTS entries_by_use ON entries (last_used);
CREATE TABLE IF NOT EXISTS totals (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    entries INTEGER NOT NULL,
    bytes INTEGER NOT NULL
);
INSERT OR IGNORE INTO totals VALUES (1, 0, 0);
CREATE TRIGGER IF NOT EXISTS inserted AFTER INSERT ON entries BEGIN
    UPDATE totals SET entries = entries + 1, bytes = bytes + length(new.key) + length(new.value);
END;
CREATE TRIGGER IF NOT EXISTS replaced AFTER UPDATE OF value ON entries BEGIN
    UPDATE totals SET bytes = bytes + length(new.value) - length(old.value);
END;
CREATE TRIGGER IF NOT EXISTS deleted AFTER DELETE ON entries BEGIN
    UPDATE totals SET entries = entries - 1, bytes = bytes - length(old.key) - length(old.value);
END;
"""
_PUT = """
INSERT INTO entries VALUES (?, ?, ?, ?, (SELECT ifnull(max(last_used), 0) + 1 FROM entries))
ON CONFLICT (key) DO UPDATE SET
    value = excluded.value, sha256 = excluded.sha256, created = excluded.created, last_used = excluded.last_used
"""
# The casts keep damage in a row's type bytes from reaching Python as text that may not decode.
_GET = "SELECT CAST(value AS BLOB), CAST(sha256 AS BLOB) FROM entries WHERE key = ?"
_TOUCH = "UPDATE entries SET last_used = (SELECT max(last_used) + 1 FROM entries) WHERE key = ?"
_EVICT = "DELETE FROM entries WHERE last_used = (SELECT min(last_used) FROM entries)"
# Only the damaged row itself: another process may have put a good one in its place.
_DROP = "DELETE FROM entries WHERE key = ? AND CAST(value AS BLOB) = ? AND CAST(sha256 AS BLOB) = ?"


class SqliteStore(Store):
    """Keep entries in a SQLite file.

    Several processes may have the same file open, each with a store of its own: open it after a fork, not before.
    Threads take turns on one connection.

    Parameters
    ----------
    path
        The file; it is created if it does not exist, its folder is not. It must be on a local disk, as WAL mode
        demands.
    max_bytes
        Limit on the bytes of keys and values held, least recently used evicted first; None for no limit. The file
        comes out somewhat larger, and does not shrink: room that was freed is used again.

    Raises
    ------
    BudgetError
        If `max_bytes` is not positive.
    StoreError
        If the file cannot be opened or created, is damaged, is no SQLite file, or one of another kind or schema
        version.
    """

    name: ClassVar[str] = "sqlite"

    def __init__(self, path: Path, *, max_bytes: int | None = None) -> None:
        if max_bytes is not None and max_bytes <= 0:
            raise BudgetError(f"{path}: the limit is {max_bytes} bytes: give a positive number, or none for no limit")
        self.path = path
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._uses: deque[str] = deque(maxlen=_REMEMBERED_USES)
        self._hits = self._misses = self._evictions = self._corrupt = self._faults = 0
        self._closed = False
        try:
            self._connection = _open(path)
        except sqlite3.Error as error:
            raise _explained(path, error) from error

    def get(self, key: str) -> bytes | None:
        with self._database() as database:
            row = database.execute(_GET, (key,)).fetchone()
            if row is None:
                self._misses += 1
                return None
            value, checksum = row
            if checksum != _checksum(key, value):
                self._misses += 1
                self._corrupt += 1
                database.execute(_DROP, (key, value, checksum))
                return None
            self._hits += 1
        self.touch(key)
        return bytes(value)

    def put(self, key: str, value: bytes) -> None:
        if self._max_bytes is not None and len(key) + len(value) > self._max_bytes:
            self.delete(key)
            return
        with self._database() as database:
            evicted = 0
            with database:
                database.execute("BEGIN IMMEDIATE")
                self._write_uses(database)
                database.execute(_PUT, (key, value, _checksum(key, value), time.time()))
                while self._max_bytes is not None and _totals(database)[1] > self._max_bytes:
                    dropped = database.execute(_EVICT).rowcount
                    if not dropped:  # only damaged totals come here; they must not hold the service for ever
                        break
                    evicted += dropped
            self._evictions += evicted

    def touch(self, key: str) -> None:
        self._uses.append(key)

    def delete(self, key: str) -> None:
        with self._database() as database:
            database.execute("DELETE FROM entries WHERE key = ?", (key,))

    def clear(self) -> None:
        with self._database() as database:
            database.execute("DELETE FROM entries")

    def keys(self) -> list[str]:
        with self._database() as database:
            return [key for (key,) in database.execute("SELECT key FROM entries")]

    def __len__(self) -> int:
        with self._database() as database:
            return _totals(database)[0]

    def statistics(self) -> tuple[StoreStatistics, ...]:
        entries: int | None = None
        size: int | None = None
        # A service shows its statistics above all when something is wrong: the counts do not depend on the disk.
        with suppress(StoreError), self._database() as database:
            entries, size = _totals(database)
        return (
            StoreStatistics(
                name=self.name,
                entries=entries,
                bytes=size,
                hits=self._hits,
                misses=self._misses,
                evictions=self._evictions,
                corrupt=self._corrupt,
                faults=self._faults,
            ),
        )

    def close(self) -> None:
        if self._closed:
            return
        # The order of use is a hint; a disk that will not take it must not keep the store from closing.
        with suppress(StoreError), self._database() as database, database:
            database.execute("BEGIN IMMEDIATE")
            self._write_uses(database)
        with self._lock:
            self._closed = True
            self._connection.close()

    @contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        """Give the connection to this thread alone, and turn SQLite's errors into ours."""
        with self._lock:
            if self._closed:
                raise StoreError(f"{self.path}: the store is closed: open it anew")
            try:
                yield self._connection
            except sqlite3.Error as error:
                self._faults += 1
                raise _explained(self.path, error) from error

    def _write_uses(self, database: sqlite3.Connection) -> None:
        """Write what was read since the last put, in that order; only here are uses taken from the queue."""
        uses = [self._uses.popleft() for _ in range(len(self._uses))]
        database.executemany(_TOUCH, [(key,) for key in uses])


def _open(path: Path) -> sqlite3.Connection:
    """Open a cache file, or make an empty one.

    Raises
    ------
    StoreError
        If it is a sound SQLite file, but not one of ours or of another schema version.
    sqlite3.Error
        If it is not a sound SQLite file, or cannot be opened.
    """
    connection = sqlite3.connect(path.absolute(), timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        version = _schema_version(connection, path)
        _write_ahead(connection)
        connection.execute("PRAGMA synchronous = FULL")
        if version != SCHEMA_VERSION:
            # Another process may be at it too: the script is one transaction, and finds nothing to do a second time.
            connection.executescript(
                f"BEGIN IMMEDIATE; {_TABLES}"
                f"PRAGMA application_id = {_APPLICATION_ID}; PRAGMA user_version = {SCHEMA_VERSION}; COMMIT"
            )
    except BaseException:
        connection.close()
        raise
    return connection


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Put the file in WAL mode; alone of all statements, this switch does not wait for other processes by itself."""
    deadline = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:  # noqa: PERF203 - few rounds, and each waits
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def _schema_version(connection: sqlite3.Connection, path: Path) -> int:
    """Return the file's schema version, 0 for an empty file; raise StoreError if it is not for us to write in."""
    connection.execute("BEGIN")  # one view of all three, while another process may be making the file
    application: int = connection.execute("PRAGMA application_id").fetchone()[0]
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    tables: int = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    connection.execute("COMMIT")
    if application != _APPLICATION_ID and (application or version or tables):
        raise StoreError(f"{path}: a SQLite file, but not a plan cache: give another path")
    if version not in {0, SCHEMA_VERSION}:
        raise StoreError(
            f"{path}: has schema version {version}, this program reads {SCHEMA_VERSION}: "
            "delete the file (only remembered results are lost) or give another path"
        )
    return version


def _explained(path: Path, error: sqlite3.Error) -> StoreError:
    """Say in one line what SQLite met and what to do; no part of it differs from one entry to the next."""
    if isinstance(error, sqlite3.OperationalError):
        remedy = "see that its folder exists, may be written, has room, and that no other process keeps it locked"
    else:
        remedy = (
            "no plan cache, or a damaged one: give another path, "
            "or delete the file if it was one (only remembered results are lost)"
        )
    return StoreError(f"{path}: {error}: {remedy}")


def _checksum(key: str, value: bytes) -> bytes:
    """Digest an entry, key included, so that a value under the wrong key shows too."""
    return hashlib.sha256(key.encode() + value).digest()


def _totals(database: sqlite3.Connection) -> tuple[int, int]:
    """Count the entries and the bytes of their keys and values."""
    entries, size = database.execute("SELECT entries, bytes FROM totals").fetchone()
    return entries, size
