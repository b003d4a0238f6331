"""A path of ever more daring cuts: the block of units that costs least per gain goes next, wherever in the network.

Each group brings its units in blocks, in its own order (`elimination`), with the error that is made by the end of each
block. What a block gains depends on what other groups have lost already: a weight is gone when its input is or its
output is. So gains are worked out anew as the path is built.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import numpy as np

from hwmodel import estimate

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from cloud_pruner.elimination import Elimination
    from cloud_pruner.groups import PrunableGroup
    from edge_runtime.flatmodel import BaseModel, LayerCut

__all__ = ["OBJECTIVES", "CutPath", "Objective", "WeightCosts", "allocate"]

Objective: TypeAlias = Literal["size", "macs", "energy"]
OBJECTIVES: Final[tuple[Objective, ...]] = ("size", "macs", "energy")

# So many blocks further on a group looks for the best gain per error.
_LOOK_AHEAD: Final = 4


@dataclass(frozen=True, slots=True, eq=False)
class CutPath:
    """Cuts 0 (nothing pruned) to J, each with the units of the one before and some more.

    Attributes
    ----------
    groups
        Group number -> how many units it has.
    blocks
        Group number and units, `(n,) int64`, that go at each step.
    costs
        `(J + 1,) float64`: parameters, MACs or energy at each cut, as a share of the base's.
    """

    groups: Mapping[int, int]
    blocks: tuple[tuple[int, NDArray[np.int64]], ...]
    costs: NDArray[np.float64]

    def kept(self, cut: int) -> dict[int, NDArray[np.int64]]:
        """Return group number -> units that cut number `cut` keeps, ascending."""
        stays = {number: np.ones(units, dtype=bool) for number, units in self.groups.items()}
        for number, gone in self.blocks[:cut]:
            stays[number][gone] = False
        return {number: np.flatnonzero(mask) for number, mask in stays.items()}


class WeightCosts:
    """What the constants of a base cost that pruning can make smaller; the rest is left out.

    Parameters
    ----------
    objective
        "size": parameters. "macs": multiply-accumulates of the layer. "energy": modelled energy (`hwmodel`, preset
        "dac20") of the layer. A layer's figure is taken to shrink like its weights do.
    """

    def __init__(self, base: BaseModel, objective: Objective) -> None:
        channels, graph = base.channels, base.graph
        self._channels = channels
        figures = _figures(base, objective)
        self._costs: list[tuple[float, dict[int, NDArray[np.int32]]]] = []
        self._of_group: dict[int, list[int]] = {number: [] for number in range(len(channels.groups))}
        group_of_unit = np.repeat(np.arange(len(channels.groups)), [group.units for group in channels.groups])
        for index, axes in channels.axes.items():
            tensor = graph.tensors[index]
            cost = figures.get(index, 0.0)
            if tensor.data is None or cost <= 0.0:
                continue
            labels = {axis: along for axis, along in axes.items() if (along >= 0).any()}
            for along in labels.values():
                for number in np.unique(group_of_unit[along[along >= 0]]).tolist():
                    if len(self._costs) not in self._of_group[number]:
                        self._of_group[number].append(len(self._costs))
            self._costs.append((cost, labels))
        self.fixed = sum(figures.values()) - sum(cost for cost, _ in self._costs)
        self.units = channels.units

    def total(self, stays: NDArray[np.bool_]) -> float:
        """Return the cost of everything; `stays` `(units + 1,)`, the last for channels that always stay."""
        return self.fixed + sum(self._cost(number, stays) for number in range(len(self._costs)))

    def relative(self, cuts: Sequence[LayerCut]) -> float:
        """Return the cost of the base as cut, relative to its own; what folds add is left out."""
        stays = np.ones(self.units + 1, dtype=bool)
        whole = self.total(stays)
        for cut in cuts:
            stays[self._channels.groups[self._channels.group_of(cut.tensor)].first + cut.pruned] = False
        return self.total(stays) / whole

    def of_group(self, group: int, stays: NDArray[np.bool_]) -> float | None:
        """Return the cost of the constants that a group has a part in; None where an axis would be empty."""
        costs = [self._cost(number, stays) for number in self._of_group[group]]
        return None if 0.0 in costs else sum(costs)

    def neighbours(self, group: int) -> set[int]:
        """Return the groups with which a group shares constants, itself among them."""
        mine = set(self._of_group[group])
        return {number for number, theirs in self._of_group.items() if mine.intersection(theirs)}

    def _cost(self, number: int, stays: NDArray[np.bool_]) -> float:
        cost, labels = self._costs[number]
        for along in labels.values():
            cost *= float(np.count_nonzero(stays[along])) / len(along)
        return cost


def allocate(
    base: BaseModel,
    groups: Sequence[PrunableGroup],
    eliminations: Mapping[int, Elimination],
    objective: Objective,
) -> CutPath:
    """Build the path.

    Parameters
    ----------
    eliminations
        Group number -> the order of its units, with errors that can be compared across groups; groups that are not in
        it stay whole.
    """
    costs = WeightCosts(base, objective)
    builder = _Builder(base, costs, eliminations)
    offers = {number: builder.offer(number) for number in eliminations}
    blocks: list[tuple[int, NDArray[np.int64]]] = []
    along = [costs.total(builder.stays)]
    while open_offers := [(offer.price, number) for number, offer in offers.items() if offer is not None]:
        _, number = min(open_offers)
        accepted = offers[number]
        assert accepted is not None
        builder.accept(number, accepted)
        blocks.append((number, accepted.units))
        along.append(along[-1] - accepted.gain)
        for neighbour in costs.neighbours(number) & set(offers):
            offers[neighbour] = builder.offer(neighbour)
    total = along[0]
    return CutPath({group.group: group.units for group in groups}, tuple(blocks), np.array(along) / total)


@dataclass(frozen=True, slots=True, eq=False)
class _Offer:
    """Units that a group would do without next, at which error per gain."""

    price: float
    units: NDArray[np.int64]
    gain: float
    blocks: int


class _Builder:
    """How far each group has come."""

    def __init__(self, base: BaseModel, costs: WeightCosts, eliminations: Mapping[int, Elimination]) -> None:
        self._first = {number: group.first for number, group in enumerate(base.channels.groups)}
        self._costs, self._eliminations = costs, eliminations
        self._done = dict.fromkeys(eliminations, 0)
        self.stays = np.ones(costs.units + 1, dtype=bool)

    def offer(self, number: int) -> _Offer | None:
        """Return the best next step of a group, or None where it cannot go on."""
        elimination, done = self._eliminations[number], self._done[number]
        before = self._costs.of_group(number, self.stays)
        assert before is not None
        gone = int(elimination.ends[done - 1]) if done else 0
        error = float(elimination.errors[done - 1]) if done else 0.0
        best: _Offer | None = None
        for blocks in range(done + 1, min(done + _LOOK_AHEAD, len(elimination.ends)) + 1):
            units = elimination.order[gone : int(elimination.ends[blocks - 1])]
            stays = self.stays.copy()
            stays[self._first[number] + units] = False
            after = self._costs.of_group(number, stays)
            if after is None:
                break
            gain = before - after
            more = float(elimination.errors[blocks - 1]) - error
            price = more / gain if gain > 0.0 else np.inf
            if best is None or price < best.price:
                best = _Offer(price, units, gain, blocks)
        return best

    def accept(self, number: int, offer: _Offer) -> None:
        """Take a step."""
        self.stays[self._first[number] + offer.units] = False
        self._done[number] = offer.blocks


def _figures(base: BaseModel, objective: Objective) -> dict[int, float]:
    """Return constant (tensor index) -> what it costs in the base."""
    graph = base.graph
    if objective == "size":
        # What `Graph.parameters` counts: no shapes, axes and the like.
        return {
            tensor.index: float(tensor.data.size)
            for tensor in graph.tensors
            if tensor.data is not None and (tensor.quantization is not None or tensor.data.dtype.kind == "f")
        }
    by_name = {graph.tensors[operator.outputs[0]].name: operator for operator in graph.operators}
    costs: dict[int, float] = {}
    for figures in estimate(graph).layers:
        operator = by_name.get(figures.layer.name)
        weights = -1 if operator is None else operator.input(1)
        constant = graph.constant_behind(weights) if weights >= 0 else None
        if constant is not None:
            costs[constant.index] = float(figures.layer.macs) if objective == "macs" else figures.energy.total
    return costs
