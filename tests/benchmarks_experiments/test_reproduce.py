"""`capnn reproduce`: goes on from where it was, refuses what does not fit, and says what failed."""

from __future__ import annotations

import json

import pytest

from benchmarks.experiments.cells import mean_cell
from benchmarks.experiments.lab import LabError, Settings, locked
from benchmarks.experiments.registry import EXPERIMENTS, Experiment
from benchmarks.experiments.run import reproduce
from benchmarks.experiments.section import Section, Table
from cloud_pruner.cli import main
from cloud_pruner.cli import reproduce as command


def counted(name, made, stop_at=None):
    """An experiment of three rows, each of which takes a while; `stop_at`: where Ctrl-C is pressed."""

    def run(lab):
        rows = []
        for key in "abc":

            def compute(key=key):
                if key == stop_at:
                    raise KeyboardInterrupt
                made.append(key)
                return [{"key": key, "size": 0.5}]

            rows += lab.once("letters", key, compute)
        table = Table("Letters", ("", "size"), (("all", mean_cell(rows, "size")),))
        return Section(name, "Letters", "no paper", "Three letters.", (table,))

    return Experiment(name, "Letters", run)


def failing(name):
    def run(lab):
        raise OSError("the disk is full")

    return Experiment(name, "What fails", run)


def test_an_interrupted_run_goes_on_from_where_it_was(tmp_path):
    made = []
    with pytest.raises(KeyboardInterrupt):
        reproduce(["x"], tmp_path / "r", Settings(), experiments={"x": counted("x", made, stop_at="c")})
    assert made == ["a", "b"]
    (outcome,) = reproduce(["x"], tmp_path / "r", Settings(), experiments={"x": counted("x", made)})
    assert made == ["a", "b", "c"]
    assert outcome.error == ""
    assert (tmp_path / "r" / "CSV" / "letters.csv").read_text() == "row,key,size\n1,a,0.5\n2,b,0.5\n3,c,0.5\n"


def test_restart_begins_anew(tmp_path):
    made = []
    for restart in (False, True):
        reproduce(["x"], tmp_path / "r", Settings(), restart=restart, experiments={"x": counted("x", made)})
    assert made == [*"abc", *"abc"]


@pytest.mark.parametrize(
    ("settings", "differing"),
    [(Settings(quick=True), "quick"), (Settings(seed=1), "seed"), (Settings(networks=("resnet8",)), "networks")],
    ids=["quick", "seed", "networks"],
)
def test_other_settings_need_another_folder(tmp_path, settings, differing):
    reproduce([], tmp_path / "r", Settings())
    with pytest.raises(LabError, match=f"was made with another {differing}: give another folder with -o, or --restart"):
        reproduce([], tmp_path / "r", settings)
    reproduce([], tmp_path / "r", settings, restart=True)


def test_more_users_go_on_in_the_same_folder(tmp_path):
    reproduce([], tmp_path / "r", Settings(users=2))
    reproduce([], tmp_path / "r", Settings(users=5))
    assert json.loads((tmp_path / "r" / "summary.json").read_text())["settings"]["users"] == 5


def test_a_folder_of_something_else_is_left_alone_even_by_a_restart(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    for restart in (False, True):
        with pytest.raises(LabError, match="exists and is no report of experiments: give another folder with -o"):
            reproduce([], tmp_path, Settings(), restart=restart)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_two_runs_do_not_share_a_folder(tmp_path):
    reproduce([], tmp_path / "r", Settings())
    for restart in (False, True):
        with locked(tmp_path / "r" / "work"), pytest.raises(LabError, match="another process works there"):
            reproduce([], tmp_path / "r", Settings(), restart=restart)


def test_the_command_writes_a_report_and_tells_where(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(EXPERIMENTS, "figure-6", counted("figure-6", []))
    assert main(["reproduce", "figure-6", "--quick", "-o", str(tmp_path / "r"), "--jobs", "1"]) == 0
    out = capsys.readouterr().out
    assert "figure-6" in out
    assert f"report: {tmp_path / 'r' / 'report.html'}" in out
    assert main(["reproduce", "figure-6", "--quick", "-o", str(tmp_path / "r"), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["experiments"][0]["tables"][0]["lines"][0][1]["value"] == 0.5


def test_the_command_fails_where_an_experiment_does(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(EXPERIMENTS, "figure-6", failing("figure-6"))
    assert main(["reproduce", "figure-6", "-o", str(tmp_path / "r")]) == 1
    assert capsys.readouterr().err == "capnn reproduce: figure-6 failed: OSError: the disk is full\n"
    assert main(["reproduce", "figure-6", "-o", str(tmp_path / "r"), "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_number_without_rows_fails_its_experiment_and_no_other(tmp_path):
    def run(lab):
        (row,) = lab.once("others", "a", lambda: [{"key": "a"}])
        return Section("x", "X", "", "", (Table("x", ("", "size"), (("a", mean_cell([row], "size")),)),))

    there = {"x": Experiment("x", "X", run), "y": counted("y", [])}
    x, y = reproduce(["x", "y"], tmp_path / "r", Settings(), experiments=there)
    assert (x.section, x.error) == (None, "KeyError: 'size'")
    assert y.section is not None
    assert (tmp_path / "r" / "report.html").is_file()


def test_ctrl_c_ends_the_command_with_130(tmp_path, monkeypatch):
    monkeypatch.setitem(EXPERIMENTS, "figure-6", counted("figure-6", [], stop_at="b"))
    assert main(["reproduce", "figure-6", "-o", str(tmp_path / "r")]) == 130


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--networks", "lenet"], "network 'lenet' is unknown: choose among vgg16"),
        (["--seed", "-1"], "the seed is -1: give a whole number of 0 or more"),
    ],
    ids=["network", "seed"],
)
def test_what_makes_no_sense_is_one_line(tmp_path, capsys, arguments, line):
    assert main(["reproduce", "figure-6", "-o", str(tmp_path / "r"), *arguments]) == 1
    err = capsys.readouterr().err
    assert line in err
    assert err.count("\n") == 1


def test_without_the_sources_it_says_what_to_do(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command, "__file__", str(tmp_path / "site-packages" / "cloud_pruner" / "cli" / "reproduce.py"))
    assert main(["reproduce", "table-1", "-o", str(tmp_path / "r")]) == 1
    assert "run this in a clone of the sources" in capsys.readouterr().err
    assert not (tmp_path / "r").exists()


def test_the_command_knows_every_experiment():
    assert {*command.EXPERIMENTS, "cache"} == set(EXPERIMENTS)
    assert all(name == experiment.name for name, experiment in EXPERIMENTS.items())


@pytest.mark.parametrize("name", ["all", "figure-6", "table-3", "cache"])
def test_every_experiment_has_help_with_an_example(name, capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["reproduce", name, "--help"])
    assert f"capnn reproduce {name}" in capsys.readouterr().out
