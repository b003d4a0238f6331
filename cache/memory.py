"""The store in this process's memory: limited by bytes, least recently used or least worth going first."""
# ruff: noqa: D102 - the seam, store.py, describes the methods that a store must have

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias

from cache.entry import Entry, size_of
from cache.errors import BudgetError
from cache.eviction import CostAwareEntries, Item, LruEntries
from cache.statistics import StoreStatistics
from cache.store import Store

if TYPE_CHECKING:
    from typing import Final

__all__ = ["POLICIES", "MemoryStore", "Policy"]

Policy: TypeAlias = Literal["lru", "cost"]
"""What goes first: the least recently used, or what saves the fewest seconds per byte (GreedyDual-Size)."""

POLICIES: Final[tuple[Policy, ...]] = ("lru", "cost")


class MemoryStore(Store):
    """Keep entries whose keys and values together fit in a number of bytes.

    Parameters
    ----------
    max_bytes
        Limit on the bytes of keys and values held. Python's own overhead, about 400 bytes an entry, comes on top.
    policy
        What goes first when there is no room.

    Raises
    ------
    BudgetError
        If `max_bytes` is not positive.
    """

    name: ClassVar[str] = "memory"

    def __init__(self, max_bytes: int, policy: Policy = "cost") -> None:
        if max_bytes <= 0:
            raise BudgetError(f"memory limit is {max_bytes} bytes: give a positive number")
        self._entries = CostAwareEntries(max_bytes) if policy == "cost" else LruEntries(max_bytes)
        self._locks: dict[str, tuple[str, float]] = {}  # name -> owner, and until when by the monotonic clock
        self._hits = 0
        self._misses = 0
        self._lock = threading.Lock()

    def fetch(self, key: str) -> Entry | None:
        with self._lock:
            item = self._entries.get(key)
            if item is None:
                self._misses += 1
                return None
            self._hits += 1
            return item.entry

    def put(self, key: str, value: bytes, cost: float = 0.0) -> None:
        with self._lock:
            # The former value goes first: it must neither outlive a value too large to keep nor count as evicted.
            self._entries.pop(key, None)
            if size_of(key, value) <= self._entries.maxsize:
                self._entries[key] = Item(key, Entry(value, cost))

    def touch(self, key: str) -> None:
        with self._lock:
            self._entries.get(key)

    def delete(self, key: str) -> None:
        with self._lock:
            self._entries.pop(key, None)

    def clear(self) -> None:
        with self._lock:
            for key in list(self._entries):
                del self._entries[key]

    def keys(self, prefix: str = "") -> list[str]:
        with self._lock:
            return [key for key in self._entries if key.startswith(prefix)]

    def __len__(self) -> int:
        with self._lock:
            return len(self._entries)

    def acquire(self, name: str, owner: str, seconds: float) -> bool:
        now = time.monotonic()
        with self._lock:
            holder, until = self._locks.get(name, (owner, now))
            if holder != owner and now < until:
                return False
            self._locks[name] = owner, now + seconds
            return True

    def release(self, name: str, owner: str) -> None:
        with self._lock:
            if self._locks.get(name, ("", 0.0))[0] == owner:
                del self._locks[name]

    def statistics(self) -> tuple[StoreStatistics, ...]:
        with self._lock:
            return (
                StoreStatistics(
                    name=self.name,
                    entries=len(self._entries),
                    bytes=int(self._entries.currsize),
                    hits=self._hits,
                    misses=self._misses,
                    evictions=self._entries.evictions,
                ),
            )

    def close(self) -> None:
        self.clear()
