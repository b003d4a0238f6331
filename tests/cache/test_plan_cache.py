from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
    plan_key,
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
        size = len(KEY) + len(b"a plan")
        assert plans.statistics() == CacheStatistics(
            exact=TierStatistics(hits=2, misses=1, seconds_saved=5.0),
            superset=TierStatistics(),
            thresholds=TierStatistics(),
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


class TestTiers:
    def test_the_caller_counts_those_whose_finds_may_be_rejected(self) -> None:
        with PlanCache(LayeredStore(MemoryStore(1_000_000))) as plans:
            plans.store(KEY, b"a plan", seconds=2.5)
            found = plans.lookup(KEY, tier="superset")
            assert found == CachedResult(b"a plan", tier="superset", store="memory", seconds=2.5)
            plans.count("superset", "hit", 2.0)
            plans.count("superset", "rejected")
            plans.count("superset", "rejected")
            plans.count("thresholds", "miss")
            plans.count("thresholds", "hit", 1.0)
            statistics = plans.statistics()
            assert statistics.exact == TierStatistics()
            assert statistics.superset == TierStatistics(hits=1, misses=0, seconds_saved=2.0, rejected=2)
            assert statistics.thresholds == TierStatistics(hits=1, misses=1, seconds_saved=1.0, rejected=0)

    def test_a_second_look_counts_the_request_once(self) -> None:
        with PlanCache(LayeredStore(MemoryStore(1_000_000))) as plans:
            plans.lookup(KEY)
            plans.lookup(KEY, again=True)
            assert plans.statistics().exact == TierStatistics(hits=0, misses=1)
            plans.store(KEY, b"a plan", seconds=2.5)
            plans.lookup(KEY, again=True)  # another thread has stored it meanwhile
            assert plans.statistics().exact == TierStatistics(hits=1, misses=0, seconds_saved=2.5)


SETTINGS = exact_key(model="5f2c", epsilon=0.03)
OTHER = exact_key(model="5f2c", epsilon=0.05)
CLASSES = st.sets(st.integers(0, 30), min_size=1, max_size=6).map(lambda labels: tuple(sorted(labels)))
PLANS = st.lists(st.tuples(st.sampled_from([SETTINGS, OTHER]), CLASSES, st.sampled_from([(), (0.5,)])), max_size=15)


class TestSupersets:
    def test_are_plans_for_more_classes_under_the_same_settings_fewest_first(self, tmp_path: Path) -> None:
        memory, file = MemoryStore(1_000_000), SqliteStore(tmp_path / "plans.sqlite")
        with PlanCache(LayeredStore(memory, file)) as plans:
            more = [plan_key(SETTINGS, classes, ()) for classes in ((2, 7, 9), (1, 2, 7), (2, 3, 4, 7))]
            others = [plan_key(SETTINGS, classes, ()) for classes in ((2, 7), (2, 17, 27), (7, 8, 9), (72, 77, 227))]
            for key in (*more, *others, plan_key(OTHER, (2, 7, 9), ()), exact_key(classes=(2, 7, 9)), "threshold/a"):
                file.put(key, b"a plan")
            assert plans.supersets(SETTINGS, (2, 7)) == [more[1], more[0], more[2]]
            memory.put(plan_key(SETTINGS, (0, 2, 7), ()), b"only here")
            assert plans.supersets(SETTINGS, (2, 7))[0] == plan_key(SETTINGS, (0, 2, 7), ())

    @given(stored=PLANS, wanted=CLASSES)
    def test_are_what_the_sets_say(
        self, stored: list[tuple[str, tuple[int, ...], tuple[float, ...]]], wanted: tuple[int, ...]
    ) -> None:
        with PlanCache(LayeredStore(MemoryStore(1_000_000))) as plans:
            for settings, classes, weights in stored:
                plans.store(plan_key(settings, classes, weights), b"a plan", seconds=1.0)
            expected = {
                (len(classes), plan_key(settings, classes, weights))
                for settings, classes, weights in stored
                if settings == SETTINGS and set(classes) > set(wanted)
            }
            assert plans.supersets(SETTINGS, wanted) == [key for _, key in sorted(expected)]

    def test_a_store_that_fails_has_none(self, tmp_path: Path) -> None:
        file = SqliteStore(tmp_path / "plans.sqlite")
        with PlanCache(LayeredStore(MemoryStore(1_000_000), file)) as plans:
            plans.store(plan_key(SETTINGS, (2, 7), ()), b"a plan", seconds=1.0)
            file.close()
            assert plans.supersets(SETTINGS, (2,)) == [plan_key(SETTINGS, (2, 7), ())]
