"""`capnn evaluate` as a person meets it."""

from __future__ import annotations

import csv
import json
import sys

import pytest
from PIL import Image

from cloud_pruner.cli import main
from cloud_pruner.evaluation_plots import evaluation_plot
from cloud_pruner.evaluation_summary import FIGURES, Mean, Share, Summary
from cloud_pruner.methods import METHODS
from cloud_pruner.profiling import ProfileSettings, build_profile
from tests.support.digits import PREPROCESSING

QUICK = ["--methods", "w,l,Restricted", "--k", "2,3", "--sets", "2"]


def run(capsys, *arguments):
    assert main(["evaluate", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def failure(capsys, *arguments):
    """Run the command, which must fail, and return its one line on stderr."""
    assert main(["evaluate", *map(str, arguments)]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.strip().splitlines()
    return line


def test_json_csv_and_plot_say_the_same(digits_profile, tmp_path, capsys):
    table, picture = tmp_path / "sets.csv", tmp_path / "methods.png"
    fields = json.loads(
        run(capsys, digits_profile.folder, *QUICK, "--json", "--csv", table, "--plot", picture, "--epsilon", 0.1)
    )
    assert fields["profile"] == str(digits_profile.folder)
    assert fields["base"] == digits_profile.base.digest
    assert (fields["epsilon"], fields["seed"], fields["confidence"], fields["accelerator"]) == (0.1, 0, 0.95, "dac20")
    assert fields["report_images"] == len(digits_profile.splits["report"].labels)
    named = [(one["k"], one["method"], one["sets"]) for one in fields["summaries"]]
    assert named == [(k, method, 2) for k in (2, 3) for method in ("W", "L", "restricted")]
    with table.open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == len(fields["sets"]) == 12
    for line, row in zip(lines, fields["sets"], strict=True):
        assert (line["method"], int(line["k"]), int(line["set"])) == (row["method"], row["k"], row["set"])
        assert line["classes"].split(";") == row["classes"]
        assert [float(weight) for weight in line["weights"].split(";")] == row["weights"]
        assert [float(loss) for loss in line["losses"].split(";")] == row["losses"]
        for name in FIGURES:
            assert (float(line[name]) if line[name] else None) == row[name]
    for one in fields["summaries"]:
        mine = [row for row in fields["sets"] if (row["k"], row["method"]) == (one["k"], one["method"])]
        size = one["relative_size"]
        assert size["mean"] == pytest.approx(sum(row["relative_size"] for row in mine) / 2)
        assert size["low"] <= size["mean"] <= size["high"]
        assert one["beyond_epsilon"]["total"] == 2 * one["k"]
    with Image.open(picture) as image:
        assert image.format == "PNG"


def test_a_table_for_people(digits_profile, capsys):
    lines = run(capsys, digits_profile.folder, *QUICK).splitlines()
    assert max(map(len, lines)) <= 100
    images = len(digits_profile.splits["report"].labels) // 10
    title = f"K = 2: 2 sets of 2 of 10 classes; {images} report images a class"
    start = lines.index(title)
    assert [line.split()[0] for line in lines[start + 3 : start + 11 : 2]] == ["base", "W", "L", "restricted"]
    restricted = next(line.split() for line in lines if line.startswith("restricted"))
    assert restricted[1:5] == ["1.000"] * 4
    assert restricted[-2:] == ["0.0", "-"]


def test_a_single_set_has_no_intervals_of_means(digits_profile, capsys):
    out = run(capsys, digits_profile.folder, "--methods", "W", "--k", "2", "--sets", "1")
    assert "±" not in out


def test_the_help_says_what_the_methods_are(capsys):
    with pytest.raises(SystemExit) as end:
        main(["evaluate", "--help"])
    assert end.value.code == 0
    out = capsys.readouterr().out
    assert all(name in out for name in METHODS)
    assert "nothing is pruned; only the outputs of the user's classes are compared" in out
    assert "example:" in out


class TestBadInput:
    def test_an_unknown_method(self, digits_profile, capsys):
        line = failure(capsys, digits_profile.folder, "--methods", "w,magic")
        assert "method 'magic' is unknown: choose among" in line

    def test_k_out_of_range(self, digits_profile, capsys):
        assert "K is 11: a class set has 1 to 10" in failure(capsys, digits_profile.folder, "--k", "2,11")

    def test_no_sets(self, digits_profile, capsys):
        assert "0 class sets: ask for 1 or more" in failure(capsys, digits_profile.folder, "--sets", "0")

    def test_a_profile_without_report_images(self, digits_network, tmp_path, capsys):
        build_profile(
            digits_network.tflite.read_bytes(),
            digits_network.trained_on,
            PREPROCESSING,
            tmp_path / "profile",
            unseen=digits_network.unseen,
            settings=ProfileSettings(depth=2),
        )
        line = failure(capsys, tmp_path / "profile", *QUICK)
        assert "has no report images" in line
        assert "capnn profile ... --report-images N" in line

    def test_no_profile(self, tmp_path, capsys):
        assert "no profile there" in failure(capsys, tmp_path / "nothing")

    @pytest.mark.parametrize("option", [["--csv", "sets.csv"], ["--plot", "methods.png"]])
    def test_a_folder_that_is_not_there_is_known_before_the_work(self, tmp_path, capsys, option):
        name, file = option
        line = failure(capsys, tmp_path / "no profile either", name, tmp_path / "nowhere" / file)
        assert "nowhere: Not a directory" in line

    def test_plotting_without_matplotlib(self, digits_profile, tmp_path, capsys, monkeypatch):
        monkeypatch.setitem(sys.modules, "matplotlib", None)
        monkeypatch.delitem(sys.modules, "cloud_pruner.evaluation_plots")
        line = failure(capsys, digits_profile.folder, *QUICK, "--plot", tmp_path / "methods.png")
        assert "pip install 'capnn[plots]'" in line

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--k", "2,few"], "'2,few' is no list of whole numbers: write 2,5,10"),
            (["--plot", "methods.jpg"], "'methods.jpg' does not end in .png"),
            (["--jobs", "0"], "'0' is no whole number above 0"),
        ],
    )
    def test_wrong_usage(self, digits_profile, capsys, options, message):
        with pytest.raises(SystemExit) as end:
            main(["evaluate", str(digits_profile.folder), *options])
        assert end.value.code == 2
        assert message in capsys.readouterr().err


def summary(method, k, size, gain):
    means = dict.fromkeys(FIGURES) | {"relative_size": size, "gain": gain}
    return Summary(method, k, 4, means, Share(0, 4 * k, 0.0, 0.0, 0.1))


def test_the_plot_draws_means_and_intervals():
    figure = evaluation_plot(
        [
            summary("W", 5, Mean(0.6, 0.5, 0.7), Mean(0.02, 0.01, 0.03)),
            summary("restricted", 5, Mean(1.0, 1.0, 1.0), Mean(0.3, 0.2, 0.4)),
            summary("W", 2, Mean(0.4, None, None), Mean(0.1, None, None)),
        ],
        "title",
    )
    worth, sizes = figure.axes
    w, restricted = worth.containers
    assert w.lines[0].get_xydata().tolist() == [pytest.approx(point) for point in ([0.4, 10], [0.6, 2])]
    across, up = (bars.get_segments() for bars in w.lines[2])
    assert across[1][:, 0].tolist() == pytest.approx([0.5, 0.7])
    assert up[1][:, 1].tolist() == pytest.approx([1, 3])
    assert restricted.lines[0].get_xydata().tolist() == [pytest.approx([1, 30])]
    (w,) = sizes.containers
    assert w.lines[0].get_xydata().tolist() == [pytest.approx(point) for point in ([2, 0.4], [5, 0.6])]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["W", "restricted"]
    assert worth.get_xlabel() == sizes.get_ylabel() == "parameters, relative to the base"
