"""The state in a SQLite file: in write-ahead-log mode, every commit on the disk, and only the file at its path.

Readers never wait for a writer. A file that was deleted or replaced is left for the one that lies at the path now, so
that nothing is acknowledged that nobody will find again.
"""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from sqlalchemy import create_engine, event
from sqlalchemy.exc import DisconnectionError, OperationalError

from cloud_pruner.errors import StateError

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection, Engine

__all__ = ["WRITES", "engine_for"]

WRITES: Final = {"capnn_writes": True}
"""Options of a connection whose transactions change something."""

_IDENTITY: Final = "capnn_identity"
_LOOK_S: Final = 0.001
_BUSY: Final = 5  # SQLITE_BUSY


def engine_for(address: URL, wait_s: float) -> Engine:
    """Return an engine for the file of `address`, which is made where missing; `wait_s` for another's write.

    Raises
    ------
    StateError
        There is no folder for the file, or it cannot be made.
    """
    path = Path(address.database or "").absolute()
    try:
        # Hashes of tokens and names of devices are for the service alone. SQLite gives its other files the same mode.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise StateError(
            f"{path}: {error.strerror}: give the path of a file in a folder that may be written"
        ) from error

    def connect() -> sqlite3.Connection:
        # Not made anew where it has gone: a backup may be on its way.
        name = f"file:{quote(str(path))}?mode=rw"
        return sqlite3.connect(name, uri=True, timeout=wait_s, isolation_level=None, check_same_thread=False)

    engine = create_engine(address, creator=connect, pool_size=8, max_overflow=8, pool_timeout=wait_s)

    @event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, record: Any) -> None:
        record.info[_IDENTITY] = _identity(path)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")

    @event.listens_for(engine, "checkout")
    def check(_connection: sqlite3.Connection, record: Any, _proxy: Any) -> None:
        if record.info[_IDENTITY] != _identity(path):
            raise DisconnectionError(f"{path} was replaced")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # Reads stand alone. A transaction that turned from reading to writing could fail where another writes.
        if connection.get_execution_options().get("capnn_writes"):
            _begin_to_write(connection, wait_s)

    return engine


def _begin_to_write(connection: Connection, wait_s: float) -> None:
    """Wait for the turn of this process. SQLite itself would look after longer and longer pauses, of up to 0.1 s."""
    end = time.monotonic() + wait_s
    connection.exec_driver_sql("PRAGMA busy_timeout = 0")
    try:
        while True:
            try:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            except OperationalError as error:  # noqa: PERF203 - it is waited for anyway
                # Python 3.10 does not say which error it is: then any is waited for.
                if getattr(error.orig, "sqlite_errorcode", _BUSY) & 0xFF != _BUSY or time.monotonic() >= end:
                    raise
                time.sleep(_LOOK_S)
            else:
                return
    finally:
        connection.exec_driver_sql(f"PRAGMA busy_timeout = {round(1000 * wait_s)}")


def _identity(path: Path) -> tuple[int, int] | None:
    """Return which file lies at `path`, None for none."""
    try:
        status = os.stat(path)  # noqa: PTH116 - before every operation: half the time of Path.stat
    except OSError:
        return None
    return status.st_dev, status.st_ino
