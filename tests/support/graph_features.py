"""What of a network really lies on the way of channels that may be pruned."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from edge_runtime.flatmodel import BaseModel


def prunable_features(base: BaseModel) -> set[str]:
    """Name the operators that read prunable channels, and what they do to them where they can do several things."""
    prunable = np.zeros(base.channels.units + 1, bool)
    for number in base.channels.prunable:
        group = base.channels.groups[number]
        prunable[group.first : group.first + group.units] = True
    carried = {
        tensor: next(iter(axes.items()))
        for tensor, axes in base.channels.axes.items()
        if base.graph.tensors[tensor].data is None and any(prunable[labels].any() for labels in axes.values())
    }
    found = set()
    for operator in base.graph.operators:
        sources = [tensor for tensor in operator.inputs if tensor in carried and not _is_widened(base, tensor)]
        if sources:
            found |= {operator.kind, *_uses(base, operator, sources, carried)}
    return found


def _is_widened(base, tensor):
    """Whether this is a constant that a DEQUANTIZE gives its reader."""
    producer = base.graph.producer.get(tensor)
    return producer is not None and base.graph.tensors[producer.inputs[0]].is_constant


def _uses(base, operator, sources, carried):
    kind, graph = operator.kind, base.graph
    source, target = sources[0], operator.outputs[0]
    axis, labels = carried[source]
    before, after = graph.tensors[source].shape, graph.tensors[target].shape
    if kind in {"ADD", "MUL"} and len(set(sources)) == 2:
        shapes = {graph.tensors[tensor].shape for tensor in sources}
        yield "residual ADD" if kind == "ADD" else "MUL by a gate" if len(shapes) == 2 else "MUL of maps"
    if kind in {"CONCATENATION", "STRIDED_SLICE", "SLICE", "PAD", "SPLIT", "SPLIT_V"} and after[axis] != before[axis]:
        yield f"{kind} of channels"
    if kind == "STRIDED_SLICE" and after[axis] == before[axis]:
        yield f"{kind} of pixels"
    if kind == "RESHAPE" and len(before) != len(after):
        yield "flatten" if len(after) == 2 else "unflatten" if len(before) == 2 else "reshape"
    weights = graph.tensors[operator.inputs[1]] if len(operator.inputs) > 1 else None
    if kind == "CONV_2D" and weights.shape[-1] < len(labels):
        yield "grouped CONV_2D"
    if kind == "DEPTHWISE_CONV_2D" and weights.shape[-1] > len(labels):
        yield "DEPTHWISE_CONV_2D with a multiplier"
    if kind in {"CONV_2D", "FULLY_CONNECTED", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV"}:
        stored = graph.producer[weights.index].inputs[0] if weights.index in graph.producer else weights.index
        yield f"{graph.tensors[source].dtype} activations, {graph.tensors[stored].dtype} weights"
    if kind == "FULLY_CONNECTED" and graph.producer[source].kind == "FULLY_CONNECTED":
        yield "dense chain"
