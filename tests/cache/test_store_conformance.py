"""What every store does, whatever it keeps its bytes in. A new store is one more entry in `STORES`."""

from __future__ import annotations

import random
import threading
import time
from typing import TYPE_CHECKING

import pytest

from cache import BudgetError, Entry, LayeredStore, MemoryStore, RedisStore, SqliteStore, Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

STORES: dict[str, Callable[[Path], Store]] = {
    "memory": lambda _: MemoryStore(1_000_000),
    "memory-by-cost": lambda _: MemoryStore(1_000_000, "cost"),
    "sqlite": lambda folder: SqliteStore(folder / "plans.sqlite"),
    # The memory holds a few entries only, so that most of them have to come back from the file.
    "layered": lambda folder: LayeredStore(MemoryStore(100), SqliteStore(folder / "plans.sqlite")),
}
ON_A_SERVER: dict[str, Callable[[Path, str], Store]] = {
    "redis": lambda _, url: RedisStore(url, timeout=10),
    "three layers": lambda folder, url: LayeredStore(
        MemoryStore(100), SqliteStore(folder / "plans.sqlite", max_bytes=1_000), RedisStore(url, timeout=10)
    ),
}


@pytest.fixture(params=[*STORES, *ON_A_SERVER])
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Store]:
    if request.param in STORES:
        return lambda: STORES[request.param](tmp_path)
    url = request.getfixturevalue("redis_url")
    return lambda: ON_A_SERVER[request.param](tmp_path, url)


@pytest.fixture
def store(open_store: Callable[[], Store]) -> Iterator[Store]:
    with open_store() as opened:
        yield opened


class TestEveryStore:
    def test_starts_empty(self, store: Store) -> None:
        assert len(store) == 0
        assert store.keys() == []
        assert store.get("00") is None

    def test_returns_what_was_put(self, store: Store) -> None:
        store.put("00", b"first")
        store.put("01", b"second")
        assert store.get("00") == b"first"
        assert store.get("01") == b"second"
        assert sorted(store.keys()) == ["00", "01"]
        assert len(store) == 2

    @pytest.mark.parametrize("value", [b"", b"\x00", bytes(range(256)), b"\xff\xfe", b"v" * 100_000])
    def test_takes_any_bytes(self, store: Store, value: bytes) -> None:
        store.put("00", value)
        got = store.get("00")
        assert got == value
        assert type(got) is bytes

    @pytest.mark.parametrize("key", ["threshold/ab", "a b*[c]?\\", "é" * 256, "k" * 512, "\U0010ffff", "a/2-7/ff"])
    def test_takes_any_text_of_512_bytes_as_a_key(self, store: Store, key: str) -> None:
        store.put(key, b"a plan")
        store.put("00", b"another")
        assert store.get(key) == b"a plan"
        assert sorted(store.keys()) == sorted(["00", key])
        assert store.keys(key) == [key]
        assert store.acquire(key, "one", 60)
        store.delete(key)
        assert store.keys() == ["00"]

    @pytest.mark.parametrize("cost", [0.0, 0.1, 1e-300, 12345.678])
    def test_returns_what_a_value_had_cost(self, store: Store, cost: float) -> None:
        store.put("00", b"a plan", cost)
        assert store.fetch("00") == Entry(b"a plan", cost)
        assert store.fetch("01") is None

    def test_lists_the_keys_with_a_prefix(self, store: Store) -> None:
        for key in ("a", "ab", "ab/1", "ab/2", "abc", "b", "", "ab\U0010ffff"):
            store.put(key, b"value")
        assert sorted(store.keys("ab")) == ["ab", "ab/1", "ab/2", "abc", "ab\U0010ffff"]
        assert sorted(store.keys("ab/")) == ["ab/1", "ab/2"]
        assert store.keys("ac") == []
        assert len(store.keys()) == 8

    def test_puts_in_place_of_the_former_value(self, store: Store) -> None:
        store.put("00", b"a long former value")
        store.put("00", b"new")
        assert store.get("00") == b"new"
        assert len(store) == 1

    def test_keys_are_told_apart_by_letter_and_length(self, store: Store) -> None:
        for key in ("a", "aa", "b"):
            store.put(key, key.encode())
        assert [store.get(key) for key in ("a", "aa", "b", "bb")] == [b"a", b"aa", b"b", None]

    def test_deletes_one_entry(self, store: Store) -> None:
        store.put("00", b"goes")
        store.put("01", b"stays")
        store.delete("00")
        assert store.get("00") is None
        assert store.get("01") == b"stays"
        assert store.keys() == ["01"]

    def test_deleting_or_touching_what_is_not_there_is_no_error(self, store: Store) -> None:
        store.delete("00")
        store.touch("00")
        assert len(store) == 0

    def test_clears(self, store: Store) -> None:
        for number in range(10):
            store.put(f"{number:02x}", b"value")
        store.clear()
        assert len(store) == 0
        assert store.get("03") is None
        assert [layer.bytes for layer in store.statistics()] == [0] * len(store.statistics())

    def test_can_be_filled_again_after_clearing(self, store: Store) -> None:
        store.put("00", b"former")
        store.clear()
        store.put("00", b"new")
        assert store.get("00") == b"new"

    def test_counts_hits_and_misses_entries_and_bytes(self, store: Store) -> None:
        store.put("00", b"12345")
        store.get("00")
        store.get("00")
        store.get("01")
        fastest = store.statistics()[0]
        assert (fastest.hits, fastest.misses) == (2, 1)
        assert (fastest.entries, fastest.bytes) == (1, len("00") + len(b"12345"))
        assert (fastest.evictions, fastest.corrupt, fastest.faults) == (0, 0, 0)

    def test_closing_twice_is_no_error(self, store: Store) -> None:
        store.close()
        store.close()

    def test_threads_get_what_was_put_under_the_key_or_nothing(self, store: Store) -> None:
        keys = [f"{number:02x}" for number in range(16)]
        wrong: list[object] = []
        start = threading.Barrier(4)

        def hammer(seed: int) -> None:
            choose = random.Random(seed)
            try:
                start.wait()
                for _ in range(150):
                    key = choose.choice(keys)
                    what = choose.random()
                    if what < 0.4:
                        store.put(key, key.encode() * choose.randint(1, 40))
                    elif what < 0.9:
                        value = store.get(key)
                        if value is not None and value != key.encode() * (len(value) // 2):
                            wrong.append((key, value))
                    else:
                        store.delete(key)
            except Exception as error:  # noqa: BLE001 - whatever is raised in the thread must reach the test
                wrong.append(error)

        threads = [threading.Thread(target=hammer, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []
        held = {key: value for key in store.keys() if (value := store.get(key)) is not None}  # noqa: SIM118 - no mapping
        slowest = store.statistics()[-1]
        assert slowest.entries == len(held)
        assert slowest.bytes == sum(len(key) + len(value) for key, value in held.items())
        assert all(layer.faults == 0 and layer.corrupt == 0 for layer in store.statistics())


class TestLocksOfEveryStore:
    def test_one_owner_at_a_time(self, store: Store) -> None:
        assert store.acquire("plan", "one", 60)
        assert not store.acquire("plan", "two", 60)
        assert store.acquire("another", "two", 60)
        store.release("plan", "one")
        assert store.acquire("plan", "two", 60)
        assert not store.acquire("plan", "one", 60)

    def test_only_its_owner_gives_it_back(self, store: Store) -> None:
        store.acquire("plan", "one", 60)
        store.release("plan", "two")
        store.release("never taken", "two")
        assert not store.acquire("plan", "two", 60)

    def test_after_its_time_it_is_anybodys(self, store: Store) -> None:
        assert store.acquire("plan", "one", 0.02)
        wait_until(lambda: store.acquire("plan", "two", 60))
        store.release("plan", "one")  # too late: it is another's by now
        assert not store.acquire("plan", "one", 60)

    def test_its_owner_renews_it(self, store: Store) -> None:
        assert store.acquire("plan", "one", 0.05)
        assert store.acquire("plan", "one", 60)
        time.sleep(0.06)
        assert not store.acquire("plan", "two", 60)

    def test_it_is_no_entry_and_outlasts_them(self, store: Store) -> None:
        store.put("plan", b"a plan")
        store.acquire("plan", "one", 60)
        assert store.get("plan") == b"a plan"
        store.clear()
        assert len(store) == 0
        assert not store.acquire("plan", "two", 60)

    def test_of_many_threads_one_gets_it(self, store: Store) -> None:
        got: list[bool] = []
        start = threading.Barrier(8)

        def take(owner: str) -> None:
            start.wait()
            got.append(store.acquire("plan", owner, 60))

        threads = [threading.Thread(target=take, args=(str(number),)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(got) == [False] * 7 + [True]

    def test_those_who_share_a_lasting_store_share_its_locks(
        self, store: Store, open_store: Callable[[], Store], request: pytest.FixtureRequest
    ) -> None:
        alone = "memory" in request.node.callspec.id
        with open_store() as other:
            assert store.acquire("plan", "one", 60)
            assert other.acquire("plan", "two", 60) == alone
            store.release("plan", "one")
            assert other.acquire("plan", "two", 60)
            assert store.acquire("plan", "one", 60) == alone


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


LIMITED: dict[str, Callable[[Path, int], Store]] = {
    "memory": lambda _, max_bytes: MemoryStore(max_bytes),
    "memory-by-cost": lambda _, max_bytes: MemoryStore(max_bytes, "cost"),  # all costs equal: the same as LRU
    "sqlite": lambda folder, max_bytes: SqliteStore(folder / "plans.sqlite", max_bytes=max_bytes),
}


@pytest.mark.parametrize("kind", LIMITED)
class TestEveryStoreWithALimit:
    def test_evicts_the_least_recently_used_first(self, kind: str, tmp_path: Path) -> None:
        with LIMITED[kind](tmp_path, 30) as store:
            for key in ("aa", "bb", "cc"):
                store.put(key, b"8 bytes.")
            store.get("aa")
            store.put("dd", b"8 bytes.")  # bb has not been used for longest
            assert sorted(store.keys()) == ["aa", "cc", "dd"]
            store.touch("cc")
            store.put("ee", b"8 bytes.")  # now it is aa
            assert sorted(store.keys()) == ["cc", "dd", "ee"]
            assert store.statistics()[0].evictions == 2
            assert store.statistics()[0].bytes == 30

    def test_evicts_as_many_as_the_new_value_needs(self, kind: str, tmp_path: Path) -> None:
        with LIMITED[kind](tmp_path, 30) as store:
            for key in ("aa", "bb", "cc"):
                store.put(key, b"8 bytes.")
            store.put("dd", b"18 bytes, as said.")
            assert sorted(store.keys()) == ["cc", "dd"]

    def test_a_value_that_grows_evicts_others_not_itself(self, kind: str, tmp_path: Path) -> None:
        with LIMITED[kind](tmp_path, 30) as store:
            for key in ("aa", "bb", "cc"):
                store.put(key, b"8 bytes.")
            store.put("aa", b"18 bytes, as said.")
            assert sorted(store.keys()) == ["aa", "cc"]
            assert store.statistics()[0].evictions == 1

    def test_a_value_larger_than_the_limit_is_not_kept_and_evicts_nothing_else(self, kind: str, tmp_path: Path) -> None:
        with LIMITED[kind](tmp_path, 30) as store:
            store.put("aa", b"former")
            store.put("bb", b"stays")
            store.put("aa", b"x" * 29)
            assert store.get("aa") is None
            assert store.get("bb") == b"stays"
            assert store.statistics()[0].evictions == 0

    @pytest.mark.parametrize("max_bytes", [0, -1])
    def test_a_limit_that_nothing_meets_is_refused(self, kind: str, tmp_path: Path, max_bytes: int) -> None:
        with pytest.raises(BudgetError, match=f"limit is {max_bytes} bytes: give a positive number"):
            LIMITED[kind](tmp_path, max_bytes)
