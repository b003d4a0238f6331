"""What every store does, whatever it keeps its bytes in. A new store is one more entry in `STORES`."""

from __future__ import annotations

import random
import threading
from typing import TYPE_CHECKING

import pytest

from cache import BudgetError, LayeredStore, MemoryStore, SqliteStore, Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

STORES: dict[str, Callable[[Path], Store]] = {
    "memory": lambda _: MemoryStore(1_000_000),
    "sqlite": lambda folder: SqliteStore(folder / "plans.sqlite"),
    # The memory holds a few entries only, so that most of them have to come back from the file.
    "layered": lambda folder: LayeredStore(MemoryStore(100), SqliteStore(folder / "plans.sqlite")),
}


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    with STORES[request.param](tmp_path) as opened:
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


LIMITED: dict[str, Callable[[Path, int], Store]] = {
    "memory": lambda _, max_bytes: MemoryStore(max_bytes),
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
