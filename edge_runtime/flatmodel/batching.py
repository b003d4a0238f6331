"""Whether a model of batch one computes the same for each image when many go through it at once.

An interpreter resizes whatever it is asked to, and a model whose structure takes a batch of one for granted then mixes
images without an error: `(1, 8, 8, 9) * (1, 9)` scales channels, `(9, 8, 9, 9) * (9, 9)` something else. As with
slicing, what is not understood counts as a no.
"""

from __future__ import annotations

from collections.abc import Callable  # noqa: TC003 - the table of rules is annotated at run time
from typing import TYPE_CHECKING, Final

from edge_runtime.flatmodel.channels import ELEMENTWISE

if TYPE_CHECKING:
    from edge_runtime.flatmodel.graph import Graph, Operator

__all__ = ["takes_any_batch"]


def takes_any_batch(graph: Graph) -> bool:
    """Return whether the batch of `graph` (the first side of its inputs, one in the file) may be resized."""
    return all(_is_by_image(graph, operator) for operator in graph.operators)


def _is_by_image(graph: Graph, operator: Operator) -> bool:
    activations = [
        graph.tensors[index].shape
        for index in (*operator.inputs, *operator.outputs)
        if index >= 0 and graph.constant_behind(index) is None
    ]
    if any(len(shape) < 2 or shape[0] != 1 for shape in activations):
        return False
    rule = _RULES.get(operator.kind)
    return not activations or (rule is not None and rule(graph, operator, [len(shape) for shape in activations]))


def _always(_: Graph, __: Operator, ___: list[int]) -> bool:
    return True


def _broadcasts_within_images(graph: Graph, operator: Operator, ranks: list[int]) -> bool:
    constants = [graph.tensors[index].shape for index in operator.inputs if graph.constant_behind(index)]
    return len(set(ranks)) == 1 and all(len(shape) < ranks[0] or shape[0] == 1 for shape in constants)


def _reduces_images(graph: Graph, operator: Operator, ranks: list[int]) -> bool:
    axes = _constant(graph, operator.input(1))
    return axes is not None and not any(axis % ranks[0] == 0 for axis in axes)


def _pads_images(graph: Graph, operator: Operator, _: list[int]) -> bool:
    amounts = _constant(graph, operator.input(1))
    return amounts is not None and amounts[:2] == [0, 0]


def _joins_images(graph: Graph, operator: Operator, ranks: list[int]) -> bool:
    has_constants = any(graph.constant_behind(index) for index in operator.inputs)
    return operator.options["axis"] % ranks[0] != 0 and not has_constants


def _splits_images(graph: Graph, operator: Operator, ranks: list[int]) -> bool:
    axis = _constant(graph, operator.input(0 if operator.kind == "SPLIT" else 2))
    return axis is not None and axis[0] % ranks[0] != 0


def _keeps_images(graph: Graph, operator: Operator, _: list[int]) -> bool:
    """RESHAPE to `(-1, ...)`; TRANSPOSE that leaves the first axis first."""
    places = _constant(graph, operator.input(1))
    return places is not None and places[0] == (-1 if operator.kind == "RESHAPE" else 0)


def _constant(graph: Graph, tensor: int) -> list[int] | None:
    data = graph.tensors[tensor].data if tensor >= 0 else None
    return None if data is None or data.dtype.kind != "i" or not data.size else [int(value) for value in data.ravel()]


_RULES: Final[dict[str, Callable[[Graph, Operator, list[int]], bool]]] = {
    **dict.fromkeys(ELEMENTWISE, _always),
    **dict.fromkeys(("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "DEQUANTIZE"), _always),
    **dict.fromkeys(("MAX_POOL_2D", "AVERAGE_POOL_2D", "L2_POOL_2D"), _always),
    **dict.fromkeys(("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "SPACE_TO_DEPTH", "DEPTH_TO_SPACE"), _always),
    **dict.fromkeys(("SOFTMAX", "LOG_SOFTMAX", "L2_NORMALIZATION", "LOCAL_RESPONSE_NORMALIZATION"), _always),
    **dict.fromkeys(("ADD", "SUB", "MUL", "DIV", "MAXIMUM", "MINIMUM"), _broadcasts_within_images),
    **dict.fromkeys(("SQUARED_DIFFERENCE", "POW", "PRELU", "ADD_N"), _broadcasts_within_images),
    **dict.fromkeys(("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD"), _reduces_images),
    **dict.fromkeys(("PAD", "PADV2", "MIRROR_PAD"), _pads_images),
    "CONCATENATION": _joins_images,
    **dict.fromkeys(("SPLIT", "SPLIT_V"), _splits_images),
    **dict.fromkeys(("RESHAPE", "TRANSPOSE"), _keeps_images),
}
