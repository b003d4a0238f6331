"""Which channels of a graph must be kept or pruned together, and where each of them shows.

A *channel group* is a set of units that are produced together: the output channels of a layer, with those of the layers
that they are added to or multiplied with (a residual stream is one group). A unit is pruned everywhere or nowhere. The
analysis walks the operators in order (`channel_walk`, with a rule for each kind of operator in `channel_rules`) and
says for every axis that carries channels, of activations and of constants alike, which unit each index is. Slicing then
needs to know nothing of operators: it gathers along those axes.

An operator that is not understood is a barrier: the channels that reach it, and those that leave it, stay. Nothing is
sliced by guess.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from edge_runtime.errors import PlanError
from edge_runtime.flatmodel.channel_rules import ELEMENTWISE, RULES
from edge_runtime.flatmodel.channel_walk import STAYS, Barrier, ChannelWalk, Consumer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from edge_runtime.flatmodel.channel_walk import Labels
    from edge_runtime.flatmodel.graph import Graph

__all__ = ["ELEMENTWISE", "STAYS", "ChannelGroup", "Channels", "Consumer", "find_channels"]


@dataclass(slots=True)
class ChannelGroup:
    """Channels that are kept or pruned together.

    Attributes
    ----------
    first, units
        Its units are number `first` to `first + units - 1` of the graph's units.
    tensors
        The activations whose channels are units of this group alone, in the order in which they are computed.
    producers
        Operators whose own output channels they are.
    consumers
        Layers that multiply them.
    barriers
        Why none may be pruned, in words; empty where any may.
    """

    first: int
    units: int
    tensors: list[int] = field(default_factory=list)
    producers: list[int] = field(default_factory=list)
    consumers: list[Consumer] = field(default_factory=list)
    barriers: list[str] = field(default_factory=list)

    @property
    def prunable(self) -> bool:
        """Whether units of the group may be pruned: nothing speaks against it, and there is a layer that reads them."""
        return not self.barriers and bool(self.consumers) and bool(self.tensors)

    def places(self, labels: Labels) -> tuple[NDArray[np.int64], NDArray[np.int64] | None]:
        """Return which units of the group, ascending and numbered within it, are among `labels`, and where.

        Where: `(positions, units)` indices into `labels`, one row for each position of a flattened map; None where some
        units are there more often than others.
        """
        indices = np.flatnonzero((labels >= self.first) & (labels < self.first + self.units))
        indices = indices[np.argsort(labels[indices], kind="stable")]
        units, repeats = np.unique(labels[indices].astype(np.int64) - self.first, return_counts=True)
        if len(set(repeats.tolist())) != 1:
            return units, None
        return units, indices.reshape(len(units), -1).T


@dataclass(frozen=True)
class Channels:
    """The channel groups of a graph.

    Attributes
    ----------
    groups
        In the order in which their first tensor is computed.
    units
        Units of all groups.
    axes
        Tensor index -> axis -> `(length,) int32`: the unit of each index, or `STAYS`; of activations and constants.
    counts
        Tensor index of a shape, or of amounts, begins and ends -> index of an element -> `(n,) int32`: the element is
        how many of these units are kept.
    barriers
        Operator index -> why it ended the channels that reach it, and those that leave it never were units.
    """

    groups: tuple[ChannelGroup, ...]
    units: int
    axes: Mapping[int, Mapping[int, Labels]]
    counts: Mapping[int, Mapping[int, Labels]]
    barriers: Mapping[int, str]

    def group_of(self, tensor: int) -> int:
        """Return the index of the group whose channels activation `tensor` carries.

        Raises
        ------
        PlanError
            The tensor carries no channels of a group, or those of several.
        """
        for number, group in enumerate(self.groups):
            if tensor in group.tensors:
                return number
        raise PlanError(f"tensor {tensor} carries no channels that could be pruned, or those of several groups")

    @property
    def prunable(self) -> list[int]:
        """Indices of the groups that may be pruned, in order of computation."""
        return [number for number, group in enumerate(self.groups) if group.prunable]

    def units_on(self, tensor: int, axis: int, group: ChannelGroup) -> NDArray[np.int64]:
        """Return the units of `group`, `(n,)`, numbered within it and ascending, that an axis of `tensor` carries."""
        units = np.unique(self.axes[tensor][axis]).astype(np.int64) - group.first
        carried: NDArray[np.int64] = units[(units >= 0) & (units < group.units)]
        return carried


def find_channels(graph: Graph) -> Channels:
    """Find the channel groups of `graph`. The channels of its input (colours) stay.

    Raises
    ------
    ModelFileError
        The shapes in the file contradict each other.
    """
    walk = ChannelWalk(graph)
    barriers: dict[int, str] = {}
    for operator in graph.operators:
        rule = RULES.get(operator.kind)
        try:
            if rule is None:
                raise Barrier("is not understood")  # noqa: TRY301 - treated like what rules raise
            rule(walk, operator)
        except Barrier as barrier:
            walk.bar_operator(operator, str(barrier))
            barriers[operator.index] = str(barrier)
    for tensor in graph.outputs:
        walk.bar(tensor, "network output")
    return _assemble(walk, barriers)


def _assemble(walk: ChannelWalk, barriers: Mapping[int, str]) -> Channels:
    numbering = _Numbering(walk)
    for tensor, carried in walk.carried.items():
        owners = numbering.groups_of(carried.labels)
        if len(owners) == 1 and (carried.labels >= 0).all():
            owners[0].tensors.append(tensor)
    for labels, consumer in walk.consumers:
        for group in numbering.groups_of(labels):
            group.consumers.append(consumer)
    for labels, reason in (*walk.bars, (numbering.with_what_stays, "is combined with channels that stay")):
        for group in numbering.groups_of(labels):
            if reason not in group.barriers:
                group.barriers.append(reason)
    axes = {tensor: {carried.axis: carried.labels} for tensor, carried in walk.carried.items()} | walk.sliced
    return Channels(
        groups=tuple(numbering.groups.values()),
        units=sum(group.units for group in numbering.groups.values()),
        axes=numbering.renumbered(axes),
        counts=numbering.renumbered(walk.counts),
        barriers=barriers,
    )


class _Numbering:
    """The final numbers of units: coupled ones share one, and those of a group follow each other."""

    def __init__(self, walk: ChannelWalk) -> None:
        empty = np.zeros(0, np.int32)
        first = np.concatenate([empty, *(pair[0] for pair in walk.couplings)])
        second = np.concatenate([empty, *(pair[1] for pair in walk.couplings)])
        both = (first >= 0) & (second >= 0)
        self.with_what_stays = np.concatenate([first[~both], second[~both]])
        first, second = first[both], second[both]
        representative = _components(walk.units, first, second)
        source_of = np.repeat(np.arange(len(walk.sources)), [source.count for source in walk.sources])
        group_of_source = _components(len(walk.sources), source_of[first], source_of[second])
        self._group_of_unit = group_of_source[source_of]
        self._final = np.full(walk.units + 1, STAYS, dtype=np.int32)  # the last one answers for STAYS
        self._renumbered: dict[int, Labels] = {}
        self.groups: dict[int, ChannelGroup] = {}
        numbered = 0
        for number in dict.fromkeys(self._group_of_unit.tolist()):
            members = np.flatnonzero((self._group_of_unit == number) & (representative == np.arange(walk.units)))
            self._final[members] = np.arange(numbered, numbered + len(members))
            self.groups[number] = ChannelGroup(first=numbered, units=len(members))
            numbered += len(members)
        self._final[:-1] = self._final[representative]
        for source, number in zip(walk.sources, group_of_source.tolist(), strict=True):
            if source.producer is not None and source.count:
                self.groups[number].producers.append(source.producer)

    def groups_of(self, labels: Labels) -> list[ChannelGroup]:
        """Return the groups that have units among `labels`."""
        return [self.groups[number] for number in np.unique(self._group_of_unit[labels[labels >= 0]]).tolist()]

    def renumbered(self, arrays: Mapping[int, Mapping[int, Labels]]) -> dict[int, dict[int, Labels]]:
        """Return the same with final numbers."""
        return {
            tensor: {place: self._renumber(labels) for place, labels in of_tensor.items()}
            for tensor, of_tensor in arrays.items()
        }

    def _renumber(self, labels: Labels) -> Labels:
        # Tensors that share one array of labels go on sharing it: slicing works it out once.
        if id(labels) not in self._renumbered:
            self._renumbered[id(labels)] = self._final[labels]
        return self._renumbered[id(labels)]


def _components(count: int, first: NDArray[np.integer], second: NDArray[np.integer]) -> NDArray[np.int64]:
    """Return for each of `count` nodes the smallest node that edges `first[i] - second[i]` connect it with."""
    smallest = np.arange(count)
    while True:
        low = np.minimum(smallest[first], smallest[second])
        before = smallest.copy()
        np.minimum.at(smallest, before[first], low)
        np.minimum.at(smallest, before[second], low)
        smallest = smallest[smallest]
        if np.array_equal(smallest, before):
            return smallest
