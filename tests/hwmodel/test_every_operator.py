"""Every operator that the reader can name has a cost, a stated "no cost", or is listed with the reason why not."""

from __future__ import annotations

import pytest
from ai_edge_litert import schema_py_generated as schema

from edge_runtime.errors import ModelFileError
from edge_runtime.flatmodel import read_graph
from edge_runtime.flatmodel.schema import OPERATOR_NAMES
from hwmodel import MatrixProduct, read_workload
from hwmodel.operators import NO_COST, NOT_COSTED
from hwmodel.products import PRODUCTS
from hwmodel.vector import SPECIAL, VECTOR
from tests.hwmodel.one_operator import one_operator

TABLES = (PRODUCTS, VECTOR, SPECIAL, NO_COST, NOT_COSTED)
MAP = (1, 4, 4, 8)  # what an operator reads and makes where nothing else is said: 128 elements


def pooling(size):
    options = schema.Pool2DOptionsT()
    options.filterWidth = options.filterHeight = options.strideW = options.strideH = size
    return options


LSTM = [(1, 5, 3), *[(4, 3)] * 4, *[(4, 4)] * 4, *[None] * 3, *[(4,)] * 4, None, None, (1, 4), (1, 4)]
# Shapes of inputs and outputs, positions of constants, options; for operators that the defaults do not suit.
SHAPES = {
    "CONV_2D": ([MAP, (6, 3, 3, 8), (6,)], [(1, 4, 4, 6)], (1, 2), None),
    "DEPTHWISE_CONV_2D": ([MAP, (1, 3, 3, 8), (8,)], [MAP], (1, 2), None),
    "TRANSPOSE_CONV": ([(4,), (6, 2, 2, 8), MAP], [(1, 8, 8, 6)], (0, 1), None),
    "CONV_3D": ([(1, 4, 4, 4, 2), (3, 3, 3, 2, 6), (6,)], [(1, 4, 4, 4, 6)], (1, 2), None),
    "CONV_3D_TRANSPOSE": ([(5,), (2, 2, 2, 6, 3), (1, 4, 4, 4, 3)], [(1, 8, 8, 8, 6)], (0, 1), None),
    "FULLY_CONNECTED": ([(1, 8), (6, 8), (6,)], [(1, 6)], (1, 2), None),
    "BATCH_MATMUL": ([(2, 4, 8), (2, 8, 6)], [(2, 4, 6)], (), None),
    "LSTM": (LSTM, [(1, 5, 4)], range(1, 16), None),
    "UNIDIRECTIONAL_SEQUENCE_LSTM": (LSTM, [(1, 5, 4)], range(1, 16), None),
    "BIDIRECTIONAL_SEQUENCE_LSTM": (
        [(1, 5, 3), *LSTM[1:18], *LSTM[1:18], *[(1, 4)] * 4], [(1, 5, 4), (1, 5, 4)], range(1, 35), None,
    ),
    "RNN": ([(1, 3), (4, 3), (4, 4), (4,), (1, 4)], [(1, 4)], (1, 2, 3), None),
    "UNIDIRECTIONAL_SEQUENCE_RNN": ([(1, 5, 3), (4, 3), (4, 4), (4,), (1, 4)], [(1, 5, 4)], (1, 2, 3), None),
    "BIDIRECTIONAL_SEQUENCE_RNN": (
        [(1, 5, 3), (4, 3), (4, 4), (4,), (1, 4), (4, 3), (4, 4), (4,), (1, 4)], [(1, 5, 4), (1, 5, 4)],
        (1, 2, 3, 5, 6, 7), None,
    ),
    "SVDF": ([(1, 3), (8, 3), (8, 5), (4,), (1, 40)], [(1, 4)], (1, 2, 3), None),
    "MAX_POOL_2D": ([MAP], [(1, 2, 2, 8)], (), pooling(2)),
    "AVERAGE_POOL_2D": ([MAP], [(1, 2, 2, 8)], (), pooling(2)),
    "L2_POOL_2D": ([MAP], [(1, 2, 2, 8)], (), pooling(2)),
    "EMBEDDING_LOOKUP_SPARSE": ([(4,), (4, 2), (2,), (4,), (100, 8)], [(3, 8)], (4,), None),
    "EMBEDDING_LOOKUP": ([(4,), (100, 8)], [(4, 8)], (1,), None),
    "GATHER": ([(100, 8), (4,)], [(4, 8)], (0,), None),
    "NON_MAX_SUPPRESSION_V4": ([(20, 4), (20,)], [(5,), (1,)], (), None),
    "NON_MAX_SUPPRESSION_V5": ([(20, 4), (20,)], [(5,), (5,), (1,)], (), None),
    "TOPK_V2": ([(1, 100), (1,)], [(1, 5), (1, 5)], (1,), None),
    "SEGMENT_SUM": ([(10, 8), (10,)], [(3, 8)], (1,), None),
}  # fmt: skip
REDUCED = {name for name, work in VECTOR.items() if work.by_input}


def workload(kind):
    inputs, outputs, stored, options = SHAPES.get(kind, ([MAP, MAP], [(1, 8)] if kind in REDUCED else [MAP], (), None))
    values = {2: (1, 2, 2, 1)} if kind == "REDUCE_WINDOW" else None
    if values:
        inputs, stored = [MAP, (), (4,)], (1, 2)
    custom = b"MyOperator" if kind == "CUSTOM" else None
    content = one_operator(kind, inputs, outputs, stored=stored, options=options, values=values, custom=custom)
    return read_workload(read_graph(content))


def test_each_operator_is_in_exactly_one_table():
    for name in OPERATOR_NAMES:
        assert sum(name in table for table in TABLES) == 1, name
    for table in TABLES:
        assert set(table) <= set(OPERATOR_NAMES)


@pytest.mark.parametrize("kind", OPERATOR_NAMES)
def test_each_operator_is_costed_or_listed(kind):
    found = workload(kind)
    assert len(found.layers) + len(found.uncosted) == 1
    if kind in NOT_COSTED:
        (work,) = found.uncosted
        assert work.operator == ("CUSTOM:MyOperator" if kind == "CUSTOM" else kind)
        assert work.reason == NOT_COSTED[kind]
        return
    (layer,) = found.layers
    assert layer.operator == kind
    assert (layer.kind == "no cost") == (kind in NO_COST)
    work = layer.macs + layer.vector_operations
    assert (work == 0) == (kind in NO_COST)


def test_few_operators_are_not_costed():
    """Those of which the main graph does not say what they do, and nothing else."""
    assert set(NOT_COSTED) == {
        "IF", "WHILE", "CALL", "STABLEHLO_WHILE", "STABLEHLO_CASE", "STABLEHLO_COMPOSITE",
        "CUSTOM", "DELEGATE", "STABLEHLO_CUSTOM_CALL",
        "STABLEHLO_CONVOLUTION", "STABLEHLO_DOT_GENERAL", "STABLEHLO_REDUCE_WINDOW",
        "PLACEHOLDER_FOR_GREATER_OP_CODES",
    }  # fmt: skip


def test_an_operator_newer_than_the_reader_is_listed():
    content = one_operator(len(OPERATOR_NAMES) + 5, [MAP], [MAP])
    (work,) = read_workload(read_graph(content)).uncosted
    assert (work.operator, work.reason) == (f"BUILTIN_{len(OPERATOR_NAMES) + 5}", "it has no cost model")


def layer(kind):
    (found,) = workload(kind).layers
    return found


def test_a_transposed_convolution_multiplies_every_input_into_a_patch():
    found = layer("TRANSPOSE_CONV")
    assert (found.kind, found.inputs, found.weights) == ("transposed", 128, 6 * 2 * 2 * 8)
    assert found.products == (MatrixProduct(8, 6 * 2 * 2, 16),)
    assert found.macs == 16 * 8 * 6 * 2 * 2
    assert found.additions == 0  # with stride 2 patches of 2 x 2 do not overlap


def test_patches_that_overlap_are_added():
    content = one_operator("TRANSPOSE_CONV", [(4,), (6, 3, 3, 8), MAP], [(1, 9, 9, 6)], stored=(0, 1))
    (found,) = read_workload(read_graph(content)).layers
    assert found.additions == 16 * 9 * 6 - 81 * 6


def test_a_3d_convolution():
    found = layer("CONV_3D")
    assert found.macs == 64 * 6 * 27 * 2
    assert found.products[0].window.words == 128


def test_a_product_of_activations_has_no_weights():
    found = layer("BATCH_MATMUL")
    assert found.products == (MatrixProduct(8, 6, 4, groups=2, stored=False),)
    assert (found.weights, found.inputs, found.macs) == (0, 64 + 96, 2 * 4 * 8 * 6)


def test_a_product_with_one_stored_matrix_shares_it():
    content = one_operator("BATCH_MATMUL", [(2, 4, 8), (8, 6)], [(2, 4, 6)], stored=(1,))
    (found,) = read_workload(read_graph(content)).layers
    assert found.products == (MatrixProduct(8, 6, 8),)
    assert found.weights == 48


def test_an_lstm():
    found = layer("UNIDIRECTIONAL_SEQUENCE_LSTM")
    assert found.macs == 5 * 4 * (4 * 3 + 4 * 4)  # steps, gates, cells x (inputs + cells)
    assert found.weights == 4 * (4 * 3 + 4 * 4 + 4)
    assert (found.functions, found.multiplications, found.additions) == (5 * 4 * 5, 5 * 4 * 3, 5 * 4)
    both = layer("BIDIRECTIONAL_SEQUENCE_LSTM")
    assert (both.macs, both.weights) == (2 * found.macs, 2 * found.weights)


def test_rnn_and_svdf():
    assert layer("RNN").macs == 4 * 3 + 4 * 4
    assert layer("RNN").weights == 4 * 3 + 4 * 4 + 4
    assert layer("SVDF").macs == 8 * 3 + 8 * 5
    assert layer("SVDF").additions == 8 - 4  # two filters a unit


@pytest.mark.parametrize(
    ("kind", "work"),
    [  # additions, multiplications, comparisons, functions, rectified
        ("ADD", (128, 0, 0, 0, 0)),
        ("SQUARED_DIFFERENCE", (128, 128, 0, 0, 0)),
        ("DIV", (0, 128, 0, 128, 0)),
        ("MAXIMUM", (0, 0, 128, 0, 0)),
        ("LOGISTIC", (0, 0, 0, 128, 0)),
        ("HARD_SWISH", (128, 256, 0, 0, 128)),
        ("LEAKY_RELU", (0, 128, 0, 0, 128)),
        ("SUM", (248, 0, 0, 0, 0)),
        ("MEAN", (248, 8, 0, 0, 0)),
        ("ARG_MAX", (0, 0, 248, 0, 0)),
        ("MAX_POOL_2D", (0, 0, 96, 0, 0)),
        ("AVERAGE_POOL_2D", (96, 32, 0, 0, 0)),
        ("L2_POOL_2D", (128, 128, 0, 32, 0)),
        ("REDUCE_WINDOW", (0, 0, 384, 0, 0)),
        ("SOFTMAX", (128 + 112, 128, 112, 128 + 16, 0)),
        ("LOG_SOFTMAX", (2 * 128 + 112, 0, 112, 128 + 16, 0)),
        ("TRANSPOSE", (0, 0, 0, 0, 0)),
        ("TOPK_V2", (0, 0, 100 * 3, 0, 0)),
        ("NON_MAX_SUPPRESSION_V4", (4 * 190, 2 * 190, 5 * 190, 190, 0)),
        ("RESHAPE", (0, 0, 0, 0, 0)),
    ],
)
def test_operations_by_hand(kind, work):
    found = layer(kind)
    counted = (found.additions, found.multiplications, found.comparisons, found.functions, found.rectified)
    assert counted == work


def test_a_look_up_fetches_the_rows_that_it_is_asked_for():
    assert layer("GATHER").weights == layer("EMBEDDING_LOOKUP").weights == 4 * 8


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (one_operator("ADD", [], [MAP]), r"operator 0 \(ADD\) has no input 0"),
        (one_operator("MAX_POOL_2D", [MAP], [MAP]), r"operator 0 \(MAX_POOL_2D\) has a window of 0 elements"),
        (one_operator("CONV_2D", [MAP], [MAP]), r"operator 0 \(CONV_2D\) has no input 1"),
        (one_operator("CONV_2D", [MAP, (6, 8)], [MAP], stored=(1,)), "needs 4 sides, none empty, in input 1"),
        (one_operator("CONV_2D", [MAP, (6, 3, 3, 3)], [MAP], stored=(1,)), "filters of 3 channels for 8 of its input"),
        (one_operator("CONV_2D", [MAP, (6, 3, 3, 8)], [MAP], stored=(1,)), "cannot make 128 outputs with 6 filters"),
        (one_operator("CONV_2D", [MAP, (8, 3, 3, 8)], [(128,)], stored=(1,)), r"has an output of shape \(128,\)"),
        (one_operator("LSTM", [(1, 5, 3)], [(1, 5, 4)]), r"operator 0 \(LSTM\) lacks its weight matrices"),
        (one_operator("BATCH_MATMUL", [(8,), (8,)], [(1,)]), r"multiplies \(8,\) and \(8,\) into \(1,\)"),
    ],
)
def test_operators_whose_tensors_do_not_fit_say_so(content, problem):
    with pytest.raises(ModelFileError, match=problem):
        read_workload(read_graph(content))
