"""The report of real experiments, done on small networks: every number on the page is what its rows give."""

from __future__ import annotations

import json
import shutil
from html import escape

import pytest

from benchmarks.experiments import configurations, figure_4, figure_5, figure_6, journal, peers, table_1
from benchmarks.experiments.cells import Paper, mean_cell, value_cell
from benchmarks.experiments.lab import Settings
from benchmarks.experiments.registry import Experiment
from benchmarks.experiments.run import reproduce
from benchmarks.experiments.section import Section, Table
from tests.benchmarks_experiments.digits_lab import DigitsReference, with_profile
from tests.benchmarks_experiments.report_check import mistakes, read_page


def squares(lab):
    rows = lab.once("squares", "all", lambda: [{"x": x, "square": x * x, "odd": x % 2 == 1} for x in range(-2, 3)])
    lines = [(f"<{row['x']}>", value_cell(row, "square"), Paper("4.0")) for row in rows]
    lines.append(("mean", mean_cell(rows, "square", interval=True), ""))
    lines.append(("odd, %", mean_cell(rows, "odd", statistic="share", factor=100, digits=0), ""))
    table = Table("Squares & more", ("x", "square", "paper"), tuple(lines))
    return Section("squares", "Squares", "a paper", "What is squared.", (table, "A <paragraph>."), ("x < y & so on",))


def fails(lab):
    raise ZeroDivisionError("by\nnothing")


EXPERIMENTS = {
    "squares": Experiment("squares", "Squares", squares),
    "fails": Experiment("fails", "What fails", fails),
    **{module.NAME: Experiment.of(module) for module in (figure_4, figure_5, figure_6, table_1, journal, peers)},
}


@pytest.fixture(scope="module")
def report(digits_network, tmp_path_factory):
    """A report of the experiments as they are, but for how many users they look at."""
    with pytest.MonkeyPatch.context() as fewer:
        for k, distributions in configurations.DISTRIBUTIONS.items():
            fewer.setitem(configurations.DISTRIBUTIONS, k, distributions[-1:])
        for users in (configurations.SETS, figure_6._USERS, table_1._USERS, journal._USERS, peers._USERS):
            fewer.setitem(users, name=True, value=1 if users is peers._USERS else 2)
        yield made_report(digits_network, tmp_path_factory)


def made_report(digits_network, tmp_path_factory):
    folder = tmp_path_factory.mktemp("reports") / "report"
    settings = Settings(quick=True)
    reproduce([], folder, settings)
    with_profile(digits_network, folder / "work", ("vgg16", "resnet56"))
    names = ("vgg16", "vgg16-half", "alexnet", "resnet152", "resnet56")
    there = ("vgg16", "resnet56")
    references = {name: DigitsReference(name, digits_network, name in there, title=name) for name in names}
    outcomes = reproduce(list(EXPERIMENTS), folder, settings, experiments=EXPERIMENTS, references=references)
    return folder, outcomes


def test_every_number_is_what_its_rows_give_and_nothing_is_missing(report):
    folder, _ = report
    page = read_page(folder)
    assert len(page.numbers) > 300
    assert len(page.pictures) >= 6
    assert {number.attributes["data-statistic"] for number in page.numbers} >= {"value", "mean", "share"}
    assert any(number.interval for number in page.numbers)
    assert mistakes(folder) == []


@pytest.mark.parametrize("damage", ["a value", "a row", "a picture", "a table"])
def test_a_report_that_does_not_fit_its_rows_is_noticed(report, tmp_path, damage):
    folder = tmp_path / "report"
    shutil.copytree(report[0], folder, ignore=shutil.ignore_patterns("work"))
    table = folder / "CSV" / "squares.csv"
    lines = table.read_text().splitlines()
    if damage == "a value":
        lines[2] = lines[2].replace(",1,", ",7,")
        table.write_text("\n".join(lines))
    elif damage == "a row":
        table.write_text("\n".join(lines[:-1]))
    elif damage == "a picture":
        picture = next((folder / "plots").iterdir())
        picture.write_bytes(picture.read_bytes()[:500])
    else:
        table.unlink()
    assert mistakes(folder)


def test_an_experiment_that_fails_says_so_and_stops_no_other(report):
    folder, outcomes = report
    assert [(one.name, one.error) for one in outcomes if one.error] == [("fails", "ZeroDivisionError: by nothing")]
    page = (folder / "report.html").read_text()
    assert "Failed: ZeroDivisionError: by nothing" in page
    assert set(EXPERIMENTS) <= read_page(folder).names


def test_networks_that_are_not_there_are_named(report):
    page = (report[0] / "report.html").read_text()
    assert "alexnet: its weights are not here" in page
    assert "vgg16: its weights" not in page


def test_text_is_text(report):
    page = (report[0] / "report.html").read_text()
    for text in ("<-2>", "A <paragraph>.", "x < y & so on", "Squares & more"):
        assert escape(text) in page
        assert text not in page


def test_the_page_needs_no_script_and_fetches_nothing(report):
    page = read_page(report[0])
    assert page.tags.isdisjoint({"script", "link", "iframe"})
    text = (report[0] / "report.html").read_text()
    assert "http" not in text
    assert "url(" not in text


def test_the_summary_holds_the_same_figures(report):
    folder, outcomes = report
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["settings"] == {"quick": True, "seed": 0, "networks": None, "users": None}
    assert [one["name"] for one in summary["experiments"]] == list(EXPERIMENTS)
    squared = summary["experiments"][0]["tables"][0]["lines"]
    assert squared[0] == [
        "<-2>",
        {"value": 4, "table": "squares", "rows": "1", "column": "square", "statistic": "value"},
        {"paper": "4.0"},
    ]
    assert squared[5][1]["value"] == 2.0
    assert squared[5][1]["low"] < 2.0 < squared[5][1]["high"]
    assert summary["experiments"][1]["error"] == outcomes[1].error
    assert all(one["seconds"] >= 0 for one in summary["experiments"])
