from __future__ import annotations

import logging
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from cache import Entry, Found, LayeredStore, MemoryStore, SqliteStore, StoreError
from tests.cache.test_sqlite import fill, zero_the_index

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def limited(file: SqliteStore, pragma: str) -> None:
    """Let the file meet what a disk would do to it."""
    assert file._opened is not None
    file._opened[0].execute(f"PRAGMA {pragma}")


@pytest.fixture
def memory() -> MemoryStore:
    return MemoryStore(1_000_000)


@pytest.fixture
def file(tmp_path: Path) -> Iterator[SqliteStore]:
    with SqliteStore(tmp_path / "plans.sqlite") as store:
        yield store


def test_says_which_store_answered(memory: MemoryStore, file: SqliteStore) -> None:
    file.put("00", b"a plan")
    store = LayeredStore(memory, file)
    assert store.find("00") == Found(Entry(b"a plan"), "sqlite")
    assert store.find("00") == Found(Entry(b"a plan"), "memory")
    assert store.find("01") is None


def test_a_put_reaches_every_layer(memory: MemoryStore, file: SqliteStore) -> None:
    LayeredStore(memory, file).put("00", b"a plan")
    assert memory.get("00") == b"a plan"
    assert file.get("00") == b"a plan"


def test_what_the_memory_evicted_comes_back_from_the_file(file: SqliteStore) -> None:
    store = LayeredStore(MemoryStore(10), file)
    store.put("00", b"8 bytes.")
    store.put("01", b"8 bytes.")
    assert store.find("00") == Found(Entry(b"8 bytes."), "sqlite")
    assert store.find("00") == Found(Entry(b"8 bytes."), "memory")


def test_a_value_too_large_for_the_memory_is_served_from_the_file(file: SqliteStore) -> None:
    store = LayeredStore(MemoryStore(10), file)
    store.put("00", b"more than ten bytes")
    assert store.find("00") == Found(Entry(b"more than ten bytes"), "sqlite")
    assert store.find("00") == Found(Entry(b"more than ten bytes"), "sqlite")


def test_the_file_keeps_what_the_memory_answers_most(memory: MemoryStore, tmp_path: Path) -> None:
    with SqliteStore(tmp_path / "plans.sqlite", max_bytes=30) as file:
        store = LayeredStore(memory, file)
        for key in ("aa", "bb", "cc"):
            store.put(key, b"8 bytes.")
        assert store.find("aa") == Found(Entry(b"8 bytes."), "memory")
        store.put("dd", b"8 bytes.")
        assert sorted(file.keys()) == ["aa", "cc", "dd"]


def test_memory_alone_is_a_row_of_one(memory: MemoryStore) -> None:
    store = LayeredStore(memory)
    store.put("00", b"a plan")
    assert store.find("00") == Found(Entry(b"a plan"), "memory")
    assert [layer.name for layer in store.statistics()] == ["memory"]


def test_a_damaged_row_is_a_miss_and_a_new_put_mends_it(memory: MemoryStore, file: SqliteStore) -> None:
    file.put("00", b"a plan")
    with closing(sqlite3.connect(file.path)) as database, database:
        database.execute("UPDATE entries SET entry = 'damaged'")
    store = LayeredStore(memory, file)
    assert store.find("00") is None
    assert memory.keys() == []
    store.put("00", b"a plan")
    assert file.get("00") == b"a plan"
    assert [layer.corrupt for layer in store.statistics()] == [0, 1]


class TestAFailingLayer:
    def test_with_a_full_disk_the_memory_goes_on(
        self, memory: MemoryStore, file: SqliteStore, caplog: pytest.LogCaptureFixture
    ) -> None:
        store = LayeredStore(memory, file)
        store.put("00", b"before")
        limited(file, "max_page_count = 1")
        with caplog.at_level(logging.WARNING, "cache"):
            for key in ("01", "02", "03"):
                store.put(key, b"v" * 100_000)
                assert store.find(key) == Found(Entry(b"v" * 100_000), "memory")
        assert file.get("00") == b"before"
        assert file.get("01") is None
        assert [layer.faults for layer in store.statistics()] == [0, 3]
        assert len(caplog.records) == 1
        assert f"{file.path}: database or disk is full" in caplog.text

    def test_with_a_damaged_file_it_goes_on_with_a_new_one(
        self, tmp_path: Path, memory: MemoryStore, caplog: pytest.LogCaptureFixture
    ) -> None:
        path = tmp_path / "damaged.sqlite"
        fill(path)
        zero_the_index(path)
        with caplog.at_level(logging.WARNING, "cache"), LayeredStore(memory, SqliteStore(path)) as store:
            assert [store.find(f"{number:02x}") for number in range(5)] == [None] * 5
            store.put("00", b"a new plan")
            memory.clear()
            assert store.find("00") == Found(Entry(b"a new plan"), "sqlite")
            assert store.statistics()[1].faults == 1
        assert len(caplog.records) == 1
        assert f"{path}: database disk image is malformed: set aside as damaged.sqlite.damaged" in caplog.text

    def test_a_read_only_file_still_answers(self, memory: MemoryStore, file: SqliteStore) -> None:
        file.put("00", b"a plan")
        limited(file, "query_only = 1")
        store = LayeredStore(memory, file)
        assert store.find("00") == Found(Entry(b"a plan"), "sqlite")
        store.put("01", b"a new plan")
        assert store.find("01") == Found(Entry(b"a new plan"), "memory")
        assert store.statistics()[1].faults == 1

    def test_what_must_be_true_of_every_layer_raises(self, memory: MemoryStore, file: SqliteStore) -> None:
        store = LayeredStore(memory, file)
        store.put("00", b"a plan")
        limited(file, "query_only = 1")
        with pytest.raises(StoreError, match="attempt to write a readonly database"):
            store.clear()
        with pytest.raises(StoreError, match="attempt to write a readonly database"):
            store.delete("00")
        assert store.find("00") == Found(Entry(b"a plan"), "memory")

    def test_statistics_are_shown_all_the_same(self, memory: MemoryStore, file: SqliteStore) -> None:
        store = LayeredStore(memory, file)
        store.put("00", b"a plan")
        file.close()
        assert store.find("00") == Found(Entry(b"a plan"), "memory")
        in_memory, in_file = store.statistics()
        assert in_memory.entries == 1
        assert (in_file.entries, in_file.bytes) == (None, None)

    def test_closing_closes_every_layer(self, memory: MemoryStore, file: SqliteStore) -> None:
        LayeredStore(memory, file).close()
        assert len(memory) == 0
        with pytest.raises(StoreError, match="closed"):
            file.get("00")
