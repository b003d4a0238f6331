"""Layers that do not fit their buffers: what is fetched again, and what cutting them into tiles costs and saves."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwmodel import Accelerator, array_cycles, convolution, dense, layer_figures

ROOMY = Accelerator(
    name="roomy", rows=8, columns=8, word="int8", accumulator_bits=8, add_pj=1, multiply_pj=1, max_pool_pj=1, relu_pj=1,
    sram_pj=1, dram_pj=10,
)  # fmt: skip
# 32 x 32 x 16 words in and out, 72 folds of eight rows for 2 x 8 filters.
LAYER = convolution("c", (32, 32, 16), 16, bias=False)
IMAGE, WEIGHTS, OUTPUTS = 32 * 32 * 16, 9 * 16 * 16, 32 * 32 * 16


def figures(layer=LAYER, **changes):
    return layer_figures(layer, replace(ROOMY, **changes))


def dram(found):
    return found.traffic.dram_weights, found.traffic.dram_inputs, found.traffic.dram_outputs


@pytest.mark.parametrize("dataflow", ["ws", "os", "is"])
def test_what_fits_moves_once(dataflow):
    found = figures(dataflow=dataflow)
    assert dram(found) == (WEIGHTS, IMAGE, OUTPUTS)
    assert found.tiles == 1


def test_half_a_buffer_is_there_to_work_on_with_double_buffering():
    assert dram(figures(activation_buffer_kib=32))[1] == IMAGE
    assert dram(figures(activation_buffer_kib=31))[1] > IMAGE
    assert dram(figures(activation_buffer_kib=31, double_buffered=False))[1] == IMAGE


def test_words_of_two_bytes_take_twice_the_room():
    wide = {"word": "int16", "accumulator_bits": 16}
    assert dram(figures(activation_buffer_kib=63, **wide))[1] > IMAGE
    assert dram(figures(activation_buffer_kib=64, **wide))[1] == IMAGE


def test_weight_stationary_fetches_the_image_for_each_fold():
    # 16 channels in folds of 8: each fold has one tap and half the channels, and the padding takes a row or column of
    # the image from all taps but the one in the middle. Twice, for two blocks of filters.
    taps = (31 + 32 + 31) ** 2
    assert dram(figures(activation_buffer_kib=8)) == (WEIGHTS, 2 * taps * 16, OUTPUTS)


def test_output_stationary_fetches_the_image_for_each_block_of_filters():
    weights, inputs, _ = dram(figures(dataflow="os", activation_buffer_kib=16, double_buffered=False))
    assert (weights, inputs) == (WEIGHTS, IMAGE)
    _, inputs, _ = dram(figures(dataflow="os", activation_buffer_kib=15, double_buffered=False))
    assert inputs == 2 * IMAGE


def test_output_stationary_fetches_filters_that_do_not_fit_for_each_block_of_pixels():
    block = 9 * 16 * 8 / 1024  # KiB of eight filters
    fits, not_quite = ({"dataflow": "os", "weight_buffer_kib": 2 * kib} for kib in (block, block - 0.01))
    assert dram(figures(**fits))[0] == WEIGHTS
    assert dram(figures(**not_quite))[0] == WEIGHTS * 32 * 32 // 8


def test_input_stationary_fetches_filters_that_do_not_fit_for_each_block_of_pixels():
    assert dram(figures(dataflow="is", weight_buffer_kib=4))[0] == WEIGHTS * 32 * 32 // 8


def test_sums_that_find_no_room_go_to_dram_and_come_back():
    # 18 blocks of rows: each sum leaves and comes back 17 times.
    found = figures(accumulator_kib=1, double_buffered=False)
    assert dram(found) == (WEIGHTS, IMAGE, OUTPUTS * (1 + 2 * 17))
    wide = figures(accumulator_kib=1, double_buffered=False, accumulator_bits=32)
    assert dram(wide) == (WEIGHTS, IMAGE, OUTPUTS * (1 + 2 * 17 * 4))


def test_sums_need_no_room_where_one_fold_makes_them():
    pointwise = convolution("p", (32, 32, 8), 16, (1, 1), bias=False)
    assert figures(pointwise, accumulator_kib=1).traffic.dram_outputs == OUTPUTS
    assert figures(accumulator_kib=1, dataflow="os").traffic.dram_outputs == OUTPUTS


def test_where_dram_is_slow_tiles_keep_the_sums_on_the_chip():
    slow = {"accumulator_kib": 1, "clock_mhz": 1000, "dram_gb_s": 1, "weight_buffer_kib": 16}
    found = figures(**slow)
    # 1 KiB, half of it at work, for eight columns of one-byte sums: 64 pixels.
    assert found.tiles == 32 * 32 // 64
    assert dram(found) == (WEIGHTS, IMAGE, OUTPUTS)  # filters stay in their buffer from tile to tile
    folds = 18 * 2
    (product,) = LAYER.products
    untiled = array_cycles(product, ROOMY)
    assert found.array_cycles == untiled + folds * (found.tiles - 1) * (2 * 8 + 8 - 2)


def test_tiles_fetch_filters_again_that_do_not_fit():
    slow = {"accumulator_kib": 1, "clock_mhz": 1000, "dram_gb_s": 1, "weight_buffer_kib": 1}
    found = figures(**slow)
    assert found.tiles == 16
    assert dram(found)[0] == 16 * WEIGHTS
    assert dram(found)[2] == OUTPUTS


def test_tiles_read_the_rows_between_them_twice():
    slow = {"activation_buffer_kib": 16, "clock_mhz": 1000, "dram_gb_s": 0.1}
    found = figures(**slow)
    rows = 32 // found.tiles
    assert found.tiles > 1
    assert dram(found)[1] == found.tiles * (rows + 2) * 32 * 16
    assert dram(found)[1] < dram(figures(activation_buffer_kib=16))[1]


def test_where_dram_is_fast_or_not_stated_nothing_is_tiled():
    assert figures(activation_buffer_kib=16, clock_mhz=1000, dram_gb_s=1e6).tiles == 1
    assert figures(activation_buffer_kib=16, clock_mhz=1000).tiles == 1


@pytest.mark.parametrize("dataflow", ["ws", "os", "is"])
@pytest.mark.parametrize("kib", [0.01, 0.3, 2, 20, 200])
def test_larger_buffers_never_cost_time_or_traffic(dataflow, kib):
    slow = {"dataflow": dataflow, "clock_mhz": 1000, "dram_gb_s": 4}
    sizes = ("weight_buffer_kib", "activation_buffer_kib", "accumulator_kib")
    small = figures(**slow, **dict.fromkeys(sizes, kib))
    for size in sizes:
        larger = figures(**slow, **{**dict.fromkeys(sizes, kib), size: 2 * kib})
        assert larger.elapsed_cycles <= small.elapsed_cycles


def test_time_is_the_longer_of_computing_and_moving_with_double_buffering():
    layer = dense("d", 1000, 80, bias=False)
    moved = 1000 * 80 + 1000 + 80
    (product,) = layer.products
    compute = array_cycles(product, ROOMY)
    fast, slow = ({"clock_mhz": 1000, "dram_gb_s": gb_s} for gb_s in (1000, 1))
    assert figures(layer, **slow).elapsed_cycles == moved  # a byte a cycle
    assert figures(layer, **slow).bound == "memory"
    assert figures(layer, **fast).elapsed_cycles == compute
    assert figures(layer, **fast).bound == "compute"
    assert figures(layer, **slow, double_buffered=False).elapsed_cycles == compute + moved


def test_an_array_of_one_unit_and_a_layer_smaller_than_the_array():
    tiny = convolution("t", (2, 2, 1), 1, (1, 1), bias=False)
    for dataflow in ("ws", "os", "is"):
        assert dram(figures(tiny, rows=1, columns=1, dataflow=dataflow)) == (1, 4, 4)
        assert dram(figures(tiny, rows=300, columns=7, dataflow=dataflow)) == (1, 4, 4)


@settings(max_examples=300, deadline=None)
@given(
    layer=st.builds(
        convolution,
        st.just("c"),
        st.tuples(st.integers(3, 40), st.integers(3, 40), st.integers(1, 40)),
        st.integers(1, 40),
        st.tuples(st.integers(1, 3), st.integers(1, 3)),
        stride=st.integers(1, 3),
        same=st.booleans(),
        bias=st.just(value=False),
    ),
    sides=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    dataflow=st.sampled_from(["ws", "os", "is"]),
    buffers=st.tuples(*[st.sampled_from([0.01, 0.5, 2, 16, 200])] * 3),
    dram_gb_s=st.sampled_from([0.1, 4, 1000]),
    double_buffered=st.booleans(),
)
def test_any_layer_moves_what_it_must_and_is_never_slower_for_its_tiles(
    layer, sides, dataflow, buffers, dram_gb_s, double_buffered
):
    machine = replace(
        ROOMY, rows=sides[0], columns=sides[1], dataflow=dataflow, clock_mhz=1000, dram_gb_s=dram_gb_s,
        double_buffered=double_buffered,
    )  # fmt: skip
    (product,) = layer.products
    must = dram(layer_figures(layer, machine))
    assert must == (layer.weights, product.window.words, layer.outputs)
    sizes = dict(zip(("weight_buffer_kib", "activation_buffer_kib", "accumulator_kib"), buffers, strict=True))
    small = replace(machine, **sizes)
    found, patient = layer_figures(layer, small), layer_figures(layer, replace(small, dram_gb_s=None))
    assert all(moved >= needed for moved, needed in zip(dram(found), must, strict=True))
    assert patient.tiles == 1
    assert patient.array_cycles == array_cycles(product, small) <= found.array_cycles
    untiled = patient.traffic.dram_words / small.dram_words_per_cycle
    busy = patient.array_cycles
    assert found.elapsed_cycles <= (max(untiled, busy) if double_buffered else untiled + busy) * (1 + 1e-9)
