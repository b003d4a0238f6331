"""A number of the report says which rows it is of; what it says is what the rows give."""

from __future__ import annotations

import pytest

from benchmarks.experiments.cells import Cell, mean_cell, number_ranges, shown, value_cell
from benchmarks.experiments.section import Table
from benchmarks.experiments.store import Store


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path)
    sizes, certified = [0.25, 0.5, 0.75, 1.0], [True, True, True, False]
    rows = [{"size": size, "certified": flag, "time": None} for size, flag in zip(sizes, certified, strict=True)]
    store.once("cuts", "a", lambda: rows)
    return store


@pytest.mark.parametrize(
    ("statistic", "column", "value"),
    [
        ("mean", "size", 0.625),
        ("max", "size", 1.0),
        ("min", "size", 0.25),
        ("sum", "size", 2.5),
        ("share", "certified", 0.75),
        # Student's t with 3 degrees of freedom: 3.18245 x 0.322749 / 2.
        ("low", "size", 0.625 - 0.513563),
        ("high", "size", 0.625 + 0.513563),
    ],
    ids=["mean", "max", "min", "sum", "share", "low", "high"],
)
def test_statistics_of_four_rows(store, statistic, column, value):
    cell = mean_cell(store.table("cuts"), column, statistic=statistic)
    assert cell.rows == (1, 2, 3, 4)
    assert cell.value(store) == pytest.approx(value, abs=1e-5)


def test_rows_of_one_set_of_classes_count_as_one_in_an_interval(store):
    sizes = {"cat;dog": [0.2, 0.3, 0.4], "cat;ship": [0.5, 0.6, 0.7]}
    rows = [{"classes": classes, "size": size} for classes, of_set in sizes.items() for size in of_set]
    store.once("users", "a", lambda: rows)
    cell = mean_cell(store.table("users"), "size", interval=True)
    half = 12.7062 * 0.15  # Student's t with 1 degree of freedom, of the means 0.3 and 0.6
    assert [cell.value(store, end) for end in ("low", "high")] == pytest.approx([0.45 - half, 0.45 + half], abs=1e-4)
    assert mean_cell(store.table("users")[:3], "size", statistic="low").text(store) == "-"


def test_a_value_is_of_one_row(store):
    cell = value_cell(store.table("cuts")[2], "size", factor=100, digits=1)
    assert (cell.rows, cell.text(store)) == ((3,), "75.0")


def test_a_row_counts_once_however_often_it_is_given(store):
    rows = store.table("cuts")
    assert mean_cell([rows[3], rows[0], rows[3]], "size").rows == (1, 4)


def test_what_is_not_there_is_shown_as_a_dash(store):
    rows = store.table("cuts")
    assert mean_cell(rows, "time").text(store) == "-"
    assert mean_cell(rows[:1], "size", statistic="low").text(store) == "-"


def test_rounding_shows_no_minus_nothing():
    assert shown(-0.001, 1.0, 2) == "0.00"
    assert shown(-0.0051, 1.0, 2) == "-0.01"
    assert shown(0.12345, 100, 1) == "12.3"


def test_what_says_nothing_is_refused(store):
    rows = store.table("cuts")
    with pytest.raises(ValueError, match="a value of 2 rows says nothing"):
        Cell("cuts", (1, 2), "size", "value")
    with pytest.raises(ValueError, match="a max has no interval"):
        mean_cell(rows, "size", statistic="max", interval=True)
    with pytest.raises(ValueError, match="rows of 2 tables"):
        mean_cell([rows[0], rows[1] | {"table": "other"}], "size")
    with pytest.raises(ValueError, match="a line of 1 for 2 columns"):
        Table("sizes", ("K", "size"), (("2",),))


@pytest.mark.parametrize(
    ("numbers", "text"),
    [((1, 2, 3), "1-3"), ((2,), "2"), ((1, 3, 4, 9), "1,3-4,9")],
    ids=["one run", "one", "several"],
)
def test_row_numbers_are_written_as_ranges(numbers, text):
    assert number_ranges(numbers) == text
