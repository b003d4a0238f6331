"""The state on a PostgreSQL server: connections that are tried before they are used, and given up when nothing comes.

The server ends what takes long by its own clock, and one that has gone is noticed by unanswered packets. One that
stands still, on a disk that does not answer, does neither: for that each connection has a deadline while it is in use,
at which its socket is shut down.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import socket
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import create_engine, event
from sqlalchemy.exc import DisconnectionError

from cloud_pruner.errors import MissingExtraError

if TYPE_CHECKING:
    from sqlalchemy import URL, Engine

__all__ = ["DRIVER", "engine_for"]

DRIVER: Final = "postgresql+psycopg"
"""How addresses of such servers begin."""

_TICK_S: Final = 0.5


def engine_for(address: URL, wait_s: float) -> Engine:
    """Return an engine for a server; `wait_s` for a connection, a lock or a statement.

    Raises
    ------
    MissingExtraError
        The driver is not installed.
    """
    try:
        driver = importlib.import_module("psycopg")
    except ImportError as error:
        raise MissingExtraError(f"PostgreSQL needs a package ({error}): pip install 'capnn[postgres]'") from error
    wait_ms = int(wait_s * 1000)
    engine = create_engine(
        address,
        connect_args={
            "connect_timeout": max(2, int(wait_s)),
            "tcp_user_timeout": wait_ms,
            "keepalives_idle": 2,
            "keepalives_interval": 1,
            "keepalives_count": 3,
            "options": f"-c statement_timeout={wait_ms} -c idle_in_transaction_session_timeout={10 * wait_ms}",
        },
        pool_size=8,
        max_overflow=8,
        pool_timeout=wait_s,
    )
    deadlines = _Deadlines(wait_s + 1.0)

    @event.listens_for(engine, "connect")
    def connected(connection: Any, record: Any) -> None:
        # A socket of our own: its number cannot have become another connection's by the time of a deadline.
        record.info["capnn_socket"] = socket.socket(fileno=os.dup(connection.fileno()))

    @event.listens_for(engine, "close")
    def closed(_connection: Any, record: Any) -> None:
        deadlines.end(record)
        record.info.pop("capnn_socket").close()

    @event.listens_for(engine, "checkout")
    def taken(connection: Any, record: Any, _proxy: Any) -> None:
        deadlines.begin(record, record.info["capnn_socket"])
        try:
            # Whoever needs it gets a connection that works, or no answer at all; the pool makes a new one for that.
            connection.autocommit = True
            connection.execute("SELECT 1")
            connection.autocommit = False
        except driver.Error as error:
            raise DisconnectionError(str(error)) from error

    @event.listens_for(engine, "checkin")
    def given_back(_connection: Any, record: Any) -> None:
        deadlines.end(record)

    event.listen(engine, "engine_disposed", lambda _engine: deadlines.close())
    return engine


class _Deadlines:
    """Shuts sockets down that were in use for more than `limit_s` seconds; for any number of threads."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._watched: dict[Any, tuple[float, socket.socket]] = {}
        self._changed = threading.Condition()
        self._closed = False
        self._watcher: threading.Thread | None = None

    def begin(self, key: Any, connection: socket.socket) -> None:
        with self._changed:
            self._watched[key] = (time.monotonic() + self._limit_s, connection)
            if self._watcher is None:
                self._watcher = threading.Thread(target=self._watch, name="database deadlines", daemon=True)
                self._watcher.start()

    def end(self, key: Any) -> None:
        with self._changed:
            self._watched.pop(key, None)

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _watch(self) -> None:
        with self._changed:
            while not self._closed:
                now = time.monotonic()
                late = [key for key, (deadline, _) in self._watched.items() if deadline < now]
                for key in late:
                    with contextlib.suppress(OSError):
                        self._watched.pop(key)[1].shutdown(socket.SHUT_RDWR)
                self._changed.wait(_TICK_S)
