"""What the units behind the array have to do for each operator: pooling, activations, element-wise, reductions.

`VECTOR` counts the operations of an operator for each of its outputs, or for each of its inputs where it reduces.
A non-linear function (exp, tanh, square root, reciprocal, ...) is a look-up in a table with interpolation between two
entries. Logic on whole words counts as an addition. What depends on the data counts as often as it can come up.
Counts that need more than the number of inputs and outputs are in `SPECIAL`. Table I of the paper prices none of this
beyond max pooling and ReLU: our own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from edge_runtime.errors import ModelFileError
from hwmodel.tensors import is_stored, where

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge_runtime.flatmodel import Graph, Operator
    from hwmodel.workload import Kind, Layer

__all__ = ["RECTIFIERS", "SPECIAL", "VECTOR", "Work", "vector_layer"]

RECTIFIERS: Final = ("RELU", "RELU_N1_TO_1", "RELU6", "RELU_0_TO_1")


@dataclass(frozen=True, slots=True)
class Work:
    """Operations for each output; with `by_input` for each input that is more than the outputs, as reductions have.

    `multiplications_out` are for each output all the same.
    """

    kind: Kind
    additions: float = 0
    multiplications: float = 0
    comparisons: float = 0
    functions: float = 0
    rectified: int = 0
    by_input: bool = False
    multiplications_out: int = 0


def _each(names: str, work: Work) -> dict[str, Work]:
    return dict.fromkeys(names.split(), work)


VECTOR: Final[dict[str, Work]] = {
    **_each(" ".join(RECTIFIERS), Work("activation", rectified=1)),
    **_each("LEAKY_RELU PRELU", Work("activation", multiplications=1, rectified=1)),
    **_each("TANH LOGISTIC STABLEHLO_TANH STABLEHLO_LOGISTIC", Work("activation", functions=1)),
    "ELU": Work("activation", functions=1, rectified=1),
    "GELU": Work("activation", multiplications=1, functions=1),
    "HARD_SWISH": Work("activation", additions=1, multiplications=2, rectified=1),
    **_each("ADD SUB NEG ABS SIGN FLOOR CEIL ROUND CUMSUM LOGICAL_OR LOGICAL_AND LOGICAL_NOT BITWISE_XOR RIGHT_SHIFT "
            "STABLEHLO_ADD STABLEHLO_SUBTRACT STABLEHLO_NEGATE STABLEHLO_ABS STABLEHLO_FLOOR STABLEHLO_AND "
            "STABLEHLO_OR STABLEHLO_SHIFT_LEFT", Work("elementwise", additions=1)),
    **_each("MUL SQUARE STABLEHLO_MULTIPLY", Work("elementwise", multiplications=1)),
    "SQUARED_DIFFERENCE": Work("elementwise", additions=1, multiplications=1),
    **_each("DIV FLOOR_DIV STABLEHLO_DIVIDE", Work("elementwise", multiplications=1, functions=1)),
    **_each("FLOOR_MOD STABLEHLO_REMAINDER", Work("elementwise", additions=1, multiplications=2, functions=1)),
    **_each("MAXIMUM MINIMUM LESS LESS_EQUAL GREATER GREATER_EQUAL EQUAL NOT_EQUAL STABLEHLO_MAXIMUM STABLEHLO_MINIMUM "
            "STABLEHLO_COMPARE", Work("elementwise", comparisons=1)),
    "STABLEHLO_CLAMP": Work("elementwise", comparisons=2),
    **_each("EXP LOG SIN COS SQRT RSQRT BUCKETIZE RANDOM_UNIFORM RANDOM_STANDARD_NORMAL STABLEHLO_RNG_BIT_GENERATOR "
            "STABLEHLO_EXPONENTIAL STABLEHLO_LOG STABLEHLO_COSINE STABLEHLO_RSQRT STABLEHLO_CBRT",
            Work("elementwise", functions=1)),
    **_each("POW STABLEHLO_POWER ATAN2", Work("elementwise", multiplications=1, functions=2)),
    "COMPLEX_ABS": Work("elementwise", additions=1, multiplications=2, functions=1),
    "FAKE_QUANT": Work("elementwise", additions=1, multiplications=1, comparisons=2),
    # A sum over the window that moves on by one channel: one element comes in, one goes out.
    "LOCAL_RESPONSE_NORMALIZATION": Work("elementwise", additions=3, multiplications=3, functions=1),
    "RESIZE_BILINEAR": Work("elementwise", additions=6, multiplications=3),
    **_each("SUM REDUCE_ANY REDUCE_ALL ADD_N SEGMENT_SUM UNSORTED_SEGMENT_SUM", Work("reduction", additions=1,
            by_input=True)),
    "MEAN": Work("reduction", additions=1, by_input=True, multiplications_out=1),
    **_each("REDUCE_PROD UNSORTED_SEGMENT_PROD", Work("reduction", multiplications=1, by_input=True)),
    **_each("REDUCE_MAX REDUCE_MIN ARG_MAX ARG_MIN UNSORTED_SEGMENT_MAX UNSORTED_SEGMENT_MIN",
            Work("reduction", comparisons=1, by_input=True)),
    # The body of the reduction is another subgraph: nearly always one operation.
    "STABLEHLO_REDUCE": Work("reduction", additions=1, by_input=True),
    **_each("TRANSPOSE STABLEHLO_TRANSPOSE SCATTER_ND STABLEHLO_SCATTER TILE "
            "BROADCAST_TO STABLEHLO_BROADCAST_IN_DIM REVERSE_V2 REVERSE_SEQUENCE SPACE_TO_DEPTH DEPTH_TO_SPACE "
            "SPACE_TO_BATCH_ND BATCH_TO_SPACE_ND RESIZE_NEAREST_NEIGHBOR SELECT SELECT_V2 "
            "STABLEHLO_SELECT WHERE ONE_HOT SPARSE_TO_DENSE MATRIX_DIAG MATRIX_SET_DIAG DYNAMIC_UPDATE_SLICE "
            "STABLEHLO_DYNAMIC_UPDATE_SLICE STABLEHLO_DYNAMIC_SLICE DILATE FILL RANGE ZEROS_LIKE STABLEHLO_IOTA "
            "ASSIGN_VARIABLE REAL IMAG", Work("copy")),
}  # fmt: skip


def vector_layer(graph: Graph, operator: Operator, moved: Layer) -> Layer:
    """Give a layer that takes in and gives out its operations."""
    special = SPECIAL.get(operator.kind)
    if special is not None:
        return special(graph, operator, moved)
    work = VECTOR[operator.kind]
    count = max(0, moved.inputs - moved.outputs) if work.by_input else moved.outputs
    return replace(
        moved,
        kind=work.kind,
        # Constants of reductions and copies are axes, indices and amounts, which configure and are no weights.
        weights=moved.weights if work.kind in {"elementwise", "activation"} else 0,
        additions=int(work.additions * count),
        multiplications=int(work.multiplications * count) + work.multiplications_out * moved.outputs,
        comparisons=int(work.comparisons * count),
        functions=int(work.functions * count),
        rectified=moved.rectified + work.rectified * moved.outputs,
    )


def _pooling(_: Graph, operator: Operator, moved: Layer) -> Layer:
    window = operator.options["filter_height"] * operator.options["filter_width"]
    if window < 1:
        raise ModelFileError(f"damaged .tflite: {where(operator)} has a window of {window} elements")
    rest = (window - 1) * moved.outputs
    if operator.kind == "MAX_POOL_2D":
        return replace(moved, kind="pooling", comparisons=rest)
    return replace(moved, kind="pooling", additions=rest, multiplications=moved.outputs)


def _l2_pooling(_: Graph, __: Operator, moved: Layer) -> Layer:
    # The reader knows no window for it: as if windows laid the input out without overlap, which is its usual use.
    functions = moved.outputs
    return replace(moved, kind="pooling", additions=moved.inputs, multiplications=moved.inputs, functions=functions)


def _softmax(graph: Graph, operator: Operator, moved: Layer) -> Layer:
    # exp(x - max(x)) / sum(...): in each row a maximum, differences, exponentials, a sum, and multiplications by its
    # reciprocal; the logarithm of it subtracts the sum's logarithm instead.
    rows = moved.outputs // _last_side(graph, operator)
    rest = moved.outputs - rows
    logarithmic = operator.kind == "LOG_SOFTMAX"
    return replace(
        moved,
        kind="softmax",
        comparisons=rest,
        additions=moved.outputs + rest + (moved.outputs if logarithmic else 0),
        multiplications=0 if logarithmic else moved.outputs,
        functions=moved.outputs + rows,
    )


def _l2_normalization(graph: Graph, operator: Operator, moved: Layer) -> Layer:
    rows = moved.outputs // _last_side(graph, operator)
    twice = 2 * moved.outputs  # squares, and the division by the root of their sum
    return replace(moved, kind="softmax", additions=moved.outputs - rows, multiplications=twice, functions=rows)


def _sorting(graph: Graph, operator: Operator, moved: Layer) -> Layer:
    # n log2(k) comparisons: of a heap of the k best, or of a sort (k = n).
    count = graph.tensors[operator.inputs[0]].size
    kept = graph.tensors[operator.outputs[0]].shape[-1] if operator.kind == "TOPK_V2" else count
    depth = math.ceil(math.log2(kept)) if kept > 1 else 1
    return replace(moved, kind="reduction", weights=0, comparisons=count * depth)


def _box_suppression(graph: Graph, operator: Operator, moved: Layer) -> Layer:
    # Every pair of boxes is compared, at most: their intersection (four comparisons, two differences, a product), the
    # union (two additions), the quotient.
    boxes = graph.tensors[operator.inputs[0]].shape[-2]
    pairs = boxes * (boxes - 1) // 2
    return replace(
        moved, kind="reduction", weights=0, comparisons=5 * pairs, additions=4 * pairs,
        multiplications=2 * pairs, functions=pairs,
    )  # fmt: skip


def _fourier(graph: Graph, operator: Operator, moved: Layer) -> Layer:
    # 2.5 n log2(n) operations for n real values, by the usual count: n log2(n) multiplications, the rest additions.
    count = graph.tensors[operator.inputs[0]].size
    depth = sum(math.log2(side) for side in graph.tensors[operator.inputs[0]].shape[-2:] if side)
    products = int(count * depth)
    return replace(moved, kind="elementwise", weights=0, multiplications=products, additions=products * 3 // 2)


def _sparse_embedding(graph: Graph, operator: Operator, moved: Layer) -> Layer:
    # As many rows of the table as there are indices, weighted and summed.
    table = graph.tensors[operator.inputs[-1]].shape
    words = graph.tensors[operator.inputs[0]].size * math.prod(table[1:])
    return replace(moved, kind="reduction", weights=0, inputs=words, additions=words, multiplications=words)


def _window_reduction(graph: Graph, operator: Operator, moved: Layer) -> Layer:
    window = graph.tensors[operator.input(2)].data if operator.input(2) >= 0 else None
    if window is None:
        raise ModelFileError(f"{where(operator)} computes its window as it runs")
    rest = (math.prod(int(side) for side in window.ravel()) - 1) * moved.outputs
    return replace(moved, kind="pooling", weights=0, comparisons=rest)


def _lookup(graph: Graph, operator: Operator, moved: Layer) -> Layer:
    # Of a stored table only the rows that are asked for are fetched; indices that the file holds configure.
    table = graph.tensors[operator.inputs[1 if operator.kind == "EMBEDDING_LOOKUP" else 0]]
    return replace(moved, kind="copy", weights=moved.outputs if is_stored(graph, table.index) else 0)


def _last_side(graph: Graph, operator: Operator) -> int:
    return max(1, (1, *graph.tensors[operator.inputs[0]].shape)[-1])


SPECIAL: Final[dict[str, Callable[[Graph, Operator, Layer], Layer]]] = {
    "MAX_POOL_2D": _pooling,
    "AVERAGE_POOL_2D": _pooling,
    "L2_POOL_2D": _l2_pooling,
    "SOFTMAX": _softmax,
    "LOG_SOFTMAX": _softmax,
    "L2_NORMALIZATION": _l2_normalization,
    "TOPK_V2": _sorting,
    "UNIQUE": _sorting,
    "STABLEHLO_SORT": _sorting,
    "NON_MAX_SUPPRESSION_V4": _box_suppression,
    "NON_MAX_SUPPRESSION_V5": _box_suppression,
    "RFFT2D": _fourier,
    "EMBEDDING_LOOKUP_SPARSE": _sparse_embedding,
    "REDUCE_WINDOW": _window_reduction,
    **dict.fromkeys(("GATHER", "GATHER_ND", "STABLEHLO_GATHER", "EMBEDDING_LOOKUP"), _lookup),
}
"""Operators whose operations take more than a table to count."""
