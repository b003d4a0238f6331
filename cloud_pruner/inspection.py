"""What of a model can be pruned, and what stands in the way: its layers, its channel groups, and what is around them.

All of it follows from the file alone; nothing is run.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections import Counter, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edge_runtime.flatmodel.associated_files import packed_files
from edge_runtime.flatmodel.channel_rules import RULES
from edge_runtime.flatmodel.flatbuffer import Reader
from edge_runtime.flatmodel.layout import LAYOUT_ENTRY
from edge_runtime.flatmodel.schema import ModelField, SignatureField
from hwmodel import read_workload

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edge_runtime.flatmodel import BaseModel, ChannelGroup, Channels, Graph, Operator, Tensor

__all__ = ["GroupInspection", "LayerInspection", "ModelInspection", "TensorInspection", "inspect_model"]


@dataclass(frozen=True, slots=True)
class LayerInspection:
    """An operator with weights.

    Attributes
    ----------
    operator
        Its index in the graph.
    kind
        Its TFLite name ("CONV_2D").
    name
        The name of its output tensor.
    weights, dtype
        Shape and type of its weights ("int8 per channel": with a scale for each channel); of its largest constant,
        where it has several beside the bias.
    output
        Shape of its output.
    groups
        Numbers of the channel groups whose units its output channels are; empty where they are no units.
    units, prunable_units
        How many units they are, and how many of these may be pruned.
    parameters
        Elements of its weights and biases.
    macs
        Multiply-accumulate operations of one run; None where the hardware model does not know the operator.
    reason
        Why its output channels are no units; empty where they are.
    """

    operator: int
    kind: str
    name: str
    weights: tuple[int, ...]
    dtype: str
    output: tuple[int, ...]
    groups: tuple[int, ...]
    units: int
    prunable_units: int
    parameters: int
    macs: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class GroupInspection:
    """Channels that are kept or pruned together.

    Attributes
    ----------
    layers
        Operators with weights whose output channels are units of the group: those that compute them, and those that
        hand them on, as a depthwise convolution does.
    readers
        Operators that multiply them with weights.
    parameters
        Weights and biases that would go with all of its units: rows and biases of `layers`, columns of `readers`.
    prunable, reasons
        Whether its units may be pruned; if not, why, in words.
    """

    number: int
    units: int
    layers: tuple[int, ...]
    readers: tuple[int, ...]
    parameters: int
    prunable: bool
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TensorInspection:
    """An input or output of the model; `dtype` is numpy's name, or "other"."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ModelInspection:
    """What of a model can be pruned, and what stands in the way.

    Attributes
    ----------
    layers
        In the order of computation.
    groups
        By number.
    parameters
        Weights and biases of the whole model (`Graph.parameters`).
    prunable_share
        Of the parameters of all layers, the share that is in layers with prunable units (0 to 1).
    macs
        Multiply-accumulate operations of one run; a lower bound where `not_costed` names operators.
    not_costed
        Kinds of operators that the hardware model does not know -> how many there are.
    not_understood
        Kinds of operators that slicing does not know -> how many there are; channels that touch them stay.
    inputs, outputs
        The model's own.
    metadata, signatures, packed_files
        Names of the file's metadata entries (but for our own), of its signatures, and of the files packed behind it.
    """

    layers: tuple[LayerInspection, ...]
    groups: tuple[GroupInspection, ...]
    parameters: int
    prunable_share: float
    macs: int
    not_costed: dict[str, int]
    not_understood: dict[str, int]
    inputs: tuple[TensorInspection, ...]
    outputs: tuple[TensorInspection, ...]
    metadata: tuple[str, ...]
    signatures: tuple[str, ...]
    packed_files: tuple[str, ...]


def inspect_model(base: BaseModel) -> ModelInspection:
    """Return what of `base` can be pruned and what stands in the way.

    Raises
    ------
    edge_runtime.errors.ModelFileError
        An operator has operands that it cannot have, or the file's signatures are damaged.
    """
    graph, channels = base.graph, base.channels
    workload = read_workload(graph)
    signatures = Reader(base.content).root().tables(ModelField.SIGNATURE_DEFS)
    macs = _macs_by_operator(graph, deque((layer.name, layer.operator, layer.macs) for layer in workload.layers))
    layers = tuple(
        _layer(graph, channels, operator, constants, macs.get(operator.index))
        for operator in graph.operators
        if (constants := _parameters_of(graph, operator)) and sum(constant.size for constant in constants) > 1
    )
    own = sum(layer.parameters for layer in layers)
    return ModelInspection(
        layers=layers,
        groups=_groups(graph, channels, layers),
        parameters=graph.parameters,
        prunable_share=sum(layer.parameters for layer in layers if layer.prunable_units) / own if own else 0.0,
        macs=sum(macs.values()),
        not_costed=dict(Counter(work.operator for work in workload.uncosted)),
        not_understood=dict(Counter(operator.kind for operator in graph.operators if operator.kind not in RULES)),
        inputs=tuple(_tensor(graph.tensors[index]) for index in graph.inputs),
        outputs=tuple(_tensor(graph.tensors[index]) for index in graph.outputs),
        metadata=tuple(name for name in graph.metadata if name != LAYOUT_ENTRY),
        signatures=tuple(table.text(SignatureField.KEY) for table in signatures),
        packed_files=_packed_names(base.content),
    )


def _macs_by_operator(graph: Graph, layers: deque[tuple[str, str, int]]) -> dict[int, int]:
    """Return operator index -> MACs; `layers` are the workload's, which come in the graph's order, but not all."""
    macs = {}
    for operator in graph.operators:
        if layers and layers[0][:2] == (graph.tensors[operator.outputs[0]].name, operator.kind):
            macs[operator.index] = layers.popleft()[2]
    return macs


def _parameters_of(graph: Graph, operator: Operator) -> list[Tensor]:
    """Return the constants that an operator computes with: floats and quantised ones; others are shapes and axes."""
    constants = []
    for index in operator.inputs:
        tensor = _stored(graph, index)
        if tensor is not None and (_is_float(tensor) or tensor.quantization is not None):
            constants.append(tensor)
    # A DEQUANTIZE of a constant belongs to the layer that reads it.
    return [] if operator.kind in {"DEQUANTIZE", "DENSIFY"} else constants


def _stored(graph: Graph, index: int) -> Tensor | None:
    """Return the constant that a tensor is, or is unpacked from; None for an activation."""
    producer = graph.producer.get(index)
    while producer is not None and producer.kind in {"DEQUANTIZE", "DENSIFY"}:
        index = producer.input(0)
        producer = graph.producer.get(index)
    return graph.tensors[index] if index >= 0 and graph.tensors[index].is_constant else None


def _is_float(tensor: Tensor) -> bool:
    return tensor.dtype is not None and tensor.dtype.kind == "f"


def _layer(
    graph: Graph, channels: Channels, operator: Operator, constants: list[Tensor], macs: int | None
) -> LayerInspection:
    weights = max(constants, key=lambda constant: constant.size)
    output = operator.outputs[0]
    units = _units_on(channels, output)
    numbers = _group_numbers(channels, units)
    may_go = np.isin(numbers, channels.prunable)
    return LayerInspection(
        operator=operator.index,
        kind=operator.kind,
        name=graph.tensors[output].name,
        weights=weights.shape,
        dtype=_dtype(weights),
        output=graph.tensors[output].shape,
        groups=tuple(np.unique(numbers).tolist()),
        units=len(units),
        prunable_units=int(may_go.sum()),
        parameters=sum(constant.size for constant in constants),
        macs=macs,
        reason="" if len(units) else channels.barriers.get(operator.index, "hands on channels that stay"),
    )


def _units_on(channels: Channels, tensor: int) -> NDArray[np.int32]:
    """Return the units that a tensor carries, each once."""
    labels = [np.zeros(0, np.int32), *channels.axes.get(tensor, {}).values()]
    units: NDArray[np.int32] = np.unique(np.concatenate(labels))
    return units[units >= 0]


def _group_numbers(channels: Channels, units: NDArray[np.int32]) -> NDArray[np.int64]:
    """Return the number of the group of each unit: groups follow each other, each with its units in one piece."""
    numbers: NDArray[np.int64] = np.searchsorted([group.first for group in channels.groups], units, side="right") - 1
    return numbers


def _groups(graph: Graph, channels: Channels, layers: tuple[LayerInspection, ...]) -> tuple[GroupInspection, ...]:
    parameters: Counter[int] = Counter()
    for index, axes in channels.axes.items():
        tensor = graph.tensors[index]
        if not tensor.is_constant:
            continue
        for number in np.unique(_group_numbers(channels, _units_on(channels, index))).tolist():
            group = channels.groups[number]
            stay = list(tensor.shape)
            for axis, labels in axes.items():
                stay[axis] -= int(((labels >= group.first) & (labels < group.first + group.units)).sum())
            parameters[number] += tensor.size - math.prod(stay)
    return tuple(
        GroupInspection(
            number=number,
            units=group.units,
            layers=tuple(layer.operator for layer in layers if number in layer.groups),
            readers=tuple(dict.fromkeys(consumer.operator for consumer in group.consumers)),
            parameters=parameters[number],
            prunable=group.prunable,
            reasons=() if group.prunable else _reasons(group),
        )
        for number, group in enumerate(channels.groups)
    )


def _reasons(group: ChannelGroup) -> tuple[str, ...]:
    if group.barriers:
        return tuple(group.barriers)
    return ("no layer reads it",) if not group.consumers else ("no tensor carries its channels alone",)


def _dtype(tensor: Tensor) -> str:
    name = "other" if tensor.dtype is None else tensor.dtype.name
    if tensor.quantization is None:
        return name
    return f"{name} per {'channel' if tensor.quantization.count > 1 else 'tensor'}"


def _tensor(tensor: Tensor) -> TensorInspection:
    return TensorInspection(tensor.name, "other" if tensor.dtype is None else tensor.dtype.name, tensor.shape)


def _packed_names(content: bytes | memoryview) -> tuple[str, ...]:
    packed = packed_files(content)
    if not packed:
        return ()
    with zipfile.ZipFile(io.BytesIO(packed)) as files:
        return tuple(files.namelist())
