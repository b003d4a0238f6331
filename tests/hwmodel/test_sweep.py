from __future__ import annotations

import pytest

from hwmodel import DAC20, AcceleratorError, HardwareError, Sweep


def test_a_range_doubles_and_ends_with_its_end():
    assert Sweep.parse("rows=8..256") == Sweep(("rows",), (8, 16, 32, 64, 128, 256))
    assert Sweep.parse("rows=8..20").values == (8, 16, 20)
    assert Sweep.parse("dram_gb_s=0.5..2").values == (0.5, 1, 2)
    assert Sweep.parse("rows=7..7").values == (7,)


def test_fields_move_together():
    swept = Sweep.parse("rows, columns = 8..16").accelerators(DAC20)
    assert [(one.rows, one.columns) for one in swept] == [(8, 8), (16, 16)]
    assert all(one.dram_pj == DAC20.dram_pj for one in swept)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("rows", "expected FIELD=FIRST..LAST, such as rows=8..256"),
        ("rows=8", "expected FIELD=FIRST..LAST"),
        ("rows=8..many", "expected FIELD=FIRST..LAST"),
        ("rows=1.2.3..8", "expected two numbers"),
        ("lanes=1..2", "'lanes' cannot be swept: expected one of rows, columns"),
        ("rows=16..8", "starts above 0 and does not fall"),
        ("rows=0..8", "starts above 0"),
        ("dram_gb_s=0.000000000001..1000000000000", "doubles 81 times: expected a range of 64 steps"),
    ],
)
def test_a_wrong_sweep_says_what_is_wrong(text, problem):
    with pytest.raises(HardwareError, match=problem):
        Sweep.parse(text)


def test_values_that_do_not_fit_their_field_are_refused():
    with pytest.raises(AcceleratorError, match="rows is 1.5: expected a whole number"):
        Sweep.parse("rows=1.5..3").accelerators(DAC20)
