"""What a cache could reach that knew the future: Belady's rule, and a bound on the hits of any policy."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, ClassVar, Final

import numpy as np

from cloud_pruner.cache_study.policies import Ranked

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["Belady", "most_hits"]

_NEVER: Final = 1 << 62


class Belady(Ranked):
    """What is needed again last goes first; an entry that is needed later than those it would displace stays out.

    With entries of one size no policy has more hits (Belady, IBM Systems Journal 1966). By bytes the same rule is
    kept, which then is an approximation: the optimum is NP-hard to find, and other policies may come out ahead.

    Parameters
    ----------
    requests
        The entries that will be asked for, in order; for each of them there must be one `use` or `admit`.
    """

    name: ClassVar[str] = "Belady"

    def __init__(self, capacity: int, requests: Sequence[int]) -> None:
        super().__init__(capacity)
        upcoming: dict[int, int] = {}
        self._next = [_NEVER] * len(requests)  # for each request, when its entry is asked for again
        for position in range(len(requests) - 1, -1, -1):
            self._next[position] = upcoming.get(requests[position], _NEVER)
            upcoming[requests[position]] = position
        self._now = 0

    def use(self, entry: int) -> None:
        """Note that an entry that is held was asked for."""
        self._set_rank(entry, -self._next[self._now])
        self._now += 1

    def admit(self, entry: int, size: int, cost: float) -> None:  # noqa: ARG002 - the same face for all
        """Take in an entry, unless it is needed later than what would have to go for it."""
        needed = self._next[self._now]
        self._now += 1
        if size > self._capacity or needed == _NEVER:
            return
        room = self._free
        victims: list[tuple[float, int, int]] = []
        while room < size:
            rank, last = self._least()
            if -rank <= needed:
                for victim in victims:
                    heapq.heappush(self._heap, victim)
                return
            victims.append(heapq.heappop(self._heap))
            room += self._sizes[last]
        for _, _, last in victims:
            self._drop(last)
        self._keep(entry, size)
        self._set_rank(entry, -needed)


def most_hits(requests: NDArray[np.int64], sizes: NDArray[np.int64], capacity: int) -> int:
    """Return a number of hits that no policy can exceed, with entries of any sizes.

    To hit, an entry must be held since it was last asked for: its bytes times that many requests are taken. In all
    there are `capacity` times the requests to take. The bound spends them on the cheapest hits, wherever they lie
    (PFOO-L: Berger, Beckmann and Harchol-Balter, POMACS 2018).

    Parameters
    ----------
    requests
        `(n,)`: entries asked for, in order.
    sizes
        `(entries,)`: bytes of each.
    """
    order = np.argsort(requests, kind="stable")  # requests for one entry are neighbours now, in order of time
    again = requests[order][1:] == requests[order][:-1]
    waits = np.diff(order)[again]
    costs = np.sort((waits * sizes[requests[order][1:][again]])[sizes[requests[order][1:][again]] <= capacity])
    return int(np.searchsorted(np.cumsum(costs), capacity * len(requests), side="right"))
