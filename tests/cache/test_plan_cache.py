from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cache import (
    CachedResult,
    CacheStatistics,
    LayeredStore,
    MemoryStore,
    PlanCache,
    SqliteStore,
    StoreStatistics,
    TierStatistics,
    exact_key,
)

if TYPE_CHECKING:
    from pathlib import Path

KEY = exact_key(model="5f2c", profile="90ab", variant="B", epsilon=0.03, classes=(2, 7), weights=(0.75, 0.25))


def test_a_request_is_answered_from_the_memory_and_after_a_restart_from_the_file(tmp_path: Path) -> None:
    path = tmp_path / "plans.sqlite"
    with PlanCache(LayeredStore(MemoryStore(1_000_000), SqliteStore(path))) as plans:
        assert plans.lookup(KEY) is None
        plans.store(KEY, b"a plan", seconds=2.5)
        assert plans.lookup(KEY) == CachedResult(b"a plan", tier="exact", store="memory", seconds=2.5)
    with PlanCache(LayeredStore(MemoryStore(1_000_000), SqliteStore(path))) as plans:
        assert plans.lookup(KEY) == CachedResult(b"a plan", tier="exact", store="sqlite", seconds=2.5)
        assert plans.lookup(KEY) == CachedResult(b"a plan", tier="exact", store="memory", seconds=2.5)


@pytest.mark.parametrize("value", [b"", b"\x00" * 9])
def test_any_bytes_are_a_result(value: bytes) -> None:
    with PlanCache(LayeredStore(MemoryStore(1_000_000))) as plans:
        plans.store(KEY, value, seconds=0.0)
        result = plans.lookup(KEY)
        assert result is not None
        assert result.value == value


def test_the_statistics_say_what_was_saved_and_where_it_lies(tmp_path: Path) -> None:
    with PlanCache(LayeredStore(MemoryStore(1_000_000), SqliteStore(tmp_path / "plans.sqlite"))) as plans:
        plans.lookup(KEY)
        plans.store(KEY, b"a plan", seconds=2.5)
        plans.lookup(KEY)
        plans.lookup(KEY)
        size = len(KEY) + 8 + len(b"a plan")  # the 8 bytes hold the seconds
        assert plans.statistics() == CacheStatistics(
            exact=TierStatistics(hits=2, misses=1, seconds_saved=5.0),
            stores=(
                StoreStatistics("memory", entries=1, bytes=size, hits=2, misses=1),
                StoreStatistics("sqlite", entries=1, bytes=size, hits=0, misses=1),
            ),
        )


def test_clearing_forgets_every_result_and_keeps_the_counts(tmp_path: Path) -> None:
    with PlanCache(LayeredStore(MemoryStore(1_000_000), SqliteStore(tmp_path / "plans.sqlite"))) as plans:
        plans.store(KEY, b"a plan", seconds=2.5)
        plans.lookup(KEY)
        plans.clear()
        assert plans.lookup(KEY) is None
        assert plans.statistics().exact == TierStatistics(hits=1, misses=1, seconds_saved=2.5)
        assert [store.entries for store in plans.statistics().stores] == [0, 0]


def test_a_failing_file_costs_the_request_nothing(tmp_path: Path) -> None:
    file = SqliteStore(tmp_path / "plans.sqlite")
    with PlanCache(LayeredStore(MemoryStore(1_000_000), file)) as plans:
        file.close()  # every operation on it fails from here on
        assert plans.lookup(KEY) is None
        plans.store(KEY, b"a plan", seconds=2.5)
        assert plans.lookup(KEY) == CachedResult(b"a plan", tier="exact", store="memory", seconds=2.5)
