"""Accelerators of one's own, as TOML."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hwmodel import TPU_V1, Accelerator, AcceleratorError, read_accelerator

WHOLE = """
rows = 16
columns = 8
word = "float16"
add_pj = 0.4
multiply_pj = 1.1
max_pool_pj = 0.4
relu_pj = 0.1
sram_pj = 3
dram_pj = 320
"""


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "mine.toml"
        path.write_text(text)
        return path

    return write


def test_a_whole_accelerator_is_named_after_its_file(write):
    accelerator = read_accelerator(write(WHOLE))
    assert accelerator == Accelerator(
        name="mine", rows=16, columns=8, word="float16", add_pj=0.4, multiply_pj=1.1, max_pool_pj=0.4, relu_pj=0.1,
        sram_pj=3, dram_pj=320,
    )  # fmt: skip
    assert (accelerator.dataflow, accelerator.weight_buffer_kib, accelerator.clock_mhz) == ("ws", None, None)


def test_fields_over_a_preset(write):
    path = write('preset = "tpu-v1"\nname = "half a TPU"\nrows = 128\ndataflow = "os"')
    assert read_accelerator(path) == replace(TPU_V1, name="half a TPU", rows=128, dataflow="os")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("rows = ", "is not valid TOML"),
        ('preset = "tpu-v2"', "preset is 'tpu-v2': expected one of dac20, edge-tpu-like, tpu-v1"),
        ('preset = "tpu-v1"\nlanes = 4', "unknown key 'lanes': the known ones are preset, name, rows"),
        ('preset = "tpu-v1"\nrows = "many"', "rows is 'many': expected a whole number of 1 or more"),
        ('preset = "tpu-v1"\nactivation_buffer_kib = -1', "activation_buffer_kib is -1: expected a number above 0"),
        ("rows = 8\ncolumns = 8", "word, add_pj, multiply_pj, max_pool_pj, relu_pj, sram_pj, dram_pj must be stated"),
        (
            'preset = "tpu-v1"\nword = "int16"\ndram_pj = 320',
            "are for words of int8: state add_pj, multiply_pj, max_pool_pj, relu_pj, sram_pj for words of int16",
        ),
    ],
)
def test_a_wrong_file_gives_one_clear_line(write, text, problem):
    path = write(text)
    with pytest.raises(AcceleratorError) as raised:
        read_accelerator(path)
    assert str(raised.value).startswith(f"{path}: ")
    assert problem in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(AcceleratorError, match=r"none\.toml: cannot be read \(No such file or directory\)"):
        read_accelerator(tmp_path / "none.toml")
