from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from hwmodel import estimate
from hwmodel.cli import main
from hwmodel.table import quantity
from tests.hwmodel.networks import tflite

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
    assert lines[0] == f"{model} on dac20 (256 x 256 array, 16-bit words), one inference"
    assert len(lines[3 : lines.index("", 3)]) == len(estimate(small).layers) + 1
    total = next(line for line in lines if line.startswith("total"))
    assert total.split() == ["total", "75.73", "k", "597", "597", "41.76", "k", "701.47", "nJ", "100.0", "%"]
    assert any(line.startswith("dram ") and line.endswith("54.5 %") for line in lines)


def test_columns_are_aligned(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(model)])
    lines = capsys.readouterr().out.splitlines()
    header, *rows = lines[2 : lines.index("", 3)]
    ends = [header.index(title) + len(title) for title in ("MACs", "weights", "DRAM words", "SRAM words", "energy")]
    for row in rows:
        assert all(row[end - 1] != " " and row[end] == " " for end in ends), row


def test_json_is_the_report(model: Path, small: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(model), "--json", "--preset", "dac20"]) == 0
    assert json.loads(capsys.readouterr().out) == estimate(small, name=str(model)).to_dict()


def test_compare_prints_the_ratio_of_each_figure(model: Path, cut: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(model), "--compare", str(cut)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [f"base: {model}", f"cut:  {cut}"]
    assert next(line for line in lines if line.startswith("macs")).split() == [
        "macs",
        "75.73",
        "k",
        "37.90",
        "k",
        "0.500",
    ]
    assert next(line for line in lines if line.startswith("energy ")).split()[-1] == "0.561"


def test_compare_as_json(model: Path, cut: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(model), "--compare", str(cut), "--json"]) == 0
    fields = json.loads(capsys.readouterr().out)
    assert fields["cut"]["model"] == str(cut)
    assert fields["ratios"]["macs"] == fields["cut"]["total"]["macs"] / fields["base"]["total"]["macs"]


def test_what_is_not_costed_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import keras

    image = keras.Input(batch_shape=(1, 8))
    path = tmp_path / "tanh.tflite"
    path.write_bytes(tflite(keras.Model(image, keras.layers.Dense(4, activation="tanh")(image))))
    assert main([str(path)]) == 0
    out = capsys.readouterr().out
    assert f"not costed in {path}, so that its totals are lower bounds:\n  TANH (" in out


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
