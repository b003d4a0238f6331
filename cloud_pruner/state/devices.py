"""The devices that may ask: registered by an operator, told from each other by their tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import bindparam, func, select, update

from cloud_pruner.errors import NameTakenError, UnknownNameError
from cloud_pruner.state.names import checked_name, line_of
from cloud_pruner.state.sightings import Sightings
from cloud_pruner.state.tables import DEVICES, now
from cloud_pruner.state.token_memory import TokenMemory, count_revocation, digest_of_token, new_token

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from cloud_pruner.state.database import Database
    from cloud_pruner.state.token_memory import Known

__all__ = ["Device", "Devices"]

_PAGE: Final = 100
_FIELDS: Final = (
    DEVICES.c.name,
    DEVICES.c.model,
    DEVICES.c.registered,
    DEVICES.c.last_seen,
    DEVICES.c.revoked,
    DEVICES.c.rolled_back,
)

_BY_TOKEN: Final = select(*_FIELDS).where(DEVICES.c.token == bindparam("digest"), DEVICES.c.revoked.is_(False))


@dataclass(frozen=True, slots=True)
class Device:
    """A registered device.

    Attributes
    ----------
    name
        What it is called; nobody else is.
    model
        The model that it runs a cut of; "" where the service has only one.
    registered, last_seen
        When; None: not yet.
    revoked
        Whether its token no longer counts.
    rolled_back
        What it told of the last cut that it took back; "" for nothing.
    """

    name: str
    model: str
    registered: datetime
    last_seen: datetime | None
    revoked: bool
    rolled_back: str = ""


class Devices:
    """The registered devices; for any number of threads.

    Every method raises StateError where the database is away; `by_token` and `saw` bridge it.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._tokens = TokenMemory(database, self._of_digest)
        self._sightings = Sightings(database)

    def close(self) -> None:
        """Write when devices were last seen."""
        self._sightings.close()

    def register(self, name: str, model: str = "") -> str:
        """Register a device and return its token, which is kept nowhere.

        Raises
        ------
        RequestError
            This is no name.
        NameTakenError
            There is a device of this name.
        """
        checked_name(name, "device")
        if model:
            checked_name(model, "model")
        token = new_token()
        with self._database.writing() as connection:
            added = connection.execute(
                self._database.insert(DEVICES)
                .values(
                    name=name,
                    model=model,
                    token=digest_of_token(token),
                    registered=now(),
                    last_seen=None,
                    revoked=False,
                    rolled_back="",
                )
                .on_conflict_do_nothing(index_elements=[DEVICES.c.name])
                .returning(DEVICES.c.name)
            ).first()
        if added is None:
            raise NameTakenError(
                f"there is a device '{name}' already: choose another name, or give that one a new token "
                f"('capnn devices token {name}')"
            )
        return token

    def new_token(self, name: str) -> str:
        """Return a new token for a device, revoked or not; the former one no longer counts.

        Raises
        ------
        UnknownNameError
            There is no such device.
        """
        token = new_token()
        self._change(name, token=digest_of_token(token), revoked=False)
        return token

    def revoke(self, name: str) -> None:
        """Let a device's token count no longer: here at once, in other processes within 2 s.

        Raises
        ------
        UnknownNameError
            There is no such device.
        """
        self._change(name, revoked=True)

    def by_token(self, token: str) -> Device | None:
        """Return the device that a token belongs to; None for none, and for one that was revoked.

        A revocation counts within 2 s; while the database is away, what it said before counts for a minute.
        """
        return self._tokens.get(token)

    def at_hand(self, token: str) -> Known[Device] | None:
        """Return what `by_token` would, where that takes no look into the database; None where it does."""
        return self._tokens.at_hand(token)

    def get(self, name: str) -> Device | None:
        """Return a device, None where there is none of this name."""
        with self._database.reading() as connection:
            row = connection.execute(select(*_FIELDS).where(DEVICES.c.name == line_of(name))).one_or_none()
        return None if row is None else Device(*row)

    def all(self, *, after: str = "", search: str = "", limit: int = _PAGE) -> Sequence[Device]:
        """Return devices by name: those that come behind `after` and have `search` in their name or model."""
        found = select(*_FIELDS).where(DEVICES.c.name > line_of(after)).order_by(DEVICES.c.name).limit(limit)
        if search:
            part = line_of(search)
            found = found.where(
                DEVICES.c.name.icontains(part, autoescape=True) | DEVICES.c.model.icontains(part, autoescape=True)
            )
        with self._database.reading() as connection:
            return [Device(*row) for row in connection.execute(found)]

    def count(self) -> int:
        """Return how many devices are registered, and not revoked."""
        with self._database.reading() as connection:
            count: int = connection.execute(select(func.count()).where(DEVICES.c.revoked.is_(False))).scalar_one()
        return count

    def saw(self, name: str, rolled_back: str | None = None) -> None:
        """Note that a device was seen, and what it told of a cut that it took back; written within seconds."""
        self._sightings.note(line_of(name), None if rolled_back is None else line_of(rolled_back))

    def _change(self, name: str, **values: Any) -> None:
        with self._database.writing() as connection:
            changed = connection.execute(update(DEVICES).where(DEVICES.c.name == line_of(name)).values(**values))
            count_revocation(connection)
        if not changed.rowcount:
            raise UnknownNameError(
                f"there is no device '{line_of(name, 80)}': 'capnn devices list' names those there are"
            )
        self._tokens.clear()

    def _of_digest(self, digest: str) -> Device | None:
        with self._database.reading() as connection:
            row = connection.execute(_BY_TOKEN, {"digest": digest}).one_or_none()
        return None if row is None else Device(*row)
