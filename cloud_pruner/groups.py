"""What can be pruned of a base model: its channel groups, with where their units are measured and who reads them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from cloud_pruner.errors import ProfileError
from edge_runtime.flatmodel.channels import ELEMENTWISE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edge_runtime.flatmodel import BaseModel, ChannelGroup, Consumer

__all__ = ["WEIGHT_LAYERS", "PrunableGroup", "Reader", "prunable_groups"]

WEIGHT_LAYERS: Final = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")
"""Operators with weights that multiply."""


@dataclass(frozen=True, slots=True, eq=False)
class Reader:
    """A layer that multiplies a group's units, and can make up for pruned ones.

    Attributes
    ----------
    operator
        Its number among the operators.
    weight, tensor
        Tensor indices of its weights and of the activation that it reads.
    axis
        The activation's axis of channels.
    units
        `(n,) int64`: the group's units that it reads, ascending.
    places
        `(positions, n) int64`: their indices along `axis`; a flattened map has a unit at several.
    columns
        `(positions, n) int64`: their indices along the last axis of the weights.
    """

    operator: int
    weight: int
    tensor: int
    axis: int
    units: NDArray[np.int64]
    places: NDArray[np.int64]
    columns: NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class PrunableGroup:
    """A channel group that may be pruned.

    Attributes
    ----------
    name
        For people: kind and number, among the weight layers, of the layer that makes its units; "+ n" for n more.
    group
        Its number in `BaseModel.channels.groups`.
    tensor
        An activation that carries it, for `LayerCut.tensor`.
    units
        How many there are.
    members
        Activations whose values tell whether a unit fires: behind a non-linearity, or else as its layers write them.
    readers
        In order of computation.
    """

    name: str
    group: int
    tensor: int
    units: int
    members: tuple[int, ...]
    readers: tuple[Reader, ...]


def prunable_groups(base: BaseModel, depth: int | None) -> list[PrunableGroup]:
    """Return the groups all of whose units come from the last `depth` weight layers; None: from any.

    They are in the order in which they are first read.

    Raises
    ------
    ProfileError
        There are none; the message says what stands in the way.
    """
    graph, channels = base.graph, base.channels
    weighted = [operator.index for operator in graph.operators if operator.kind in WEIGHT_LAYERS]
    looked_at = set(weighted if depth is None else weighted[-depth:])
    found = []
    for number in channels.prunable:
        group = channels.groups[number]
        if not group.producers or not looked_at.issuperset(group.producers):
            continue
        first = graph.operators[group.producers[0]]
        more = f" + {len(group.producers) - 1}" if len(group.producers) > 1 else ""
        found.append(
            PrunableGroup(
                name=f"{first.kind.lower()}_{weighted.index(first.index) + 1}{more}",
                group=number,
                tensor=group.tensors[0],
                units=group.units,
                members=_members(base, group),
                readers=_readers(base, group),
            )
        )
    if not found:
        reasons = sorted(
            {barrier for group in channels.groups for barrier in group.barriers} - {"network input", "network output"}
        )
        detail = f": {'; '.join(reasons)}" if reasons else ""
        raise ProfileError(f"nothing can be pruned among the last {depth or len(weighted)} weight layers{detail}")
    channels_of = channels.groups
    return sorted(found, key=lambda group: min(consumer.operator for consumer in channels_of[group.group].consumers))


def _members(base: BaseModel, group: ChannelGroup) -> tuple[int, ...]:
    producer = base.graph.producer
    behind_activation = tuple(
        tensor
        for tensor in group.tensors
        if tensor in producer
        and (producer[tensor].kind in ELEMENTWISE or producer[tensor].options.get("activation", 0) != 0)
    )
    written = tuple(base.graph.operators[index].outputs[0] for index in group.producers)
    return behind_activation or tuple(tensor for tensor in written if tensor in group.tensors) or (group.tensors[0],)


def _readers(base: BaseModel, group: ChannelGroup) -> tuple[Reader, ...]:
    operators = base.graph.operators
    # A transposed convolution takes up no fold (`BaseModel.emit`).
    consumers = [consumer for consumer in group.consumers if operators[consumer.operator].kind != "TRANSPOSE_CONV"]
    readers = (_reader(base, group, consumer) for consumer in sorted(consumers, key=lambda c: c.operator))
    return tuple(reader for reader in readers if reader is not None)


def _reader(base: BaseModel, group: ChannelGroup, consumer: Consumer) -> Reader | None:
    """Return the reader; None where no fold fits: it reads units unequally often, or others than its weights say."""
    ((axis, along),) = base.channels.axes[consumer.tensor].items()
    weights = base.channels.axes[consumer.weight]
    units, places = group.places(along)
    its_units, its_columns = group.places(weights.get(max(weights), along))
    if places is None or its_columns is None or not np.array_equal(units, its_units):
        return None
    return Reader(consumer.operator, consumer.weight, consumer.tensor, axis, units, places, its_columns)
