"""Eviction policies: which entries go when a cache of so many bytes is full.

| name | evicts | source |
|---|---|---|
| LRU | what was used longest ago | cachetools, as the cache's own memory store |
| LRU, split | the same, but entries of up to 1 kB have a tenth of the cache to themselves | our own |
| LFU | what was used least often since it came; of those, the first to reach that count | cachetools |
| SIEVE | the first entry, from the oldest on, that was not used since the hand last passed | Zhang et al., NSDI 2024 |
| S3-FIFO | what was hardly used in a small queue, before it gets into the main one | Yang et al., SOSP 2023 |
| GDS | the least cost / bytes, on a clock that runs with what was evicted | Cao and Irani, USITS 1997 |
| GDSF | the least uses x cost / bytes, likewise | Cherkasova, HPL-98-69R1, 1998 |

Entries are numbers. An entry larger than the whole cache is not kept, and an entry keeps its size while it is held.
"""
# ruff: noqa: D102, ARG002 - the seam, Policy, describes the methods; all have its parameters

from __future__ import annotations

import heapq
from abc import abstractmethod
from collections import OrderedDict
from typing import TYPE_CHECKING, ClassVar, Final, Protocol

from cachetools import LFUCache, LRUCache

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cachetools import Cache

__all__ = [
    "POLICIES",
    "GreedyDual",
    "LeastFrequent",
    "LeastRecent",
    "Policy",
    "Ranked",
    "S3Fifo",
    "Sieve",
    "SplitLeastRecent",
]

_NOBODY: Final = -1
_SMALL_SHARE: Final = 0.1  # of the bytes, S3-FIFO's small queue; the paper's figure
_MOST_USES: Final = 3  # two bits, the paper's figure
_USES_FOR_MAIN: Final = 2
_LITTLE: Final = 1024  # bytes: a threshold is far below, a plan above
_LITTLE_SHARE: Final = 0.1  # of the bytes, for entries no larger than that


class Policy(Protocol):
    """A cache of `capacity` bytes that holds numbers instead of values.

    Attributes
    ----------
    name
        What it is called in tables.
    evicted
        Entries that have gone, in order, since somebody last cleared the list.
    """

    name: ClassVar[str]
    evicted: list[int]

    @abstractmethod
    def __contains__(self, entry: int) -> bool: ...

    @abstractmethod
    def use(self, entry: int) -> None:
        """Note that an entry that is held was asked for."""

    @abstractmethod
    def admit(self, entry: int, size: int, cost: float) -> None:
        """Take in an entry that is not held, of `size` bytes, which took `cost` seconds to make."""


class _FromCachetools(Policy):
    """A policy of cachetools; it keeps the sizes as values."""

    kind: ClassVar[Callable[..., Cache[int, int]]]

    def __init__(self, capacity: int) -> None:
        self.evicted = []
        self._capacity = capacity
        policy = self

        class Noting(self.kind):  # type: ignore[name-defined, misc]
            def popitem(self) -> tuple[int, int]:
                """Make room, as cachetools does it, and note what went."""
                item: tuple[int, int] = super().popitem()
                policy.evicted.append(item[0])
                return item

        self._entries: Cache[int, int] = Noting(capacity, getsizeof=int)

    def __contains__(self, entry: int) -> bool:
        return entry in self._entries

    def use(self, entry: int) -> None:
        self._entries[entry]

    def admit(self, entry: int, size: int, cost: float) -> None:
        if size <= self._capacity:
            self._entries[entry] = size


class LeastRecent(_FromCachetools):
    """LRU."""

    name: ClassVar[str] = "LRU"
    kind = LRUCache


class SplitLeastRecent(Policy):
    """LRU twice: small entries and large ones do not displace each other."""

    name: ClassVar[str] = "LRU, split"

    def __init__(self, capacity: int) -> None:
        little = int(_LITTLE_SHARE * capacity)
        self._little, self._large = LeastRecent(little), LeastRecent(capacity - little)
        self._little.evicted = self.evicted = self._large.evicted

    def __contains__(self, entry: int) -> bool:
        return entry in self._large or entry in self._little

    def use(self, entry: int) -> None:
        (self._large if entry in self._large else self._little).use(entry)

    def admit(self, entry: int, size: int, cost: float) -> None:
        (self._little if size <= _LITTLE else self._large).admit(entry, size, cost)


class LeastFrequent(_FromCachetools):
    """LFU; an entry that comes back starts again at one use."""

    name: ClassVar[str] = "LFU"
    kind = LFUCache


class Sieve(Policy):
    """SIEVE: a queue by age, and a hand that moves from the oldest towards the newest and round again."""

    name: ClassVar[str] = "SIEVE"

    def __init__(self, capacity: int) -> None:
        self.evicted = []
        self._capacity = self._free = capacity
        self._sizes: dict[int, int] = {}
        self._used: set[int] = set()
        # The queue is a ring through `_NOBODY`: its newer neighbour is the oldest entry, its older one the newest.
        self._newer = {_NOBODY: _NOBODY}
        self._older = {_NOBODY: _NOBODY}
        self._hand = _NOBODY

    def __contains__(self, entry: int) -> bool:
        return entry in self._sizes

    def use(self, entry: int) -> None:
        self._used.add(entry)

    def admit(self, entry: int, size: int, cost: float) -> None:
        if size > self._capacity:
            return
        while self._free < size:
            self._evict()
        self._free -= size
        self._sizes[entry] = size
        newest = self._older[_NOBODY]
        self._newer[newest], self._older[entry] = entry, newest
        self._newer[entry], self._older[_NOBODY] = _NOBODY, entry

    def _evict(self) -> None:
        hand, newer = self._hand, self._newer
        while hand == _NOBODY or hand in self._used:
            self._used.discard(hand)
            hand = newer[hand]
        self._hand = newer.pop(hand)
        older = self._older.pop(hand)
        newer[older], self._older[self._hand] = self._hand, older
        self._free += self._sizes.pop(hand)
        self.evicted.append(hand)


class S3Fifo(Policy):
    """S3-FIFO: a small queue where new entries have to prove themselves, a main one, and a memory of those that failed.

    By bytes, the small queue may hold a tenth of the cache, and the memory names of entries that would fill the rest.
    """

    name: ClassVar[str] = "S3-FIFO"

    def __init__(self, capacity: int) -> None:
        self.evicted = []
        self._capacity = capacity
        self._small_most = int(_SMALL_SHARE * capacity)
        self._ghosts_most = capacity - self._small_most
        self._small: OrderedDict[int, int] = OrderedDict()  # entry -> bytes, oldest first; so the others
        self._main: OrderedDict[int, int] = OrderedDict()
        self._ghosts: OrderedDict[int, int] = OrderedDict()
        self._small_bytes = self._main_bytes = self._ghost_bytes = 0
        self._uses: dict[int, int] = {}

    def __contains__(self, entry: int) -> bool:
        return entry in self._uses

    def use(self, entry: int) -> None:
        self._uses[entry] = min(self._uses[entry] + 1, _MOST_USES)

    def admit(self, entry: int, size: int, cost: float) -> None:
        if size > self._capacity:
            return
        came_back = self._ghosts.pop(entry, None)
        if came_back is not None:
            self._ghost_bytes -= came_back
        while self._small_bytes + self._main_bytes + size > self._capacity:
            if self._small and (self._small_bytes >= self._small_most or not self._main):
                self._leave_small()
            else:
                self._leave_main()
        self._uses[entry] = 0
        if came_back is None:
            self._small[entry] = size
            self._small_bytes += size
        else:
            self._main[entry] = size
            self._main_bytes += size

    def _leave_small(self) -> None:
        """Move the oldest of the small queue to the main one, or out."""
        entry, size = self._small.popitem(last=False)
        self._small_bytes -= size
        if self._uses[entry] >= _USES_FOR_MAIN:
            self._uses[entry] = 0
            self._main[entry] = size
            self._main_bytes += size
            return
        del self._uses[entry]
        self.evicted.append(entry)
        self._ghosts[entry] = size
        self._ghost_bytes += size
        while self._ghost_bytes > self._ghosts_most:
            self._ghost_bytes -= self._ghosts.popitem(last=False)[1]

    def _leave_main(self) -> None:
        """Drop the first of the main queue that was not used; those before it go round once more for each use."""
        while True:
            entry, size = self._main.popitem(last=False)
            if not self._uses[entry]:
                break
            self._uses[entry] -= 1
            self._main[entry] = size
        self._main_bytes -= size
        del self._uses[entry]
        self.evicted.append(entry)


class Ranked(Policy):
    """Has a rank for each entry that is held, and finds the least; subclasses say what the rank is."""

    def __init__(self, capacity: int) -> None:
        self.evicted = []
        self._capacity = self._free = capacity
        self._sizes: dict[int, int] = {}
        self._ranks: dict[int, tuple[float, int]] = {}
        self._heap: list[tuple[float, int, int]] = []  # rank, time, entry; with former ranks in it, which do not count
        self._clock = 0

    def __contains__(self, entry: int) -> bool:
        return entry in self._sizes

    def _set_rank(self, entry: int, rank: float) -> None:
        """Give an entry a rank; of equal ones, the one given first is the least."""
        self._clock += 1
        self._ranks[entry] = rank, self._clock
        heapq.heappush(self._heap, (rank, self._clock, entry))

    def _least(self) -> tuple[float, int]:
        """Return the least rank and its entry."""
        while True:
            rank, time, entry = self._heap[0]
            if self._ranks.get(entry) == (rank, time):
                return rank, entry
            heapq.heappop(self._heap)

    def _keep(self, entry: int, size: int) -> None:
        self._sizes[entry] = size
        self._free -= size

    def _drop(self, entry: int) -> None:
        self._free += self._sizes.pop(entry)
        del self._ranks[entry]
        self.evicted.append(entry)


class GreedyDual(Ranked):
    """GreedyDual-Size: entries are worth (seconds / bytes) more than what was evicted last; each use says so anew."""

    name: ClassVar[str] = "GDS"

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self._worth: dict[int, float] = {}  # cost / size
        self._uses: dict[int, int] = {}
        self._inflation = 0.0

    def use(self, entry: int) -> None:
        self._uses[entry] += 1
        self._set_rank(entry, self._inflation + self._gain(entry))

    def admit(self, entry: int, size: int, cost: float) -> None:
        if size > self._capacity:
            return
        while self._free < size:
            self._inflation, least = self._least()
            self._drop(least)
            del self._uses[least]
        self._keep(entry, size)
        self._uses[entry], self._worth[entry] = 1, cost / size
        self._set_rank(entry, self._inflation + self._gain(entry))

    def _gain(self, entry: int) -> float:
        """Return by how much more an entry is worth than what was evicted last."""
        return self._worth[entry]


class GreedyDualFrequency(GreedyDual):
    """GreedyDual-Size-Frequency: seconds / bytes count once for each use."""

    name: ClassVar[str] = "GDSF"

    def _gain(self, entry: int) -> float:
        return self._uses[entry] * self._worth[entry]


POLICIES: Final[Mapping[str, Callable[[int], Policy]]] = {
    policy.name: policy
    for policy in (LeastRecent, SplitLeastRecent, LeastFrequent, Sieve, S3Fifo, GreedyDual, GreedyDualFrequency)
}
"""Name -> what makes a cache of so many bytes."""
