"""Firing rates at 3 bits: how they lie in memory, and how far off they may be."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cloud_pruner.firing_rates import BITS, pack, unpack

RATES = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=20),
    elements=st.floats(0, 1, width=32),
)


def test_levels_are_sevenths_and_lie_bit_by_bit():
    rates = np.array([[0, 1 / 7, 2 / 7, 3 / 7], [4 / 7, 5 / 7, 6 / 7, 1]], dtype=np.float32)
    packed, shape = pack(rates)
    assert packed.tolist() == [0b00000101, 0b00111001, 0b01110111]
    assert shape == (2, 4)
    np.testing.assert_array_equal(unpack(packed, shape), rates)


@given(RATES)
def test_a_rate_is_at_most_half_a_step_off(rates):
    packed, shape = pack(rates)
    restored = unpack(packed, shape)
    assert packed.dtype == np.uint8
    assert packed.shape == (-(-rates.size * BITS // 8),)
    assert restored.dtype == np.float32
    assert restored.shape == rates.shape
    assert np.abs(restored - rates).max(initial=0) <= 1 / 14 + 1e-6
    assert (restored[rates == 0] == 0).all()
    assert (restored[rates == 1] == 1).all()


@given(RATES)
def test_packing_again_changes_nothing(rates):
    packed, shape = pack(rates)
    again, _ = pack(unpack(packed, shape))
    np.testing.assert_array_equal(again, packed)


@given(RATES)
def test_a_unit_that_fires_more_never_comes_to_fire_less(rates):
    order = np.argsort(rates, axis=None, kind="stable")
    restored = unpack(*pack(rates)).reshape(-1)[order]
    assert (np.diff(restored) >= 0).all()


def test_the_paper_s_network_takes_3_6_megabytes():
    units, classes = 3 * 512 + 2 * 4096, 1000
    packed, _ = pack(np.zeros((units, classes), dtype=np.float32))
    assert packed.nbytes == 3_648_000


@pytest.mark.parametrize("wrong", [-0.01, 1.01, np.nan])
def test_what_is_no_share_is_refused(wrong):
    with pytest.raises(ValueError, match="between 0 and 1"):
        pack(np.array([[0.5, wrong]], dtype=np.float32))


@pytest.mark.parametrize("size", [2, 4])
def test_bytes_of_another_shape_are_refused(size):
    with pytest.raises(ValueError, match=f"{size} bytes do not hold 8 rates"):
        unpack(np.zeros(size, dtype=np.uint8), (2, 4))
