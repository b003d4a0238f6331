"""Rows are computed once, survive a crash within a line, and are numbered in the order in which they are asked for."""

from __future__ import annotations

import json

import pytest

from benchmarks.experiments.store import Store, StoreError, columns_of, select


def never():
    raise AssertionError("was computed before")


def test_rows_that_were_computed_before_are_read_back(tmp_path):
    assert Store(tmp_path).once("cuts", "a", lambda: [{"size": 0.5, "name": "é"}, {"size": None}]) == [
        {"table": "cuts", "row": 1, "size": 0.5, "name": "é"},
        {"table": "cuts", "row": 2, "size": None},
    ]
    again = Store(tmp_path)
    assert again.has("cuts", "a")
    assert not again.has("cuts", "b")
    assert [row["size"] for row in again.once("cuts", "a", never)] == [0.5, None]


def test_numbers_go_by_the_order_of_asking_and_a_key_asked_for_again_keeps_them(tmp_path):
    first = Store(tmp_path)
    for key in "abc":
        first.keep("cuts", key, [{"key": key}])
    second = Store(tmp_path)
    assert second.table("cuts") == []
    assert [second.once("cuts", key, never)[0]["row"] for key in "cac"] == [1, 2, 1]
    assert [(row["row"], row["key"]) for row in second.table("cuts")] == [(1, "c"), (2, "a")]
    assert second.tables() == ["cuts"]


def test_rows_of_one_table_do_not_change_another(tmp_path):
    store = Store(tmp_path)
    store.once("one", "a", lambda: [{"x": 1}])
    assert store.once("other", "a", lambda: [{"x": 2}]) == [{"table": "other", "row": 1, "x": 2}]
    store.table("one")[0]["x"] = store.once("one", "a", never)[0]["x"] = 5
    assert store.table("one")[0]["x"] == store.once("one", "a", never)[0]["x"] == 1


@pytest.mark.parametrize("cut", [1, 5, 20], ids=["line end", "inside", "more"])
def test_a_line_that_power_failed_in_is_cut_off_and_computed_again(tmp_path, cut):
    store = Store(tmp_path)
    store.keep("cuts", "a", [{"size": 1.0}])
    store.keep("cuts", "b", [{"size": 2.0}])
    path = tmp_path / "rows" / "cuts.jsonl"
    path.write_bytes(path.read_bytes()[:-cut])

    again = Store(tmp_path)
    assert again.has("cuts", "a")
    assert not again.has("cuts", "b")
    again.keep("cuts", "b", [{"size": 3.0}])
    assert Store(tmp_path).once("cuts", "b", never)[0]["size"] == 3.0
    assert all(json.loads(line) for line in path.read_text().splitlines())


def test_damage_before_the_end_is_told(tmp_path):
    store = Store(tmp_path)
    for key in "ab":
        store.keep("cuts", key, [{"size": 1.0}])
    path = tmp_path / "rows" / "cuts.jsonl"
    path.write_bytes(b"x" + path.read_bytes())
    with pytest.raises(StoreError, match=r"cuts\.jsonl: line 1 is damaged: remove the line, or start again"):
        Store(tmp_path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [1], b"x"], ids=["nan", "inf", "list", "bytes"])
def test_what_a_table_cannot_hold_is_refused(tmp_path, value):
    with pytest.raises(StoreError, match="table cuts: size is"):
        Store(tmp_path).keep("cuts", "a", [{"size": value}])
    assert not Store(tmp_path).has("cuts", "a")


def test_names_that_rows_get_by_themselves_are_refused(tmp_path):
    with pytest.raises(StoreError, match="'row' is a name that rows get by themselves"):
        Store(tmp_path).keep("cuts", "a", [{"row": 3}])


def test_what_fails_is_not_kept(tmp_path):
    def fail():
        raise OSError("no")

    store = Store(tmp_path)
    with pytest.raises(OSError, match="no"):
        store.once("cuts", "a", fail)
    assert not store.has("cuts", "a")
    assert store.table("cuts") == []


def test_columns_are_those_of_all_rows_and_rows_are_selected_by_fields():
    rows = [{"table": "t", "row": 1, "k": 2}, {"table": "t", "row": 2, "k": 3, "size": 0.5}]
    assert columns_of(rows) == ["row", "k", "size"]
    assert select(rows, k=3) == [rows[1]]
