"""The SQLite file of a cache: opening or making it, telling whose it is, setting a useless one aside.

Two pragmas say whose file it is and which schema it has. A file that is not a cache's, or a newer program's, is refused
and left as it is: whoever gave its path meant something else. A file of ours that is damaged, or of an older schema,
is renamed (`plans.sqlite.damaged`, `plans.sqlite.schema-1`, in place of a former one of that name) and a new one begun:
only remembered results are lost, and a service does not wait for somebody to come and delete it.

Processes that open a file, or set it aside, take turns on a lock on its folder. Else one would rename the new file that
another has just made.

Source: SQLite's documentation of WAL mode, of `PRAGMA application_id` and `user_version`, and of its file format.
"""

from __future__ import annotations

import fcntl
import logging
import os
import sqlite3
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeAlias

from cache.entry import HEADER_BYTES, SCHEMA_VERSION
from cache.errors import StoreError, WrongStoreError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["BUSY_SECONDS", "Identity", "explained", "identity_of", "is_damage", "open_file", "set_aside"]

Identity: TypeAlias = tuple[int, int]
"""Which file: device and inode."""

BUSY_SECONDS = 5.0
"""How long to wait for another process's write, which takes milliseconds."""

_APPLICATION_ID = int.from_bytes(b"capn", "big")
_MAGIC = b"SQLite format 3\0"
_APPLICATION_ID_AT = 68  # in the file's header
_COMPANIONS = ("-wal", "-shm", "")  # the log goes first: it must never meet a new file

# Triggers keep the totals, so that no statement can forget to; a sum over all rows would grow with the file.
_SIZE = "length(CAST({row}.key AS BLOB)) + length({row}.entry)" + f" - {HEADER_BYTES}"
_TABLES = f"""
CREATE TABLE IF NOT EXISTS entries (
    key TEXT PRIMARY KEY NOT NULL,
    entry BLOB NOT NULL,         -- see entry.py
    last_used INTEGER NOT NULL,  -- the larger, the later
    used_at REAL NOT NULL        -- seconds since 1970, to show
);
CREATE INDEX IF NOT EXISTS entries_by_use ON entries (last_used);
CREATE TABLE IF NOT EXISTS locks (
    name TEXT PRIMARY KEY NOT NULL,
    owner TEXT NOT NULL,
    taken REAL NOT NULL,         -- seconds since 1970
    until REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS totals (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    entries INTEGER NOT NULL,
    bytes INTEGER NOT NULL
);
INSERT OR IGNORE INTO totals VALUES (1, 0, 0);
CREATE TRIGGER IF NOT EXISTS inserted AFTER INSERT ON entries BEGIN
    UPDATE totals SET entries = entries + 1, bytes = bytes + {_SIZE.format(row="new")};
END;
CREATE TRIGGER IF NOT EXISTS replaced AFTER UPDATE OF entry ON entries BEGIN
    UPDATE totals SET bytes = bytes + length(new.entry) - length(old.entry);
END;
CREATE TRIGGER IF NOT EXISTS deleted AFTER DELETE ON entries BEGIN
    UPDATE totals SET entries = entries - 1, bytes = bytes - ({_SIZE.format(row="old")});
END;
"""  # noqa: S608 - what is put in are constants

_log = logging.getLogger(__name__)


def open_file(path: Path, *, as_it_is: bool = False) -> tuple[sqlite3.Connection, Identity]:
    """Open a cache file, or make an empty one; return also which file it was.

    Parameters
    ----------
    path
        The file.
    as_it_is
        Neither make a file nor set one aside.

    Raises
    ------
    WrongStoreError
        If it is no cache file, or a newer program's; with `as_it_is` also an older one's, or if there is none.
    StoreError
        If it cannot be opened or made; with `as_it_is` also if it is damaged.
    """
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise WrongStoreError(f"{path}: unable to open database file: give the path of a file in a folder that exists")
    if as_it_is and not path.exists():
        raise WrongStoreError(f"{path}: no such file: give the path of a cache")
    try:
        with _turn(path):
            try:
                return _open(path, as_it_is=as_it_is)
            except sqlite3.Error as error:
                if not is_damage(error):
                    raise
                if not _is_ours(path):
                    raise WrongStoreError(f"{path}: {error}, so no plan cache: give another path") from error
                if as_it_is:
                    raise
                _log.warning("%s: %s: set aside as %s.damaged, a new cache is begun", path, error, path.name)
                _rename(path, "damaged")
                return _open(path, as_it_is=as_it_is)
    except sqlite3.Error as error:
        raise explained(path, error) from error
    except StoreError:
        raise
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}: see that its folder may be written") from error


def set_aside(path: Path, identity: Identity, error: sqlite3.Error) -> StoreError:
    """Rename a file that was found damaged, unless another process has done so already; return what to raise."""
    try:
        with _turn(path):
            if identity_of(path) == identity:
                _rename(path, "damaged")
    except OSError as why:
        return StoreError(f"{path}: {error}: and it cannot be set aside, {why.strerror or why}: delete it")
    return StoreError(f"{path}: {error}: set aside as {path.name}.damaged, a new cache is begun")


def identity_of(path: Path) -> Identity | None:
    """Return which file lies there now, None for none."""
    try:
        status = os.stat(path)  # noqa: PTH116 - asked before every operation: half the time of Path.stat
    except OSError:
        return None
    return status.st_dev, status.st_ino


def is_damage(error: sqlite3.Error) -> bool:
    """Tell damage from a fault that may pass."""
    # Python gives the codes for a malformed file, and hardly any other, as the plain class.
    return type(error) is sqlite3.DatabaseError


def explained(path: Path, error: sqlite3.Error) -> StoreError:
    """Say in one line what SQLite met and what to do; no part of it differs from one entry to the next."""
    if is_damage(error):
        return StoreError(f"{path}: {error}: delete the file (only remembered results are lost)")
    return StoreError(
        f"{path}: {error}: see that its folder may be written, has room, and that no other process keeps it locked"
    )


@contextmanager
def _turn(path: Path) -> Iterator[None]:
    """Have the folder to oneself, among all who open or set aside a cache file in it.

    Raises
    ------
    StoreError
        If another process, which must be stuck, keeps it.
    OSError
        If the folder cannot be opened.
    """
    deadline = time.monotonic() + BUSY_SECONDS
    folder = os.open(path.absolute().parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        while True:
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:  # noqa: PERF203 - few rounds, and each waits
                if time.monotonic() > deadline:
                    raise StoreError(f"{path}: another process keeps its folder locked: see what it does") from None
                time.sleep(0.01)
            else:
                break
        yield
    finally:
        os.close(folder)


def _rename(path: Path, suffix: str) -> None:
    for companion in _COMPANIONS:
        file = path.with_name(path.name + companion)
        if file.exists():
            file.replace(path.with_name(f"{path.name}.{suffix}{companion}"))


def _open(path: Path, *, as_it_is: bool) -> tuple[sqlite3.Connection, Identity]:
    connection = sqlite3.connect(path.absolute(), timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    # A damaged key must reach us as some text, not as an error without its row.
    connection.text_factory = lambda text: text.decode(errors="replace")
    try:
        version = _schema_version(connection, path, as_it_is=as_it_is)
        if 0 < version < SCHEMA_VERSION:
            connection.close()
            suffix = f"schema-{version}"
            _log.warning("%s: %s is too old: set aside as %s.%s, a new cache is begun", path, suffix, path.name, suffix)
            _rename(path, suffix)
            return _open(path, as_it_is=as_it_is)
        if version != SCHEMA_VERSION:
            # In the file itself before there is a log: a file that is damaged in the next moment is known for ours.
            connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        if version != SCHEMA_VERSION:
            connection.executescript(f"BEGIN IMMEDIATE; {_TABLES}PRAGMA user_version = {SCHEMA_VERSION}; COMMIT")
    except BaseException:
        connection.close()
        raise
    # If it is gone by now, the next use will find so.
    return connection, identity_of(path) or (0, 0)


def _schema_version(connection: sqlite3.Connection, path: Path, *, as_it_is: bool) -> int:
    """Return the file's schema version, 0 for one without tables; raise WrongStoreError if it is not for us."""
    connection.execute("BEGIN")  # one view of all three
    application: int = connection.execute("PRAGMA application_id").fetchone()[0]
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    tables: int = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    connection.execute("COMMIT")
    if application != _APPLICATION_ID and (application or version or tables):
        raise WrongStoreError(f"{path}: a SQLite file, but not a plan cache: give another path")
    if not 0 <= version <= SCHEMA_VERSION:
        raise WrongStoreError(
            f"{path}: has schema version {version}, this program reads {SCHEMA_VERSION}: "
            "give another path, or use the newer program that wrote it"
        )
    if as_it_is and version != SCHEMA_VERSION:
        raise WrongStoreError(
            f"{path}: has schema version {version}, this program reads {SCHEMA_VERSION}: it begins a new file when it "
            "first uses this one as its cache"
        )
    return version


def _is_ours(path: Path) -> bool:
    """Tell whether a file that SQLite cannot read was a cache."""
    with path.open("rb") as file:
        header = file.read(_APPLICATION_ID_AT + 4)
    return header.startswith(_MAGIC) and header.endswith(_APPLICATION_ID.to_bytes(4, "big"))
