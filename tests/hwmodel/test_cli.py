from __future__ import annotations

import csv
import io
import json
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from hwmodel import TPU_V1, estimate
from hwmodel.cli import main
from hwmodel.table import quantity
from tests.hwmodel.one_operator import one_operator

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def model(tmp_path: Path, small: bytes) -> Path:
    path = tmp_path / "base.tflite"
    path.write_bytes(small)
    return path


@pytest.fixture
def cut(tmp_path: Path, small_cut: bytes) -> Path:
    path = tmp_path / "cut.tflite"
    path.write_bytes(small_cut)
    return path


def test_the_table_has_a_line_per_layer_and_the_total(
    model: Path, small: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(model)]) == 0
    lines = capsys.readouterr().out.splitlines()
    array = "dac20 (256 x 256 array, weight stationary, int16 words)"
    assert lines[0] == f"{model} on {array}, one inference"
    assert len(lines[3 : lines.index("", 3)]) == len(estimate(small).layers) + 1
    total = next(line for line in lines if line.startswith("total"))
    assert total.split()[:6] == ["total", "75.73", "k", "597", "13.08", "k"]
    assert total.split()[-7:] == ["597", "41.76", "k", "701.48", "nJ", "100.0", "%"]
    assert any(line.startswith("dram ") and line.endswith("54.5 %") for line in lines)


def test_columns_are_aligned(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(model)])
    lines = capsys.readouterr().out.splitlines()
    header, *rows = lines[2 : lines.index("", 3)]
    titles = ("MACs", "weights", "cycles", "array use", "time", "waits for", "DRAM words", "SRAM words", "energy")
    ends = [header.index(title) + len(title) for title in titles]
    for row in rows:
        assert all(row[end - 1] != " " or title == "waits for" for title, end in zip(titles, ends, strict=True)), row
        assert all(row[end] == " " for end in ends), row


def test_json_is_the_report(model: Path, small: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(model), "--json", "--preset", "dac20"]) == 0
    assert json.loads(capsys.readouterr().out) == estimate(small, name=str(model)).to_dict()


def test_compare_prints_the_ratio_of_each_figure(model: Path, cut: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(model), "--compare", str(cut)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [f"base: {model}", f"cut:  {cut}"]
    assert lines[2].startswith("on    dac20 (256 x 256 array")
    macs = next(line for line in lines if line.startswith("macs"))
    assert macs.split() == ["macs", "75.73", "k", "37.90", "k", "0.500"]
    assert next(line for line in lines if line.startswith("energy ")).split()[-1] == "0.561"


def test_compare_as_json(model: Path, cut: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(model), "--compare", str(cut), "--json"]) == 0
    fields = json.loads(capsys.readouterr().out)
    assert fields["cut"]["model"] == str(cut)
    assert fields["ratios"]["macs"] == fields["cut"]["total"]["macs"] / fields["base"]["total"]["macs"]


def test_what_is_not_costed_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "custom.tflite"
    path.write_bytes(one_operator("CUSTOM", [(1, 8)], [(1, 4)], custom=b"Mine"))
    assert main([str(path)]) == 0
    out = capsys.readouterr().out
    assert f"not costed in {path}, so that its totals are lower bounds:\n  CUSTOM:Mine (output 0): the file" in out


def test_a_dense_layer_that_dominates_is_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "dense.tflite"
    path.write_bytes(one_operator("FULLY_CONNECTED", [(1, 800), (900, 800)], [(1, 900)], stored=(1,)))
    assert main([str(path)]) == 0
    assert f"warning: {path}: dense layers at batch 1 take 100% of the cycles" in capsys.readouterr().out
    assert main([str(path), "--batch", "8"]) == 0
    out = capsys.readouterr().out
    assert "warning" not in out
    assert out.splitlines()[0].endswith("8 inferences together")


def test_csv_has_a_row_per_layer_of_each_model(model: Path, cut: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(model), "--compare", str(cut), "--csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["model"] for row in rows] == [str(model)] * 8 + [str(cut)] * 8
    assert int(rows[0]["macs"]) == 16 * 16 * 8 * 27
    assert int(rows[0]["dram.weights"]) == 8 * 27
    assert float(rows[0]["energy_pj.dram"]) == (8 * 27 + 8) * 640


def test_presets_dataflows_and_batches_change_the_accelerator(
    model: Path, small: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(model), "--preset", "tpu-v1", "--dataflow", "os", "--batch", "4", "--json"]) == 0
    expected = estimate(small, replace(TPU_V1, dataflow="os"), name=str(model), batch=4)
    assert json.loads(capsys.readouterr().out) == expected.to_dict()


def test_an_accelerator_of_ones_own(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('preset = "edge-tpu-like"\nrows = 32\n')
    assert main([str(model), "--accelerator", str(path)]) == 0
    assert "on mine (32 x 64 array, output stationary, int8 words)" in capsys.readouterr().out
    path.write_text("rows = none")
    assert main([str(model), "--accelerator", str(path)]) == 1
    err = capsys.readouterr().err
    assert err.startswith(f"capnn-hw: error: {path}: is not valid TOML")
    assert err.count("\n") == 1


def test_a_sweep_has_a_line_for_each_value_and_model(
    model: Path, cut: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(model), "--compare", str(cut), "--sweep", "rows=8..64"]
    assert main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [f"base: {model}", f"cut: {cut}"]
    assert [line.split()[:2] for line in lines[5:]] == [
        [n, m] for n in ("8", "16", "32", "64") for m in ("base", "cut")
    ]
    assert main([*arguments, "--json"]) == 0
    steps = json.loads(capsys.readouterr().out)["sweep"]
    assert [step["rows"] for step in steps] == [8, 16, 32, 64]
    assert [one["accelerator"]["rows"] for one in steps[1]["models"]] == [16, 16]
    assert main([*arguments, "--csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [(row["rows"], row["model"]) for row in rows[:2]] == [("8", str(model)), ("8", str(cut))]
    assert int(rows[0]["cycles"]) == steps[0]["models"][0]["total"]["cycles"]


def test_a_sweep_that_cannot_be_gives_one_line(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(model), "--sweep", "name=1..2"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("capnn-hw: error: sweep 'name=1..2': 'name' cannot be swept: expected one of rows, columns")
    assert err.count("\n") == 1


def test_plots_are_written_and_named(
    model: Path, cut: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "new" / "plots"
    assert main([str(model), "--compare", str(cut), "--sweep", "rows=8..16", "--plot", str(folder)]) == 0
    written = [line for line in capsys.readouterr().out.splitlines() if line.startswith("wrote ")]
    assert written == [f"wrote {folder / name}.png" for name in ("energy", "roofline", "sweep")]
    for path in folder.iterdir():
        assert path.read_bytes().startswith(b"\x89PNG")


def test_plots_go_beside_json_without_a_word(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(model), "--json", "--plot", str(tmp_path)]) == 0
    assert json.loads(capsys.readouterr().out)
    assert (tmp_path / "energy.png").exists()


def test_without_matplotlib_plotting_says_what_it_needs(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "hwmodel.plots", raising=False)
    assert main([str(model), "--plot", str(tmp_path)]) == 1
    assert capsys.readouterr().err == ("capnn-hw: error: plotting needs capnn[plots]: pip install 'capnn[plots]'\n")


def test_a_file_that_is_no_model_gives_one_line(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("these are notes, not a model")
    for arguments in ([str(path)], [str(model), "--compare", str(path)]):
        assert main(arguments) == 1
        out, err = capsys.readouterr()
        assert out == ""
        assert err == f"capnn-hw: error: {path}: not a .tflite file (the identifier TFL3 is missing)\n"


def test_a_file_that_is_not_there_gives_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "none.tflite")]) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "none.tflite" in err


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    assert "example:\n  capnn-hw base.tflite --compare cut.tflite" in capsys.readouterr().out


def test_an_unknown_preset_is_wrong_usage(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([str(model), "--preset", "tpu"])
    assert stop.value.code == 2
    assert "dac20" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("picojoules", "text"),
    [(0, "-"), (5.25, "5.25 pJ"), (999.999, "1.00 nJ"), (1e6, "1.00 uJ"), (112.759e9, "112.76 mJ"), (2e12, "2.00 J")],
)
def test_energies_have_the_unit_that_suits_them(picojoules: float, text: str) -> None:
    assert quantity(picojoules, energy=True) == text


def test_times_have_the_unit_that_suits_them() -> None:
    assert [quantity(time, time=True) for time in (0, 2.5e-10, 0.0021, 3)] == ["-", "0.25 ns", "2.10 ms", "3.00 s"]
