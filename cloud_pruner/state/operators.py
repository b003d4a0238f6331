"""Those who run the service: an operator's token may do everything."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import delete, select

from cloud_pruner.errors import NameTakenError, UnknownNameError
from cloud_pruner.state.names import checked_name, line_of
from cloud_pruner.state.tables import OPERATORS, now
from cloud_pruner.state.token_memory import TokenMemory, count_revocation, digest_of_token, new_token

if TYPE_CHECKING:
    from datetime import datetime

    from cloud_pruner.state.database import Database
    from cloud_pruner.state.token_memory import Known

__all__ = ["Operators"]


class Operators:
    """The operators; for any number of threads. Every method raises StateError; `by_token` bridges a minute."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._tokens = TokenMemory(database, self._of_digest)

    def create(self, name: str) -> str:
        """Make an operator and return the token, which is kept nowhere.

        Raises
        ------
        RequestError
            This is no name.
        NameTakenError
            There is an operator of this name.
        """
        token = new_token()
        with self._database.writing() as connection:
            added = connection.execute(
                self._database.insert(OPERATORS)
                .values(name=checked_name(name, "operator"), token=digest_of_token(token), created=now())
                .on_conflict_do_nothing(index_elements=[OPERATORS.c.name])
                .returning(OPERATORS.c.name)
            ).first()
        if added is None:
            raise NameTakenError(
                f"there is an operator '{name}' already: choose another name, or revoke that one first "
                f"('capnn operators revoke {name}')"
            )
        return token

    def by_token(self, token: str) -> str | None:
        """Return the name of the operator that a token belongs to, None for none; as fresh as `Devices.by_token`."""
        return self._tokens.get(token)

    def at_hand(self, token: str) -> Known[str] | None:
        """Return what `by_token` would, where that takes no look into the database; None where it does."""
        return self._tokens.at_hand(token)

    def revoke(self, name: str) -> None:
        """Take an operator out: here at once, in other processes within 2 s.

        Raises
        ------
        UnknownNameError
            There is no such operator.
        """
        with self._database.writing() as connection:
            removed = connection.execute(delete(OPERATORS).where(OPERATORS.c.name == line_of(name)))
            count_revocation(connection)
        if not removed.rowcount:
            raise UnknownNameError(
                f"there is no operator '{line_of(name, 80)}': 'capnn operators list' names those there are"
            )
        self._tokens.clear()

    def all(self) -> dict[str, datetime]:
        """Return when each operator was made, by name."""
        with self._database.reading() as connection:
            rows = connection.execute(select(OPERATORS.c.name, OPERATORS.c.created).order_by(OPERATORS.c.name))
            return {row.name: row.created for row in rows}

    def _of_digest(self, digest: str) -> str | None:
        with self._database.reading() as connection:
            name: str | None = connection.execute(
                select(OPERATORS.c.name).where(OPERATORS.c.token == digest)
            ).scalar_one_or_none()
        return name
