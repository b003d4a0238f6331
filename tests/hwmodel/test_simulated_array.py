"""The closed forms of `hwmodel.dataflow` against an array that is run one cycle at a time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwmodel import DAC20, ArrayAccesses, MatrixProduct, array_accesses, array_cycles, convolution
from tests.hwmodel.simulator import simulate

sides = st.integers(1, 7)
dataflows = st.sampled_from(["ws", "os", "is"])


def array(rows, columns, dataflow):
    return replace(DAC20, rows=rows, columns=columns, dataflow=dataflow)


def check(product, inputs, weights, accelerator, tiles=1):
    run = simulate(
        inputs,
        weights,
        rows=accelerator.rows,
        columns=accelerator.columns,
        dataflow=accelerator.dataflow,
        tiles=tiles,
    )
    np.testing.assert_array_equal(run.outputs, inputs @ weights)
    assert run.cycles == array_cycles(product, accelerator, tiles=tiles)
    accesses = ArrayAccesses(run.weight_reads, run.input_reads, run.output_writes)
    assert accesses == array_accesses(product, accelerator, tiles=tiles)
    return run


@settings(max_examples=400, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9), sides, sides, dataflows, st.integers(0, 2**32 - 1))
def test_cycles_and_accesses_of_random_products(reduction, filters, pixels, rows, columns, dataflow, seed):
    rng = np.random.default_rng(seed)
    inputs, weights = rng.integers(-9, 10, (pixels, reduction)), rng.integers(-9, 10, (reduction, filters))
    check(MatrixProduct(reduction, filters, pixels), inputs, weights, array(rows, columns, dataflow))


@settings(max_examples=100, deadline=None)
@given(st.integers(2, 9), st.integers(2, 9), st.integers(1, 9), sides, sides, st.sampled_from(["ws", "is"]), st.data())
def test_tiles_of_what_streams_pass_one_after_another(pixels, filters, reduction, rows, columns, dataflow, data):
    tiles = data.draw(st.integers(2, pixels if dataflow == "ws" else filters))
    rng = np.random.default_rng(0)
    inputs, weights = rng.integers(-9, 10, (pixels, reduction)), rng.integers(-9, 10, (reduction, filters))
    check(MatrixProduct(reduction, filters, pixels), inputs, weights, array(rows, columns, dataflow), tiles)


@settings(max_examples=60, deadline=None)
@given(
    side=st.integers(3, 6),
    channels=st.integers(1, 3),
    filters=st.integers(1, 4),
    kernel=st.integers(1, 3),
    stride=st.integers(1, 2),
    same=st.booleans(),
    accelerator=st.builds(array, sides, sides, dataflows),
)
def test_random_convolutions(side, channels, filters, kernel, stride, same, accelerator):
    """The image is unrolled into windows, multiplied in the array, and compared with a convolution as it is defined."""
    layer = convolution("c", (side, side + 1, channels), filters, (kernel, kernel), stride=stride, same=same)
    (product,) = layer.products
    rng = np.random.default_rng(1)
    image = rng.integers(-9, 10, (side, side + 1, channels))
    kernels = rng.integers(-9, 10, (kernel, kernel, channels, filters))
    top, left = product.window.padding
    padded = np.pad(image, ((top, kernel), (left, kernel), (0, 0)))
    height, width = product.window.output
    windows = np.array(
        [padded[y * stride :, x * stride :][:kernel, :kernel].ravel() for y in range(height) for x in range(width)]
    )
    run = check(product, windows, kernels.reshape(-1, filters), accelerator)
    for y, x, number in np.ndindex(height, width, filters):
        patch = padded[y * stride : y * stride + kernel, x * stride : x * stride + kernel]
        assert run.outputs[y * width + x, number] == (patch * kernels[..., number]).sum()


@pytest.mark.parametrize("dataflow", ["ws", "os", "is"])
def test_an_array_of_one_unit_and_a_layer_of_one_product(dataflow):
    one = np.array([[3]])
    run = check(MatrixProduct(1, 1, 1), one, one, array(1, 1, dataflow))
    assert run.cycles == (1 if dataflow == "os" else 2)  # ws and is load the unit first


def test_groups_run_one_after_another():
    alone, six = MatrixProduct(9, 1, 10), MatrixProduct(9, 1, 10, groups=6)
    for dataflow in ("ws", "os", "is"):
        small = array(4, 2, dataflow)
        assert array_cycles(six, small) == 6 * array_cycles(alone, small)
        assert array_accesses(six, small) == sum([array_accesses(alone, small)] * 6, ArrayAccesses())
