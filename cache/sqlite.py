"""The store in a SQLite file: outlives the process, and is shared by the processes of one machine.

One row per entry, with the SHA-256 of its key and value: a row that does not match is deleted and counted, never
returned. The file is in write-ahead-log mode (readers never wait for a writer), and every put is on the disk when it
returns. `sqlite_file.py` says which files are opened and which set aside.

`last_used` is a count of uses, not a clock, since clocks step back. What is read is remembered in memory and written
with the next put: a read never waits for the disk. Only the order of eviction depends on it.

A lock is a row with the times, by the wall clock, at which it was taken and at which it ends. It counts between the two
only, so that a clock set back frees it, rather than making all wait for hours.

A fault is an error for the one operation that met it, and the next one tries again; but what took time (a file that
another process keeps locked, or that cannot be opened) rests for some seconds, so that not every request waits for it.
"""
# ruff: noqa: D102 - the seam, store.py, describes the methods that a store must have

from __future__ import annotations

import itertools
import sqlite3
import threading
import time
from collections import deque
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, ClassVar

from cache.entry import HEADER_BYTES, Entry, EntryInfo, Verification, decode, encode, size_of, told
from cache.errors import BudgetError, StoreError, WrongStoreError
from cache.sqlite_file import explained, identity_of, is_damage, open_file, set_aside
from cache.statistics import StoreStatistics
from cache.store import LastingStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cache.sqlite_file import Identity

__all__ = ["SqliteStore"]

_REMEMBERED_USES = 4096
_REST_SECONDS = 5.0
_TOLD_EVERY = 500  # entries, when all of them are read

_PUT = """
INSERT INTO entries VALUES (?1, ?2, (SELECT ifnull(max(last_used), 0) + 1 FROM entries), ?3)
ON CONFLICT (key) DO UPDATE SET entry = excluded.entry, last_used = excluded.last_used, used_at = excluded.used_at
"""
# The casts keep damage in a row's type bytes from reaching Python as something else.
_GET = "SELECT CAST(entry AS BLOB) FROM entries WHERE key = ?"
_LIST = f"""
SELECT key, CAST(substr(CAST(entry AS BLOB), 1, {HEADER_BYTES}) AS BLOB), length(CAST(entry AS BLOB)),
CAST(used_at AS REAL) FROM entries
"""  # noqa: S608 - the one value put in is a constant
_TOUCH = "UPDATE entries SET last_used = (SELECT max(last_used) + 1 FROM entries), used_at = ? WHERE key = ?"
_EVICT = "DELETE FROM entries WHERE last_used = (SELECT min(last_used) FROM entries)"
# Only the damaged row itself: another process may have put a good one in its place.
_DROP = "DELETE FROM entries WHERE key = ? AND CAST(entry AS BLOB) = ?"
_ACQUIRE = """
INSERT INTO locks VALUES (?1, ?2, ?3, ?4)
ON CONFLICT (name) DO UPDATE SET owner = excluded.owner, taken = excluded.taken, until = excluded.until
WHERE owner = excluded.owner OR NOT (taken <= excluded.taken AND excluded.taken < until)
"""


class SqliteStore(LastingStore):
    """Keep entries in a SQLite file.

    Several processes may have the same file open, each with a store of its own: open it after a fork, not before.
    Threads take turns on one connection. A file that another process set aside, or that somebody deleted, is left for
    the one now at its path.

    Parameters
    ----------
    path
        The file; it is created if it does not exist, its folder is not. It must be on a local disk, as WAL mode
        demands.
    max_bytes
        Limit on the bytes of keys and values held, least recently used evicted first; None for no limit. The file
        comes out somewhat larger, and does not shrink: room that was freed is used again.
    as_it_is
        To look into a file: neither make one, nor set a damaged one aside, and raise all that is wrong at once.
    patient
        For a service: if the file cannot be used, or is not a cache's, go on trying with every operation.

    Raises
    ------
    BudgetError
        If `max_bytes` is not positive.
    WrongStoreError
        If the path is that of something else than a cache, or in no folder; not if `patient`.
    StoreError
        If the file cannot be opened, with `as_it_is`; without, the operations raise it as long as that is so.
    """

    name: ClassVar[str] = "sqlite"

    def __init__(
        self, path: Path, *, max_bytes: int | None = None, as_it_is: bool = False, patient: bool = False
    ) -> None:
        if max_bytes is not None and max_bytes <= 0:
            raise BudgetError(f"{path}: the limit is {max_bytes} bytes: give a positive number, or none for no limit")
        self.path = path
        self._max_bytes = max_bytes
        self._as_it_is = as_it_is
        self._lock = threading.Lock()
        self._uses: deque[tuple[float, str]] = deque(maxlen=_REMEMBERED_USES)
        self._hits = self._misses = self._evictions = self._corrupt = self._faults = 0
        self._closed = False
        self._opened: tuple[sqlite3.Connection, Identity] | None = None
        self._rest: tuple[float, str] | None = None  # until when by the monotonic clock, and why
        try:
            self._connection()
        except StoreError as error:
            if as_it_is or (isinstance(error, WrongStoreError) and not patient):
                raise

    def fetch(self, key: str) -> Entry | None:
        with self._database() as database:
            row = database.execute(_GET, (key,)).fetchone()
            if row is None:
                self._misses += 1
                return None
            entry = decode(key, row[0])
            if entry is None:
                self._misses += 1
                self._corrupt += 1
                database.execute(_DROP, (key, row[0]))
                return None
            self._hits += 1
        self.touch(key)
        return entry

    def put(self, key: str, value: bytes, cost: float = 0.0) -> None:
        if self._max_bytes is not None and size_of(key, value) > self._max_bytes:
            self.delete(key)
            return
        now = time.time()
        with self._writing() as database:
            self._write_uses(database)
            database.execute(_PUT, (key, encode(key, Entry(value, cost), now), now))
            evicted = 0
            while self._max_bytes is not None and _totals(database)[1] > self._max_bytes:
                dropped = database.execute(_EVICT).rowcount
                if not dropped:  # only damaged totals come here; they must not hold the service for ever
                    break
                evicted += dropped
        self._evictions += evicted

    def touch(self, key: str) -> None:
        self._uses.append((time.time(), key))

    def delete(self, key: str) -> None:
        with self._writing() as database:
            database.execute("DELETE FROM entries WHERE key = ?", (key,))

    def clear(self) -> None:
        with self._writing() as database:
            database.execute("DELETE FROM entries")

    def keys(self, prefix: str = "") -> list[str]:
        with self._database() as database:
            rows = database.execute("SELECT key FROM entries WHERE key >= ? ORDER BY key", (prefix,))
            return [key for (key,) in itertools.takewhile(lambda row: row[0].startswith(prefix), rows)]

    def __len__(self) -> int:
        with self._database() as database:
            return _totals(database)[0]

    def acquire(self, name: str, owner: str, seconds: float) -> bool:
        with self._database() as database:
            # Who waits asks again and again: without writing, so that the holder need not wait for them.
            others = "SELECT 1 FROM locks WHERE name = ?1 AND owner != ?2 AND taken <= ?3 AND ?3 < until"
            if database.execute(others, (name, owner, time.time())).fetchone() is not None:
                return False
        with self._writing() as database:
            now = time.time()  # not before: one that was taken meanwhile would seem to be of a clock that was set back
            return database.execute(_ACQUIRE, (name, owner, now, now + seconds)).rowcount > 0

    def release(self, name: str, owner: str) -> None:
        with self._writing() as database:
            # With it go those that nobody gave back.
            database.execute(
                "DELETE FROM locks WHERE (name = ? AND owner = ?) OR until < ?", (name, owner, time.time())
            )

    def entries(self) -> list[EntryInfo]:
        with self._database() as database:
            return [told(*row) for row in database.execute(_LIST)]

    def verify(self, progress: Callable[[str, int, int], None] | None = None) -> Verification:
        read, size, corrupt, damage = 0, 0, [], []
        with self._database() as database:
            try:
                database.execute("BEGIN")  # one view of all, while others go on
                total = _totals(database)[0]
                damage += [line for (line,) in database.execute("PRAGMA integrity_check(20)") if line != "ok"]
                for key, kept in database.execute("SELECT key, CAST(entry AS BLOB) FROM entries"):
                    read += 1
                    if progress is not None and read % _TOLD_EVERY == 0:
                        progress("entries", read, max(read, total))
                    size += size_of(key, kept) - HEADER_BYTES
                    if decode(key, kept) is None:
                        corrupt.append(key)
                if not damage and not corrupt and (told_totals := _totals(database)) != (read, size):
                    damage.append(f"totals say {told_totals}, (entries, bytes) are {(read, size)}")
            except sqlite3.Error as error:
                if not is_damage(error):
                    raise
                damage.append(str(error))
            finally:
                if database.in_transaction:
                    database.execute("ROLLBACK")
        return Verification(self.name, read, tuple(sorted(corrupt)), tuple(damage))

    def statistics(self) -> tuple[StoreStatistics, ...]:
        entries: int | None = None
        size: int | None = None
        # A service shows its statistics above all when something is wrong: the counts do not depend on the disk.
        with suppress(StoreError), self._database(counted=False) as database:
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
        with suppress(StoreError), self._writing() as database:
            self._write_uses(database)
        with self._lock:
            self._closed = True
            self._disconnect()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """Give the connection within one transaction, which is on the disk when the context ends."""
        with self._database() as database, database:
            database.execute("BEGIN IMMEDIATE")
            yield database

    @contextmanager
    def _database(self, *, counted: bool = True) -> Iterator[sqlite3.Connection]:
        """Give the connection to this thread alone; turn SQLite's errors into ours, and do what they call for."""
        with self._lock:
            if self._closed:
                raise StoreError(f"{self.path}: the store is closed: open it anew")
            try:
                yield self._connection()
            except sqlite3.Error as error:
                self._faults += counted
                raise self._failed(error) from error
            except StoreError:
                self._faults += counted
                raise

    def _connection(self) -> sqlite3.Connection:
        """Return the connection to the file that lies at the path now."""
        if self._opened is not None and identity_of(self.path) == self._opened[1]:
            return self._opened[0]
        if self._rest is not None and time.monotonic() < self._rest[0]:
            raise StoreError(self._rest[1])
        self._disconnect()
        try:
            self._opened = open_file(self.path, as_it_is=self._as_it_is)
        except StoreError as error:
            self._rest = time.monotonic() + _REST_SECONDS, str(error)
            raise
        self._rest = None
        return self._opened[0]

    def _disconnect(self) -> None:
        if self._opened is not None:
            self._opened[0].close()
            self._opened = None

    def _failed(self, error: sqlite3.Error) -> StoreError:
        if is_damage(error) and not self._as_it_is and self._opened is not None:
            identity = self._opened[1]
            self._disconnect()
            return set_aside(self.path, identity, error)
        ours = explained(self.path, error)
        if "locked" in str(error):
            self._disconnect()
            self._rest = time.monotonic() + _REST_SECONDS, str(ours)
        return ours

    def _write_uses(self, database: sqlite3.Connection) -> None:
        """Write what was read since the last put, in that order; only here are uses taken from the queue."""
        uses = [self._uses.popleft() for _ in range(len(self._uses))]
        database.executemany(_TOUCH, uses)


def _totals(database: sqlite3.Connection) -> tuple[int, int]:
    """Count the entries and the bytes of their keys and values."""
    entries, size = database.execute("SELECT entries, bytes FROM totals").fetchone()
    return entries, size
