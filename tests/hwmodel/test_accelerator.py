from __future__ import annotations

from dataclasses import asdict, fields, replace

import pytest

from hwmodel import DAC20, EDGE_TPU_LIKE, PRESETS, TPU_V1, Accelerator, AcceleratorError


def test_dac20_has_the_energies_of_table_1():
    assert (DAC20.add_pj, DAC20.multiply_pj, DAC20.max_pool_pj, DAC20.relu_pj) == (0.4, 1.0, 1.2, 0.9)
    assert (DAC20.sram_pj, DAC20.dram_pj, DAC20.word_bits) == (5.0, 640.0, 16)
    assert DAC20.mac_pj == pytest.approx(1.4)


def test_presets_by_name():
    assert PRESETS == {"dac20": DAC20, "tpu-v1": TPU_V1, "edge-tpu-like": EDGE_TPU_LIKE}


def test_peaks_are_those_that_their_makers_state():
    assert 2 * TPU_V1.peak_macs_per_s == pytest.approx(92e12, rel=0.005)
    assert 2 * EDGE_TPU_LIKE.peak_macs_per_s == pytest.approx(4e12, rel=0.02)


def test_words_of_each_type():
    assert [replace(DAC20, word=word).word_bits for word in ("int16", "float16")] == [16, 16]
    assert replace(TPU_V1, word="int8").sum_words == 4
    assert replace(TPU_V1, word="float16").sum_words == 2


def test_bandwidth_in_words_a_cycle():
    assert TPU_V1.dram_words_per_cycle == pytest.approx(34e9 / 700e6)
    assert replace(TPU_V1, word="int16").dram_words_per_cycle == pytest.approx(34e9 / 700e6 / 2)
    assert replace(TPU_V1, dram_gb_s=None).dram_words_per_cycle == float("inf")


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("name", "", "a text"),
        ("rows", 0, "a whole number of 1 or more"),
        ("columns", -1, "a whole number of 1 or more"),
        ("columns", 2.5, "a whole number of 1 or more"),
        ("rows", True, "a whole number of 1 or more"),
        ("word", "int4", '"int8", "int16", "float16"'),
        ("dataflow", "rs", '"ws", "os", "is"'),
        ("dram_pj", -1.0, "0 pJ or more"),
        ("add_pj", float("nan"), "0 pJ or more"),
        ("sram_pj", float("inf"), "0 pJ or more"),
        ("sram_pj", None, "0 pJ or more"),
        ("clock_mhz", 0, "a number above 0"),
        ("weight_buffer_kib", "4 MiB", "a number above 0"),
        ("double_buffered", 1, "true or false"),
        ("accumulator_bits", 8, "16, the width of a word of int16, or more"),
    ],
)
def test_an_impossible_accelerator_names_its_field(field, value, expected):
    with pytest.raises(AcceleratorError, match=f"accelerator .*: {field} is .*: expected .*{expected}"):
        Accelerator(**{**asdict(DAC20), field: value})


def test_every_field_is_documented_with_its_unit():
    documented = Accelerator.__doc__.split("Attributes")[1]
    for field in fields(Accelerator):
        assert field.name in documented, field.name
