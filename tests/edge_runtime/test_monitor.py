from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.errors import MessageError
from edge_runtime.monitor import UsageMonitor, load_counts, save_counts, total_variation

if TYPE_CHECKING:
    from pathlib import Path

COUNTS = st.dictionaries(st.text(max_size=3), st.integers(1, 1000), min_size=1, max_size=30)


def monitor_after(labels: str, **settings: float) -> UsageMonitor:
    monitor = UsageMonitor(**settings)  # type: ignore[arg-type]
    for label in labels:
        monitor.count(label)
    return monitor


def test_usage_is_the_share_of_each_class():
    assert monitor_after("aaab").usage() == {"a": 0.75, "b": 0.25}


def test_classes_below_the_floor_are_dropped_and_the_rest_made_up_to_one():
    assert monitor_after("a" * 60 + "b" * 36 + "c" * 4, floor=0.05).usage() == {"a": 0.625, "b": 0.375}


def test_a_class_at_the_floor_is_kept():
    assert "c" in monitor_after("a" * 95 + "c" * 5, floor=0.05).usage()


def test_where_no_class_reaches_the_floor_all_are_kept():
    assert monitor_after("abcd", floor=0.5).usage() == dict.fromkeys("abcd", 0.25)


def test_a_period_ends_after_its_number_of_predictions_and_the_next_starts_from_zero():
    monitor = monitor_after("aab", period=4)
    assert not monitor.period_complete

    assert monitor.count("a") == 4
    assert monitor.period_complete

    assert monitor.next_period() == {"a": 0.75, "b": 0.25}
    assert (monitor.counted, monitor.usage(), monitor.period_complete) == (0, {}, False)


def test_usage_has_changed_when_its_distance_is_larger_than_the_bound():
    monitor = UsageMonitor(change=0.2)

    assert monitor.changed({"a": 1.0}, None)
    assert not monitor.changed({"a": 0.5, "b": 0.5}, {"a": 0.6, "b": 0.4})
    assert monitor.changed({"a": 0.5, "b": 0.5}, {"a": 0.5, "b": 0.2, "c": 0.3})


def test_threads_lose_no_counts():
    monitor = UsageMonitor()
    threads = [threading.Thread(target=lambda: [monitor.count("a") for _ in range(5000)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert monitor.counts() == {"a": 20_000}
    assert monitor.counted == 20_000


@given(COUNTS, st.floats(0, 0.99))
def test_usage_always_sums_to_one_over_classes_that_were_seen(counts: dict[str, int], floor: float):
    monitor = UsageMonitor(floor=floor)
    monitor.restore(counts)

    usage = monitor.usage()

    assert sum(usage.values()) == pytest.approx(1)
    assert usage.keys() <= counts.keys()
    assert max(counts, key=lambda label: (counts[label], label)) in usage


@given(COUNTS, COUNTS)
def test_total_variation_is_a_distance_up_to_one(first: dict[str, int], second: dict[str, int]):
    p, q = ({label: n / sum(counts.values()) for label, n in counts.items()} for counts in (first, second))

    assert total_variation(p, p) == 0
    assert total_variation(p, q) == pytest.approx(total_variation(q, p))
    assert 0 <= total_variation(p, q) <= 1 + 1e-9


def test_counts_survive_a_restart(tmp_path: Path):
    save_counts(tmp_path / "usage.msgpack", {"a": 3, "b": 1}, base="digest")
    monitor = UsageMonitor(period=5)
    monitor.restore(load_counts(tmp_path / "usage.msgpack", base="digest"))

    assert monitor.count("a") == 5
    assert monitor.usage() == {"a": 0.8, "b": 0.2}


def test_counts_of_another_base_model_are_worth_nothing(tmp_path: Path):
    save_counts(tmp_path / "usage.msgpack", {"a": 3}, base="former")

    assert load_counts(tmp_path / "usage.msgpack", base="new") == {}
    assert load_counts(tmp_path / "none.msgpack", base="new") == {}


@pytest.mark.parametrize("content", [b"", b"\x93", b"\x81\xa1a\x01", b"\x82\xa4base\xa1x\xa6counts\x81\xa1a\xa1b"])
def test_damaged_counts_are_named(tmp_path: Path, content: bytes):
    (tmp_path / "usage.msgpack").write_bytes(content)

    with pytest.raises(MessageError, match=r"usage\.msgpack: cannot be used"):
        load_counts(tmp_path / "usage.msgpack", base="x")
