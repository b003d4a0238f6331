"""Which entry goes when the memory is full: the least recently used, or the one that saves least for its room.

Entries are weighed by their bytes. Both classes count what they evict.

GreedyDual-Size: an entry is worth L + cost / size, L being the worth of the last entry evicted, and is worth that anew
whenever it is used; the least worth goes first. So what is dear and small outlives what is cheap and large, but not for
ever: L rises, and what nobody asks for is overtaken. Where costs are equal to zero it is LRU.

Source: P. Cao, S. Irani, "Cost-aware WWW proxy caching algorithms", USENIX Symposium on Internet Technologies and
Systems, 1997.
"""

from __future__ import annotations

import heapq
import itertools
from dataclasses import dataclass

from cachetools import Cache, LRUCache

from cache.entry import Entry, size_of

__all__ = ["CostAwareEntries", "Item", "LruEntries"]


@dataclass(frozen=True, slots=True)
class Item:
    """An entry with its key, which counts towards its size."""

    key: str
    entry: Entry

    @property
    def size(self) -> int:
        """Bytes of key and value."""
        return size_of(self.key, self.entry.value)


class LruEntries(LRUCache[str, Item]):
    """Entries in order of use; the least recently used goes first."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__(max_bytes, getsizeof=lambda item: item.size)
        self.evictions = 0

    def popitem(self) -> tuple[str, Item]:
        """Remove the least recently used entry: how cachetools makes room."""
        self.evictions += 1
        return super().popitem()


class CostAwareEntries(Cache[str, Item]):
    """Entries by what they save for their room (GreedyDual-Size); among equals the least recently used goes first."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__(max_bytes, getsizeof=lambda item: item.size)
        self.evictions = 0
        self._floor = 0.0  # L
        self._uses = itertools.count()
        self._worth: dict[str, tuple[float, int]] = {}
        self._heap: list[tuple[float, int, str]] = []  # also what was worth something else meanwhile

    def __getitem__(self, key: str) -> Item:
        item = super().__getitem__(key)
        self._use(item)
        return item

    def __setitem__(self, key: str, item: Item) -> None:
        super().__setitem__(key, item)
        self._use(item)

    def __delitem__(self, key: str) -> None:
        super().__delitem__(key)
        del self._worth[key]

    def popitem(self) -> tuple[str, Item]:
        """Remove the entry worth least: how cachetools makes room."""
        while True:
            worth, use, key = heapq.heappop(self._heap)
            if self._worth.get(key) == (worth, use):
                self._floor = worth
                self.evictions += 1
                return key, self.pop(key)

    def _use(self, item: Item) -> None:
        worth = self._floor + item.entry.cost / max(item.size, 1), next(self._uses)
        self._worth[item.key] = worth
        heapq.heappush(self._heap, (*worth, item.key))
        if len(self._heap) > 100 + 4 * len(self._worth):  # else it would grow with every use
            self._heap = [(*worth, key) for key, worth in self._worth.items()]
            heapq.heapify(self._heap)
