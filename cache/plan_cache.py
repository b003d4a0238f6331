"""The cache as the rest of the program meets it: results by key, what they had cost, and how each tier fares."""

from __future__ import annotations

import dataclasses
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cache.flights import Flights
from cache.key import parse_plan_key
from cache.statistics import TIERS, CacheStatistics, TierStatistics

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager
    from types import TracebackType

    from typing_extensions import Self

    from cache.layered import LayeredStore
    from cache.statistics import Outcome, Tier

__all__ = ["CachedResult", "PlanCache"]

_COUNTED: dict[Outcome, str] = {"hit": "hits", "rejected": "rejected", "miss": "misses"}


@dataclass(frozen=True, slots=True)
class CachedResult:
    """A result that was computed before."""

    value: bytes
    """What was stored."""
    tier: Tier
    """How it was found; "exact": under exactly the key asked for."""
    store: str
    """Where it was found: "memory", "sqlite" or "redis"."""
    seconds: float
    """What it had cost to compute, in s."""


class PlanCache:
    """Remember computed results, serialised pruning plans above all, by what they were computed from.

    It knows nothing of pruning: keys come from `plan_key` or `exact_key`, values are bytes. It may be used from several
    threads, and as a context manager that closes it.

    Parameters
    ----------
    stores
        Where the results lie; closed with this cache.
    lock_seconds
        By how long a holder of a `flight` that dies delays the others at most, in s.
    wait_seconds
        How long to wait for another's flight at most, in s.

    Examples
    --------
    >>> from cache import LayeredStore, MemoryStore, exact_key, plan_key
    >>> with PlanCache(LayeredStore(MemoryStore(max_bytes=1_000_000))) as plans:
    ...     key = plan_key(exact_key(model="5f2c", epsilon=0.03), (2, 7), (0.5, 0.5))
    ...     with plans.flight(key):
    ...         if plans.lookup(key) is None:
    ...             plans.store(key, b"a plan", seconds=1.5)
    ...     plans.lookup(key)
    CachedResult(value=b'a plan', tier='exact', store='memory', seconds=1.5)
    """

    def __init__(self, stores: LayeredStore, *, lock_seconds: float = 10.0, wait_seconds: float = 900.0) -> None:
        self._stores = stores
        self._flights = Flights(stores, lock_seconds=lock_seconds, wait_seconds=wait_seconds)
        self._lock = threading.Lock()
        self._tiers = dict.fromkeys(TIERS, TierStatistics())

    def lookup(self, key: str, *, tier: Tier = "exact", again: bool = False) -> CachedResult | None:
        """Return the result stored under `key`, or None if there is none. A store that fails counts as having none.

        Parameters
        ----------
        key
            What it was stored under.
        tier
            For which tier it is wanted. Hits and misses of "exact" are counted here; the others' by `count`, since
            what is found need not do.
        again
            The same request has missed before, and looks once more now that it has its `flight`: a miss is not counted
            a second time, and a hit takes the first one back.
        """
        found = self._stores.find(key)
        if tier == "exact":
            if again and found is not None:
                self._add(tier, misses=-1)
            if found is not None:
                self.count(tier, "hit", found.entry.cost)
            elif not again:
                self.count(tier, "miss")
        if found is None:
            return None
        return CachedResult(found.entry.value, tier, found.store, found.entry.cost)

    def peek(self, key: str) -> CachedResult | None:
        """Do as `lookup`, but count hits alone: who finds nothing goes on to `lookup`, which counts the miss."""
        found = self._stores.find(key)
        if found is None:
            return None
        self.count("exact", "hit", found.entry.cost)
        return CachedResult(found.entry.value, "exact", found.store, found.entry.cost)

    def store(self, key: str, value: bytes, *, seconds: float) -> None:
        """Remember `value` under `key`, and that it took `seconds` s to compute. A store that fails goes without it."""
        self._stores.put(key, value, seconds)

    def supersets(self, settings: str, classes: Sequence[int]) -> list[str]:
        """Return the keys of plans under the same settings for all of `classes` and more, fewest classes first.

        Those in stores that fail are not among them, and one that is may have gone when it is looked up.

        Parameters
        ----------
        settings
            `exact_key` of everything but the user, as in `plan_key`.
        classes
            The user's classes.
        """
        wanted = set(classes)
        # Told apart by their text first: there may be thousands, and most are not for these classes.
        needed = [f"-{label}-" for label in sorted(wanted)]
        found: list[tuple[int, str]] = []
        for key in self._stores.keys_within_reach(f"{settings}/"):
            listed = f"-{key[len(settings) + 1 :].partition('/')[0]}-"
            if not all(label in listed for label in needed):
                continue
            parsed = parse_plan_key(key)
            if parsed is not None and len(parsed.classes) > len(wanted):
                found.append((len(parsed.classes), key))
        return [key for _, key in sorted(found)]

    def flight(self, key: str) -> AbstractContextManager[None]:
        """Return a context that at most one holder for `key` is in, among threads, processes and machines.

        Others wait until it is left, then enter one by one: each must look for the result again before it computes
        anything. A holder may take as long as it likes, as long as it lives: a thread renews its lock. One that died
        delays the others by `lock_seconds` at most. After `wait_seconds` they go on without waiting any longer. Between
        those who do not share a store that works, nobody waits. A thread must not enter under the same key twice.
        """
        return self._flights.flight(key)

    def count(self, tier: Tier, outcome: Outcome, seconds_saved: float = 0.0) -> None:
        """Count a request that met a tier, and what a hit saved, in s."""
        self._add(tier, **{_COUNTED[outcome]: 1}, seconds_saved=seconds_saved)

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
            tiers = dict(self._tiers)
        return CacheStatistics(**tiers, stores=self._stores.statistics())

    def close(self) -> None:
        """Close the stores; closing twice is no error."""
        self._stores.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _add(self, tier: Tier, **more: float) -> None:
        with self._lock:
            was = self._tiers[tier]
            self._tiers[tier] = dataclasses.replace(
                was, **{name: getattr(was, name) + number for name, number in more.items()}
            )
