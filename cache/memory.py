"""The store in this process's memory: least recently used by bytes."""
# ruff: noqa: D102 - the seam, store.py, describes the methods that a store must have

from __future__ import annotations

import threading
from typing import ClassVar

from cachetools import LRUCache

from cache.errors import BudgetError
from cache.statistics import StoreStatistics
from cache.store import Store

__all__ = ["MemoryStore"]


class MemoryStore(Store):
    """Keep the most recently used entries whose keys and values together fit in a number of bytes.

    Parameters
    ----------
    max_bytes
        Limit on the bytes of keys and values held. Python's own overhead, about 300 bytes an entry, comes on top.

    Raises
    ------
    BudgetError
        If `max_bytes` is not positive.
    """

    name: ClassVar[str] = "memory"

    def __init__(self, max_bytes: int) -> None:
        if max_bytes <= 0:
            raise BudgetError(f"memory limit is {max_bytes} bytes: give a positive number")
        self._entries = _Entries(max_bytes)
        self._hits = 0
        self._misses = 0
        self._lock = threading.Lock()

    def get(self, key: str) -> bytes | None:
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                self._misses += 1
                return None
            self._hits += 1
            return entry[1]

    def put(self, key: str, value: bytes) -> None:
        with self._lock:
            # The former value goes first: it must neither outlive a value too large to keep nor count as evicted.
            self._entries.pop(key, None)
            if len(key) + len(value) <= self._entries.maxsize:
                self._entries[key] = key, value

    def touch(self, key: str) -> None:
        with self._lock:
            self._entries.get(key)

    def delete(self, key: str) -> None:
        with self._lock:
            self._entries.pop(key, None)

    def clear(self) -> None:
        with self._lock:
            self._entries.clear()

    def keys(self) -> list[str]:
        with self._lock:
            return list(self._entries)

    def __len__(self) -> int:
        with self._lock:
            return len(self._entries)

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


class _Entries(LRUCache[str, "tuple[str, bytes]"]):
    """Entries by key; the key is repeated in the entry because cachetools weighs the values alone."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__(max_bytes, getsizeof=lambda entry: len(entry[0]) + len(entry[1]))
        self.evictions = 0

    def popitem(self) -> tuple[str, tuple[str, bytes]]:
        """Remove the least recently used entry: how cachetools makes room."""
        self.evictions += 1
        return super().popitem()
