from __future__ import annotations

from dataclasses import asdict

import pytest

from hwmodel import DAC20, PRESETS, Accelerator, AcceleratorError


def test_dac20_has_the_energies_of_table_1() -> None:
    assert PRESETS == {"dac20": DAC20}
    assert (DAC20.add_pj, DAC20.multiply_pj, DAC20.max_pool_pj, DAC20.relu_pj) == (0.4, 1.0, 1.2, 0.9)
    assert (DAC20.sram_pj, DAC20.dram_pj, DAC20.word_bits) == (5.0, 640.0, 16)
    assert DAC20.mac_pj == pytest.approx(1.4)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("rows", 0),
        ("columns", -1),
        ("word_bits", 0),
        ("dram_pj", -1.0),
        ("add_pj", float("nan")),
        ("sram_pj", float("inf")),
    ],
)
def test_an_impossible_accelerator_names_its_field(field: str, value: float) -> None:
    with pytest.raises(AcceleratorError, match=f"accelerator dac20: {field} is"):
        Accelerator(**{**asdict(DAC20), field: value})
