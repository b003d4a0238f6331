"""What bearer tokens stand for, as the database last said: for a moment, and through an outage for a minute.

Of a token only its sha256 is kept, here and in the database. Tokens are 256 random bits: nobody finds another with the
same digest, and how long a look-up takes says nothing of them.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from cachetools import LRUCache

from cloud_pruner.errors import StateError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Known", "TokenMemory", "digest_of_token", "new_token"]

_FRESH_S: Final = 1.5  # a revocation counts within 2 s, the time of a look-up included
_OUTAGE_S: Final = 60.0
_REMEMBERED: Final = 16_384
_BYTES: Final = 32

_T = TypeVar("_T")


def new_token() -> str:
    """Return a token of 256 random bits, in letters that a header takes."""
    return secrets.token_urlsafe(_BYTES)


def digest_of_token(token: str) -> str:
    """Return what is kept of a token: its sha256."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True, slots=True)
class Known(Generic[_T]):
    """What a token stood for at the time `read`, by the monotonic clock, in s; None: nothing."""

    value: _T | None
    read: float


class TokenMemory(Generic[_T]):
    """Remembers what `look_up` returned for the digests of tokens; for any number of threads."""

    def __init__(self, look_up: Callable[[str], _T | None]) -> None:
        self._look_up = look_up
        # Wrong tokens apart: whoever sends many must not push the right ones out.
        self._right: LRUCache[str, Known[_T]] = LRUCache(_REMEMBERED)
        self._wrong: LRUCache[str, Known[_T]] = LRUCache(_REMEMBERED // 16)
        self._turn = threading.Lock()

    def at_hand(self, token: str) -> Known[_T] | None:
        """Return what is known of a token without asking the database; None where it has to be asked."""
        known = self._remembered(digest_of_token(token))
        return known if known is not None and time.monotonic() - known.read < _FRESH_S else None

    def get(self, token: str) -> _T | None:
        """Return what a token stands for, None for nothing.

        Raises
        ------
        StateError
            The database is away, and what it said of this token is more than a minute old.
        """
        digest = digest_of_token(token)
        known = self._remembered(digest)
        start = time.monotonic()
        if known is not None and start - known.read < _FRESH_S:
            return known.value
        try:
            value = self._look_up(digest)
        except StateError:
            if known is None or start - known.read > _OUTAGE_S:
                raise
            return known.value
        with self._turn:
            self._forget(digest)
            (self._wrong if value is None else self._right)[digest] = Known(value, start)
        return value

    def clear(self) -> None:
        """Forget everything: something has changed."""
        with self._turn:
            self._right.clear()
            self._wrong.clear()

    def _remembered(self, digest: str) -> Known[_T] | None:
        with self._turn:
            return self._right.get(digest) or self._wrong.get(digest)

    def _forget(self, digest: str) -> None:
        self._right.pop(digest, None)
        self._wrong.pop(digest, None)
