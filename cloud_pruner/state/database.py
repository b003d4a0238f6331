"""The database of the service: opened and checked, asked with bounded patience, and back in use as soon as it is back.

Every fault is a `StateError` for the one operation that met it, and the next one tries again. What took time (a server
that does not answer, a file that another keeps locked) rests for a moment, so that not every request waits for it.
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import func, insert, inspect, make_url, select, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from cloud_pruner.errors import StateError, StateVersionError
from cloud_pruner.state import postgresql_servers, sqlite_files
from cloud_pruner.state.group_commit import GroupCommit
from cloud_pruner.state.tables import METADATA, SCHEMA_VERSION, STATE, now

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from sqlalchemy import URL, Connection, Engine, Table
    from typing_extensions import Self

__all__ = ["Database"]

_WAIT_S: Final = 3.0
"""How long to wait for a connection, a lock, or another's write."""
_CANCELLED: Final = "57014"
"""What PostgreSQL calls a statement that took too long."""
_SLOW_S: Final = 0.5
_REST_S: Final = 2.0
# Any number that nobody else uses: makers of the tables take turns under it.
_TURN: Final = 0x63_61_70_6E


class Database:
    """Reads and writes the service's state; for any number of threads. Open it after a fork, not before."""

    def __init__(self, engine: Engine, shown: str) -> None:
        self._engine = engine
        self._alone = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._shown = shown
        self._is_server = engine.dialect.name == "postgresql"
        # SQLite takes one writer at a time: here they queue, rather than to ask again and again.
        self._writer = threading.Lock()
        self._group = GroupCommit(self.writing)
        # A server is there or not; in a file a writer that is stuck keeps nobody from reading.
        self._reads = _Rest()
        self._writes = self._reads if self._is_server else _Rest()

    @classmethod
    def open(cls, url: str) -> Self:
        """Open a database, and make the tables where there are none.

        Parameters
        ----------
        url
            `sqlite:///relative.sqlite`, `sqlite:////absolute.sqlite` (on a local disk, as its write-ahead log demands)
            or `postgresql+psycopg://user:password@host/name`.

        Raises
        ------
        StateError
            It cannot be reached or made, or the URL is of another kind.
        StateVersionError
            It is not the state of a service, or another version's.
        MissingExtraError
            The PostgreSQL driver is not installed.
        """
        address = _address(url)
        shown = address.render_as_string(hide_password=True)
        if address.drivername == postgresql_servers.DRIVER:
            engine = postgresql_servers.engine_for(address, _WAIT_S)
        else:
            engine = sqlite_files.engine_for(address, _WAIT_S)
        database = cls(engine, shown)
        try:
            database._make_tables()
        except BaseException:
            engine.dispose()
            raise
        return database

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    def ping(self) -> None:
        """Raise StateError where the database cannot be used now."""
        with self.reading() as connection:
            connection.execute(select(STATE.c.version))

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Yield a connection on which each statement stands by itself; raises StateError."""
        with self._explained(self._reads), self._alone.connect() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Yield a connection in a transaction that is on the disk when the block is left; raises StateError.

        SQLite has one writer at a time, PostgreSQL many: a row that is read to be changed must be locked there.
        """
        with self._explained(self._writes):
            if self._is_server:
                with self._engine.begin() as connection:
                    yield connection
                return
            if not self._writer.acquire(timeout=_WAIT_S):
                raise StateError(self._message("many wait to write, and none is done"))
            try:
                with self._engine.connect().execution_options(**sqlite_files.WRITES) as connection, connection.begin():
                    yield connection
            finally:
                self._writer.release()

    def write(self, act: Callable[[Connection], object]) -> None:
        """Let `act` write in a transaction that is on the disk when this returns; raises StateError.

        On SQLite those who write at the same time share it: `act` may be called twice, anew each time.
        """
        if self._is_server:
            with self.writing() as connection:
                act(connection)
        else:
            self._group.write(act)

    def insert(self, table: Table) -> Any:
        """Return an INSERT of the database's own kind, which knows `on_conflict_do_update` and `..._do_nothing`."""
        return postgresql.insert(table) if self._is_server else sqlite.insert(table)

    def time(self, connection: Connection) -> datetime:
        """Return the time by which all who share the database agree: the server's, or this machine's."""
        if not self._is_server:
            return now()
        moment: datetime = connection.execute(select(func.clock_timestamp())).scalar_one()
        return moment

    @contextmanager
    def _explained(self, rest: _Rest) -> Iterator[None]:
        """Turn every fault of the database into StateError, and rest after one that took long."""
        rest.check()
        start = time.monotonic()
        try:
            yield
        except SQLAlchemyError as error:
            message = self._message(_reason(error))
            if time.monotonic() - start > _SLOW_S and not _is_its_own(error):
                rest.begin(message)
            raise StateError(message) from error
        rest.end()

    def _message(self, reason: str) -> str:
        return f"{self._shown}: {reason}: see that it can be reached and written and has room; it is tried again"

    def _make_tables(self) -> None:
        """Make the tables where there are none; check that they are of this version."""
        with self.writing() as connection:
            if self._is_server:
                connection.execute(text("SELECT pg_advisory_xact_lock(:turn)"), {"turn": _TURN})
            tables = inspect(connection).get_table_names()
            if STATE.name not in tables:
                if tables and not self._is_server:
                    raise StateVersionError(f"{self._shown}: is no state of a service: give another path")
                METADATA.create_all(connection)
                connection.execute(insert(STATE).values(version=SCHEMA_VERSION, revocations=0))
            version = connection.execute(select(STATE.c.version)).scalar_one()
        if version != SCHEMA_VERSION:
            raise StateVersionError(
                f"{self._shown}: has schema version {version}, this program reads {SCHEMA_VERSION}: give another "
                "database, or use the program that wrote it"
            )


class _Rest:
    """A time in which nothing is tried; for any number of threads."""

    def __init__(self) -> None:
        self._until: float | None = None  # by the monotonic clock
        self._message = ""
        self._turn = threading.Lock()

    def begin(self, message: str) -> None:
        """Rest from now on, because of what `message` says."""
        with self._turn:
            self._until, self._message = time.monotonic() + _REST_S, message

    def check(self) -> None:
        """Raise StateError while there is rest; after it one tries, and the others do not wait for that one."""
        if self._until is None:
            return
        with self._turn:
            if self._until is not None:
                if time.monotonic() < self._until:
                    raise StateError(self._message)
                self._until = time.monotonic() + _REST_S

    def end(self) -> None:
        """Rest no more: it works."""
        self._until = None


def _address(url: str) -> URL:
    """Parse a URL, or raise StateError."""
    example = "write sqlite:////var/lib/capnn/state.sqlite, or postgresql+psycopg://user:password@host/name"
    try:
        address = make_url(url)
    except ArgumentError:
        raise StateError(f"the address of the database cannot be read: {example}") from None
    if address.drivername != postgresql_servers.DRIVER and (address.drivername != "sqlite" or not address.database):
        raise StateError(
            f"{address.render_as_string(hide_password=True)}: is no database that is known here: {example}"
        )
    return address


def _is_its_own(error: SQLAlchemyError) -> bool:
    """Return whether only one statement met it: it waited for somebody else's lock, or for a connection to be free."""
    cancelled = isinstance(error, DBAPIError) and getattr(error.orig, "sqlstate", None) == _CANCELLED
    return cancelled or isinstance(error, PoolTimeout)


def _reason(error: SQLAlchemyError) -> str:
    """Return what the driver says, on one line of some length."""
    if isinstance(error, PoolTimeout):
        return "all connections are in use, and none comes back"
    said = str(error.orig) if isinstance(error, DBAPIError) else str(error)
    return " ".join(said.split())[:200].rstrip(": ") or type(error).__name__
