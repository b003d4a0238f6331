"""What bearer tokens stand for, remembered while no token was revoked, and through an outage for a minute.

A number in the database rises whenever a token counts no longer. While it stands still, all that was looked up is
true: so what every process asks again and again is that one number. Of a token only its sha256 is kept, here and there.
Tokens are 256 random bits: nobody finds another with the same digest, and how long a look-up takes says nothing of
them.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from cachetools import LRUCache
from sqlalchemy import select, update

from cloud_pruner.errors import StateError
from cloud_pruner.state.tables import STATE

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from cloud_pruner.state.database import Database

__all__ = ["Known", "TokenMemory", "count_revocation", "digest_of_token", "new_token"]

_FRESH_S: Final = 1.5  # a revocation counts within 2 s, the time of a look-up included
_OUTAGE_S: Final = 60.0
_REMEMBERED: Final = 65_536
_BYTES: Final = 32

_REVOCATIONS: Final = select(STATE.c.revocations)
_ONE_MORE: Final = update(STATE).values(revocations=STATE.c.revocations + 1)

_T = TypeVar("_T")


def new_token() -> str:
    """Return a token of 256 random bits, in letters that a header takes."""
    return secrets.token_urlsafe(_BYTES)


def digest_of_token(token: str) -> str:
    """Return what is kept of a token: its sha256."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def count_revocation(connection: Connection) -> None:
    """Let every process look up again what it remembers; in the transaction that revokes."""
    connection.execute(_ONE_MORE)


@dataclass(frozen=True, slots=True)
class Known(Generic[_T]):
    """What a token stood for, None for nothing, at the time `read` (monotonic, in s) and after `count` revocations."""

    value: _T | None
    read: float
    count: int


class TokenMemory(Generic[_T]):
    """Remembers what `look_up` returned for the digests of tokens; for any number of threads."""

    def __init__(self, database: Database, look_up: Callable[[str], _T | None]) -> None:
        self._database = database
        self._look_up = look_up
        # Wrong tokens apart: whoever sends many must not push the right ones out.
        self._right: LRUCache[str, Known[_T]] = LRUCache(_REMEMBERED)
        self._wrong: LRUCache[str, Known[_T]] = LRUCache(_REMEMBERED // 64)
        self._turn = threading.Lock()
        self._counting = threading.Lock()
        self._counted: tuple[float, int] | None = None  # when, by the monotonic clock, and how many revocations

    def at_hand(self, token: str) -> Known[_T] | None:
        """Return what is known of a token without asking the database; None where it has to be asked."""
        known = self._remembered(digest_of_token(token))
        return known if known is not None and self._is_good(known) else None

    def get(self, token: str) -> _T | None:
        """Return what a token stands for, None for nothing.

        Raises
        ------
        StateError
            The database is away, and was so for more than a minute, or never said anything of this token.
        """
        digest = digest_of_token(token)
        known = self._remembered(digest)
        if known is not None and self._is_good(known):
            return known.value
        try:
            count = self._count()
            if known is not None and self._is_good(known):
                return known.value
            read = time.monotonic()
            found = Known(self._look_up(digest), read, count)
        except StateError:
            if known is None or not self._was_good(known):
                raise
            return known.value
        with self._turn:
            self._right.pop(digest, None)
            self._wrong.pop(digest, None)
            (self._wrong if found.value is None else self._right)[digest] = found
        return found.value

    def clear(self) -> None:
        """Forget everything: something has changed."""
        with self._turn:
            self._right.clear()
            self._wrong.clear()

    def _remembered(self, digest: str) -> Known[_T] | None:
        with self._turn:
            return self._right.get(digest) or self._wrong.get(digest)

    def _count(self) -> int:
        """Return how many revocations there were, at most a moment ago; raises StateError."""
        with self._counting:
            counted, now = self._counted, time.monotonic()
            if counted is None or now - counted[0] >= _FRESH_S:
                with self._database.reading() as connection:
                    counted = self._counted = (now, connection.execute(_REVOCATIONS).scalar_one())
            return counted[1]

    def _is_good(self, known: Known[_T]) -> bool:
        """Return whether nothing has changed since; that a token stands for nothing is believed for a moment only."""
        counted, now = self._counted, time.monotonic()
        if counted is None or counted[1] != known.count or now - counted[0] >= _FRESH_S:
            return False
        return known.value is not None or now - known.read < _FRESH_S

    def _was_good(self, known: Known[_T]) -> bool:
        """Return whether nothing had changed when the database was last there, within a minute."""
        counted = self._counted
        return counted is not None and counted[1] == known.count and time.monotonic() - counted[0] <= _OUTAGE_S
