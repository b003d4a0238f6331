"""The cache as the rest of the program meets it: results under exact keys, and what they had cost."""

from __future__ import annotations

import struct
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from cache.statistics import CacheStatistics, TierStatistics

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from cache.layered import LayeredStore

__all__ = ["CachedResult", "PlanCache"]

# An entry is the seconds it took to compute, a big-endian double, then the value.
_SECONDS = struct.Struct(">d")


@dataclass(frozen=True, slots=True)
class CachedResult:
    """A result that was computed before."""

    value: bytes
    """What was stored."""
    tier: Literal["exact"]
    """How it was found: under exactly the key asked for."""
    store: str
    """Where it was found: "memory" or "sqlite"."""
    seconds: float
    """What it had cost to compute, in s."""


class PlanCache:
    """Remember computed results, serialised pruning plans above all, by the digest of what they were computed from.

    It knows nothing of pruning: keys come from `exact_key`, values are bytes. It may be used from several threads,
    and as a context manager that closes it.

    Parameters
    ----------
    stores
        Where the results lie; closed with this cache.

    Examples
    --------
    >>> from cache import LayeredStore, MemoryStore, exact_key
    >>> with PlanCache(LayeredStore(MemoryStore(max_bytes=1_000_000))) as plans:
    ...     key = exact_key(model="5f2c", epsilon=0.03, classes=(2, 7))
    ...     plans.store(key, b"a plan", seconds=1.5)
    ...     plans.lookup(key)
    CachedResult(value=b'a plan', tier='exact', store='memory', seconds=1.5)
    """

    def __init__(self, stores: LayeredStore) -> None:
        self._stores = stores
        self._lock = threading.Lock()
        self._hits = 0
        self._misses = 0
        self._seconds_saved = 0.0

    def lookup(self, key: str) -> CachedResult | None:
        """Return the result stored under `key`, or None if there is none. A store that fails counts as having none."""
        found = self._stores.find(key)
        if found is None:
            with self._lock:
                self._misses += 1
            return None
        (seconds,) = _SECONDS.unpack_from(found.value)
        with self._lock:
            self._hits += 1
            self._seconds_saved += seconds
        return CachedResult(found.value[_SECONDS.size :], "exact", found.store, seconds)

    def store(self, key: str, value: bytes, *, seconds: float) -> None:
        """Remember `value` under `key`, and that it took `seconds` s to compute. A store that fails goes without it."""
        self._stores.put(key, _SECONDS.pack(seconds) + value)

    def clear(self) -> None:
        """Forget every result; the statistics stay.

        Raises
        ------
        StoreError
            If a store cannot be emptied.
        """
        self._stores.clear()

    def statistics(self) -> CacheStatistics:
        """Snapshot the counts since this cache was opened, and the stores' content now."""
        with self._lock:
            exact = TierStatistics(self._hits, self._misses, self._seconds_saved)
        return CacheStatistics(exact, self._stores.statistics())

    def close(self) -> None:
        """Close the stores; closing twice is no error."""
        self._stores.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
