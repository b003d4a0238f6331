"""The compiled gather and its numpy form fill the same bytes, whatever is kept."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.flatmodel import gather
from edge_runtime.flatmodel.gather import fresh_memory, gather_with_numpy, take_kept

compiled = pytest.mark.skipif(not gather.is_compiled(), reason="built without a compiler")


@st.composite
def arrays_with_kept(draw):
    shape = tuple(draw(st.lists(st.integers(1, 40), min_size=1, max_size=4)))
    dtype = draw(st.sampled_from([np.float32, np.float16, np.int8, np.uint8, np.int64, np.int32]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    values = rng.integers(-100, 100, shape).astype(dtype)
    kept = {}
    for axis in draw(st.sets(st.integers(0, len(shape) - 1))):
        count = draw(st.integers(1, shape[axis]))
        kept[axis] = np.sort(rng.choice(shape[axis], count, replace=False)).astype(np.int64)
    return values, kept


def plainly(values, kept):
    for axis, indices in kept.items():
        values = values.take(indices, axis=axis)
    return values


@settings(max_examples=300, deadline=None)
@given(arrays_with_kept())
def test_kept_slices_in_order_and_nothing_beside_them(drawn):
    values, kept = drawn
    expected = plainly(values, kept)
    room = np.full(expected.size + 64, 77, values.dtype)
    take_kept(values, kept, room[32:-32])
    np.testing.assert_array_equal(room[32:-32], expected.ravel())
    assert (room[:32] == 77).all()
    assert (room[-32:] == 77).all()


@pytest.mark.parametrize("size", [1, 1000, (16 << 20) - 1, 16 << 20, (40 << 20) + 13])
def test_fresh_memory_can_be_filled_to_the_last_byte(size):
    memory = fresh_memory(size)
    memory[:] = 7
    assert memory.shape == (size,)
    assert memory.data.contiguous
    other = fresh_memory(size)
    other[:] = 8
    assert (memory[[0, size // 2, -1]] == 7).all()


@compiled
@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 50), st.integers(1, 9), st.integers(1, 300))
def test_both_forms_agree(seed, rows, middle, columns):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(rows, middle, columns)).astype(np.float32)
    picked = [np.sort(rng.choice(n, rng.integers(1, n + 1), replace=False)).astype(np.int64) for n in (rows, columns)]
    filled = [np.empty((len(picked[0]), middle, len(picked[1])), np.float32) for _ in range(2)]
    gather._gather.gather(filled[0], values, *picked)
    gather_with_numpy(filled[1], values, *picked)
    np.testing.assert_array_equal(*filled)


@compiled
class TestWhatTheCompiledFormRefuses:
    values = np.zeros((4, 2, 8), np.float32)

    @pytest.mark.parametrize("rows", [[-1], [4], [2, 1], [1, 1], [2**40]])
    def test_indices_outside_or_out_of_order(self, rows):
        out = np.zeros((len(rows), 2, 8), np.float32)
        with pytest.raises(IndexError, match="outside an axis of 4, or out of order"):
            gather._gather.gather(out, self.values, np.array(rows, np.int64), np.arange(8))

    def test_room_of_another_size(self):
        with pytest.raises(ValueError, match="does not fit"):
            gather._gather.gather(np.zeros((1, 2, 8), np.float32), self.values, np.arange(2), np.arange(8))

    def test_room_of_another_type(self):
        with pytest.raises(ValueError, match="does not fit"):
            gather._gather.gather(np.zeros((4, 2, 8)), self.values, np.arange(4), np.arange(8))

    def test_indices_of_another_type(self):
        with pytest.raises(ValueError, match="int64"):
            gather._gather.gather(np.zeros((1, 2, 8), np.float32), self.values, np.zeros(1, np.int32), np.arange(8))
