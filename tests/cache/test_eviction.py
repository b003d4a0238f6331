from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from cache import Entry, MemoryStore
from cache.eviction import CostAwareEntries, Item

KEYS = st.sampled_from([f"{number:02x}" for number in range(12)])


def test_what_is_dear_for_its_bytes_outlives_what_is_cheap() -> None:
    with MemoryStore(30, "cost") as store:
        store.put("aa", b"8 bytes.", 100.0)
        store.put("bb", b"8 bytes.", 1.0)
        store.put("cc", b"8 bytes.", 10.0)
        store.put("dd", b"8 bytes.", 5.0)
        assert sorted(store.keys()) == ["aa", "cc", "dd"]
        store.put("ee", b"18 bytes, as said.", 11.0)  # less for its bytes than cc, more than dd
        assert sorted(store.keys()) == ["aa", "ee"]


def test_what_nobody_asks_for_goes_at_last_however_dear() -> None:
    with MemoryStore(30, "cost") as store:
        store.put("aa", b"8 bytes.", 3.0)
        for number in range(10):
            store.put(f"{number:02x}", b"8 bytes.", 1.0)
        assert "aa" not in store.keys()  # noqa: SIM118 - no mapping


def test_with_least_recently_used_the_cost_does_not_count() -> None:
    with MemoryStore(20, "lru") as store:
        for key, cost in (("aa", 100.0), ("bb", 1.0), ("cc", 1.0)):
            store.put(key, b"8 bytes.", cost)
        assert sorted(store.keys()) == ["bb", "cc"]


class PlainGreedyDual:
    """The algorithm as the paper writes it: worth in a table, the least looked for in all of it."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.floor = 0.0
        self.uses = 0
        self.entries: dict[str, tuple[float, int, int, float]] = {}  # worth, use, size, cost

    def use(self, key: str, size: int, cost: float) -> None:
        self.uses += 1
        self.entries[key] = self.floor + cost / size, self.uses, size, cost

    def get(self, key: str) -> None:
        if key in self.entries:
            self.use(key, *self.entries[key][2:])

    def put(self, key: str, size: int, cost: float) -> None:
        self.entries.pop(key, None)
        if size > self.room:
            return
        while sum(entry[2] for entry in self.entries.values()) + size > self.room:
            least = min(self.entries, key=lambda name: self.entries[name][:2])
            self.floor = self.entries.pop(least)[0]
        self.use(key, size, cost)


@given(
    steps=st.lists(st.tuples(KEYS, st.none() | st.tuples(st.integers(0, 40), st.integers(0, 20))), max_size=80),
)
def test_keeps_what_the_algorithm_as_published_keeps(steps: list[tuple[str, tuple[int, int] | None]]) -> None:
    plain = PlainGreedyDual(100)
    with MemoryStore(100, "cost") as store:
        for key, value in steps:
            if value is None:
                store.get(key)
                plain.get(key)
            else:
                length, cost = value
                store.put(key, b"v" * length, float(cost))
                plain.put(key, len(key) + length, float(cost))
            assert sorted(store.keys()) == sorted(plain.entries)


def test_its_bookkeeping_does_not_grow_with_use() -> None:
    entries = CostAwareEntries(1000)
    choose = random.Random(0)
    for number in range(10):
        entries[str(number)] = Item(str(number), Entry(b"value", 1.0))
    for _ in range(10_000):
        assert entries[str(choose.randrange(10))].entry.value == b"value"
    assert len(entries._heap) < 200
