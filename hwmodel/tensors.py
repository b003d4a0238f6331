"""What the readers of operators ask of the tensors of a graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_runtime.errors import ModelFileError

if TYPE_CHECKING:
    from edge_runtime.flatmodel import Graph, Operator, Tensor

__all__ = ["is_stored", "operand", "where"]


def is_stored(graph: Graph, index: int) -> bool:
    """Whether a tensor's values come from the file: a constant, or what DEQUANTIZE makes of one (float16 weights).

    Constants of types that numpy has no view for (4-bit weights) show by having neither a producer nor a caller to
    feed them.
    """
    producer = graph.producer.get(index)
    if producer is not None and producer.kind in {"DEQUANTIZE", "DENSIFY"}:
        index = producer.input(0)
        producer = graph.producer.get(index)
    return producer is None and index not in graph.inputs


def operand(graph: Graph, operator: Operator, position: int, rank: int | None = None) -> Tensor:
    """Return the tensor at an input position, with `rank` sides if that is given, none of them empty.

    Raises
    ------
    edge_runtime.errors.ModelFileError
        There is none, or it has another shape.
    """
    index = operator.input(position)
    if index < 0:
        raise ModelFileError(f"damaged .tflite: {where(operator)} has no input {position}")
    tensor = graph.tensors[index]
    if (rank is not None and len(tensor.shape) != rank) or not tensor.shape or tensor.size == 0:
        wanted = "a side, none empty" if rank is None else f"{rank} sides, none empty"
        raise ModelFileError(f"{where(operator)} needs {wanted}, in input {position}; its shape is {tensor.shape}")
    return tensor


def where(operator: Operator) -> str:
    """Return how messages call an operator."""
    return f"operator {operator.index} ({operator.kind})"
