"""Operators that run on the array, as matrix products."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from edge_runtime.errors import ModelFileError
from hwmodel.tensors import is_stored, operand, where
from hwmodel.window import Window
from hwmodel.workload import Layer, MatrixProduct

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge_runtime.flatmodel import Graph, Operator, Tensor

__all__ = ["PRODUCTS"]


def _pixels(operator: Operator, elements: int, filters: int, groups: int = 1) -> int:
    """Return how many positions `elements` are with so many filters, those of all groups."""
    if min(filters, groups, elements) < 1 or filters % groups or elements % filters:
        raise ModelFileError(
            f"damaged .tflite: {where(operator)} cannot make {elements} outputs "
            f"with {filters} filters in {groups} groups"
        )
    return elements // filters


def _window(graph: Graph, operator: Operator, image: Tensor, kernel: tuple[int, ...], channels: int) -> Window:
    sides = graph.tensors[operator.outputs[0]].shape[1:-1]
    if len(sides) != len(kernel):
        raise ModelFileError(f"{where(operator)} has an output of shape {graph.tensors[operator.outputs[0]].shape}")
    names = ("h", "w") if len(kernel) == 2 else ("d", "h", "w")
    return Window.padded(
        image.shape[1:-1],
        sides,
        kernel,
        # What the reader has no options for strides by as much as the image shrinks.
        tuple(
            max(1, operator.options.get(f"stride_{name}", -(-side // out)))
            for name, side, out in zip(names, image.shape[1:-1], sides, strict=True)
        ),
        tuple(max(1, operator.options.get(f"dilation_{name}", 1)) for name in names),
        channels,
    )


def _convolution(graph: Graph, operator: Operator, moved: Layer) -> Layer:
    image, kernel = operand(graph, operator, 0, 4), operand(graph, operator, 1, 4)
    filters, height, width, channels = kernel.shape
    if image.shape[3] % channels:
        raise ModelFileError(
            f"damaged .tflite: {where(operator)} has filters of {channels} channels for {image.shape[3]} of its input"
        )
    groups = image.shape[3] // channels
    product = MatrixProduct(
        height * width * channels,
        filters // groups,
        _pixels(operator, moved.outputs, filters, groups),
        groups,
        _window(graph, operator, image, (height, width), channels),
        is_stored(graph, kernel.index),
    )
    return replace(moved, kind="convolution", products=(product,))


def _depthwise(graph: Graph, operator: Operator, moved: Layer) -> Layer:
    image, kernel = operand(graph, operator, 0, 4), operand(graph, operator, 1, 4)
    _, height, width, filters = kernel.shape
    groups = image.shape[3]
    product = MatrixProduct(
        height * width,
        filters // groups,
        _pixels(operator, moved.outputs, filters, groups),
        groups,
        _window(graph, operator, image, (height, width), 1),
        is_stored(graph, kernel.index),
    )
    return replace(moved, kind="depthwise", products=(product,))


def _convolution_3d(graph: Graph, operator: Operator, moved: Layer) -> Layer:
    image, kernel = operand(graph, operator, 0, 5), operand(graph, operator, 1, 5)
    *sides, channels, filters = kernel.shape
    product = MatrixProduct(
        math.prod(sides) * channels,
        filters,
        _pixels(operator, moved.outputs, filters),
        window=_window(graph, operator, image, tuple(sides), channels),
        stored=is_stored(graph, kernel.index),
    )
    return replace(moved, kind="convolution", products=(product,))


def _transposed(graph: Graph, operator: Operator, moved: Layer) -> Layer:
    # Every position of the input is multiplied into a patch of the output, and patches are added where they overlap:
    # no product with the zeros that a convolution over the stretched input would have.
    kernel, image = operand(graph, operator, 1), operand(graph, operator, 2)
    filters, channels = math.prod(kernel.shape[:-1]), kernel.shape[-1]
    pixels = _pixels(operator, image.size, channels)
    product = MatrixProduct(channels, filters, pixels, stored=is_stored(graph, kernel.index))
    # The first input is the shape of the output: configuration.
    shape = graph.tensors[operator.inputs[0]]
    return replace(
        moved,
        kind="transposed",
        inputs=image.size,
        weights=moved.weights - (shape.size if is_stored(graph, shape.index) else 0),
        products=(product,),
        additions=max(0, pixels * filters - moved.outputs),
    )


def _dense(graph: Graph, operator: Operator, moved: Layer) -> Layer:
    kernel = operand(graph, operator, 1, 2)
    filters, reduction = kernel.shape
    pixels = _pixels(operator, moved.outputs, filters)
    return replace(
        moved,
        kind="dense",
        products=(MatrixProduct(reduction, filters, pixels, stored=is_stored(graph, kernel.index)),),
    )


def _matmul(graph: Graph, operator: Operator, moved: Layer) -> Layer:
    left, right = operand(graph, operator, 0), operand(graph, operator, 1)
    output = graph.tensors[operator.outputs[0]].shape
    if min(len(left.shape), len(right.shape), len(output)) < 2 or output[-2] < 1 or output[-1] < 1:
        raise ModelFileError(f"{where(operator)} multiplies {left.shape} and {right.shape} into {output}")
    rows, filters, matrices = output[-2], output[-1], math.prod(output[:-2])
    reduction = left.shape[-1] * left.shape[-2] // rows  # whichever side is transposed
    shared = is_stored(graph, right.index)
    if shared and math.prod(right.shape[:-2]) == 1:
        product = MatrixProduct(reduction, filters, rows * matrices)
    else:
        product = MatrixProduct(reduction, filters, rows, matrices, stored=shared)
    return replace(moved, kind="matmul", products=(product,))


# Positions of the weight matrices, of other weights, and what each cell does at each step besides.
_RECURRENT: Final = {
    "RNN": ((1, 2), (3,), (0, 0, 1)),
    "UNIDIRECTIONAL_SEQUENCE_RNN": ((1, 2), (3,), (0, 0, 1)),
    "BIDIRECTIONAL_SEQUENCE_RNN": ((1, 2, 5, 6, 10, 11), (3, 7), (0, 0, 2)),
    # Three gates and two values are non-linear; three products and a sum make the new state.
    "LSTM": ((*range(1, 9), 16), (*range(9, 16), 17, *range(20, 24)), (1, 3, 5)),
    "UNIDIRECTIONAL_SEQUENCE_LSTM": ((*range(1, 9), 16), (*range(9, 16), 17, *range(20, 24)), (1, 3, 5)),
    "BIDIRECTIONAL_SEQUENCE_LSTM": (
        (*range(1, 9), 16, *range(18, 26), 33, *range(40, 48)),
        (*range(9, 16), 17, *range(26, 33), 34),
        (2, 6, 10),
    ),
}  # fmt: skip


def _recurrent(graph: Graph, operator: Operator, moved: Layer) -> Layer:
    sequence = operand(graph, operator, 0)
    steps = sequence.size // sequence.shape[-1]
    at_matrices, at_others, (additions, multiplications, functions) = _RECURRENT[operator.kind]
    matrices = [graph.tensors[operator.input(i)] for i in at_matrices if operator.input(i) >= 0]
    others = [graph.tensors[operator.input(i)] for i in at_others if operator.input(i) >= 0]
    if not matrices or any(len(matrix.shape) != 2 or matrix.size == 0 for matrix in matrices):
        raise ModelFileError(f"damaged .tflite: {where(operator)} lacks its weight matrices")
    products = [MatrixProduct(matrix.shape[1], matrix.shape[0], steps) for matrix in matrices]
    cells = matrices[0].shape[0] * steps
    return replace(
        moved,
        kind="recurrent",
        inputs=sequence.size,
        weights=sum(tensor.size for tensor in (*matrices, *others) if is_stored(graph, tensor.index)),
        products=tuple(products),
        additions=additions * cells,
        multiplications=multiplications * cells,
        functions=functions * cells,
    )


def _svdf(graph: Graph, operator: Operator, moved: Layer) -> Layer:
    # A dense layer into filters (units times rank), then for each filter a sum over the memory of its past.
    sequence, features, times = (operand(graph, operator, position, 2) for position in (0, 1, 2))
    filters, reduction = features.shape
    batch = sequence.shape[0]
    products = (
        MatrixProduct(reduction, filters, batch),
        MatrixProduct(times.shape[1], 1, batch, groups=filters),
    )
    weights = [graph.tensors[operator.input(i)] for i in (1, 2, 3) if operator.input(i) >= 0]
    return replace(
        moved,
        kind="recurrent",
        inputs=sequence.size,
        weights=sum(tensor.size for tensor in weights if is_stored(graph, tensor.index)),
        products=products,
        additions=max(0, filters * batch - moved.outputs),
    )


PRODUCTS: Final[dict[str, Callable[[Graph, Operator, Layer], Layer]]] = {
    "CONV_2D": _convolution,
    "DEPTHWISE_CONV_2D": _depthwise,
    "CONV_3D": _convolution_3d,
    "TRANSPOSE_CONV": _transposed,
    "CONV_3D_TRANSPOSE": _transposed,
    "FULLY_CONNECTED": _dense,
    "BATCH_MATMUL": _matmul,
    "SVDF": _svdf,
    **dict.fromkeys(_RECURRENT, _recurrent),
}
"""How each operator that runs on the array becomes a layer."""
