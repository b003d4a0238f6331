"""The paper's pruning variants: for each layer, which units to try to do without, most first.

A variant is two things: an order of a layer's units for a user's classes, and a schedule that says how far along that
order to try. The search (`search.py`) is the same for all; a layer is a channel group, and a group of several tensors
has the largest of their firing rates.

- B, basic (CAP'NN, Algorithm 1): the units that are idle for each of the user's classes, found offline for each class
  alone (`basic.py`).
- W, weighted (CAP'NN, Algorithm 2): a unit goes when its firing rate, weighted by usage, is at most T; T falls from
  0.4 in steps of 0.025 to 0.
- M, miseffectual (CAP'NN, section III.C): W, with the firing rate of units that work for a wrong class set to 0 in
  the last hidden layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final, Literal, Protocol, TypeAlias
from weakref import WeakKeyDictionary

import numpy as np

from cloud_pruner.basic import basic_table
from cloud_pruner.groups import WEIGHT_LAYERS
from edge_runtime.flatmodel import real_values

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from cloud_pruner.profile import LayerProfile, Profile
    from edge_runtime.flatmodel import BaseModel, ChannelGroup, Consumer, Graph

__all__ = [
    "MISEFFECTUAL_RULES",
    "Basic",
    "Candidate",
    "Miseffectual",
    "MiseffectualRule",
    "Usage",
    "Variant",
    "Weighted",
    "by_share",
    "by_threshold",
    "confusing_classes",
    "effective_firing_rates",
    "miseffectual_units",
    "sum_by_unit",
]

MiseffectualRule: TypeAlias = Literal["any", "majority", "all", "activation"]
MISEFFECTUAL_RULES: Final[tuple[MiseffectualRule, ...]] = ("any", "majority", "all", "activation")


@dataclass(frozen=True, slots=True, eq=False)
class Usage:
    """A user's classes: `labels` `(k,) int64`, ascending, and `weights` `(k,) float64` that sum to 1."""

    labels: NDArray[np.int64]
    weights: NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A cut of one layer to try.

    `figure` is its T or q, `kept` the units that stay (`(kept,) int64`, ascending, never empty).
    """

    figure: float
    kept: NDArray[np.int64]


class Variant(Protocol):
    """What the search needs to know of a variant."""

    @property
    def name(self) -> str:
        """A short name that tells it from the others."""

    def candidates(self, profile: Profile, layer: LayerProfile, usage: Usage) -> Iterator[Candidate]:
        """Yield the cuts of `layer` to try, the most daring first.

        Each differs from the one before, and all prune something and keep something.
        """


@dataclass(frozen=True, slots=True)
class Weighted:
    """W: threshold on the usage-weighted firing rate.

    Attributes
    ----------
    start, step
        First threshold and decrement (CAP'NN, section V: 0.4 and 0.025).
    """

    name: ClassVar[str] = "W"
    start: float = 0.4
    step: float = 0.025

    def candidates(self, profile: Profile, layer: LayerProfile, usage: Usage) -> Iterator[Candidate]:  # noqa: ARG002
        """Yield a cut for each threshold."""
        return by_threshold(effective_firing_rates(layer, usage), self.start, self.step)


@dataclass(frozen=True, slots=True)
class Miseffectual:
    """M: W where units of the last hidden layer count as idle for the classes that they work against.

    The last hidden layer is every channel group that the output layer reads; W's rates stand in all others.

    Attributes
    ----------
    rule
        When a unit works against a class (`miseffectual_units`).
    confusing
        How many of the classes that a class is mistaken for are looked at (`confusing_classes`).
    start, step
        First threshold and decrement, as W's.
    """

    rule: MiseffectualRule = "any"
    confusing: int = 5
    start: float = 0.4
    step: float = 0.025

    @property
    def name(self) -> str:
        """M, followed by the rule where it is not the paper's."""
        return "M" if self.rule == "any" else f"M-{self.rule}"

    def candidates(self, profile: Profile, layer: LayerProfile, usage: Usage) -> Iterator[Candidate]:
        """Yield a cut for each threshold."""
        idle = miseffectual_units(profile, layer, self.rule, self.confusing)[:, usage.labels]
        rates = np.where(idle, 0.0, layer.firing_rates[:, usage.labels].astype(np.float64)) @ usage.weights
        return by_threshold(rates, self.start, self.step)


@dataclass(frozen=True, slots=True)
class Basic:
    """B: one cut a layer, the units that may go for every class of the user (`basic.BasicTable`).

    The paper takes this intersection unmeasured, since a part of a safe set were safe. That need not be so: a search
    that takes the cut only within epsilon differs from the paper exactly where that claim fails, and then leaves the
    layer whole.

    Attributes
    ----------
    epsilon
        Top-1 accuracy that each class may lose by its own set: give it the request's.
    start, step
        First threshold and decrement, as W's.
    """

    name: ClassVar[str] = "B"
    epsilon: float = 0.03
    start: float = 0.4
    step: float = 0.025

    def candidates(self, profile: Profile, layer: LayerProfile, usage: Usage) -> Iterator[Candidate]:
        """Yield the one cut there is. The first call for a profile makes its table, which takes a while."""
        table = basic_table(profile, self.epsilon, self.start, self.step)
        number = [other.group for other in profile.layers].index(layer.group)
        kept: NDArray[np.bool_] = ~np.all(table.pruned[number][:, usage.labels], axis=1)
        return _distinct([(table.thresholds[number], kept)], layer.units)


def effective_firing_rates(layer: LayerProfile, usage: Usage) -> NDArray[np.float64]:
    """Return `sum_k w_k F(n, k)`, `(units,)` (CAP'NN, section III.B)."""
    rates: NDArray[np.float64] = layer.firing_rates[:, usage.labels].astype(np.float64) @ usage.weights
    return rates


def by_threshold(rates: NDArray[np.float64], start: float, step: float) -> Iterator[Candidate]:
    """Yield cuts without the units whose rate `(units,)` is at most T, for T from `start` down by `step` to 0."""
    # Counted in whole steps: repeated subtraction would miss 0 by a rounding error.
    thresholds = (step * number for number in range(round(start / step), -1, -1))
    return _distinct(((threshold, rates > threshold) for threshold in thresholds), len(rates))


def by_share(order: NDArray[np.integer], start: float, step: float) -> Iterator[Candidate]:
    """Yield cuts without the first share q of the units in `order` `(units,)`, for q from `start` down by `step`."""
    units = len(order)

    def masks() -> Iterator[tuple[float, NDArray[np.bool_]]]:
        for number in range(round(start / step), 0, -1):
            kept = np.ones(units, dtype=bool)
            kept[order[: int(step * number * units + 1e-9)]] = False
            yield step * number, kept

    return _distinct(masks(), units)


def confusing_classes(confusion: NDArray[np.int64], label: int, count: int) -> NDArray[np.int64]:
    """Return the up to `count` classes that images of class `label` are most often mistaken for, most often first.

    Equal numbers of mistakes: the lower label first. A class that they were never taken for confuses nobody: with few
    images there are fewer than `count` (CAP'NN, section III.C, step 1, has 5 of 1000 classes and does not say).
    """
    mistaken = np.array(confusion[label], dtype=np.int64)
    mistaken[label] = 0
    order = np.argsort(-mistaken, kind="stable")[:count]
    return order[mistaken[order] > 0]


def miseffectual_units(profile: Profile, layer: LayerProfile, rule: MiseffectualRule, count: int) -> NDArray[np.bool_]:
    """Return which units work against which classes, `(units, classes) bool` (CAP'NN, section III.C, step 2).

    Unit n contributes w_nj to output j: the weight between them, summed over positions where a map is flattened or a
    kernel has several taps. It works against class c by rule

    - `any`, when w_nj > w_nc for at least one of the confusing classes j of c (the paper's "one or more");
    - `majority`, for more than half of them; `all`, for all of them, of which there must be one (ours);
    - `activation`, when `w_nj * a_nj > w_nc * a_nc` for at least one, a_nj being n's mean activation on images of j: n
      does more for j where j is shown than for c where c is (ours). With a_nc on both sides it would be `any`, since
      activations after a ReLU are not negative.

    False throughout in a layer that the output layer does not read. Worked out once for each profile.
    """
    of_profile = _MISEFFECTUAL.setdefault(profile, {})
    key = (layer.group, rule, count)
    if key not in of_profile:
        of_profile[key] = _find_miseffectual(profile, layer, rule, count)
    return of_profile[key]


_MISEFFECTUAL: Final[WeakKeyDictionary[Profile, dict[tuple[int, str, int], NDArray[np.bool_]]]] = WeakKeyDictionary()


def _find_miseffectual(profile: Profile, layer: LayerProfile, rule: MiseffectualRule, count: int) -> NDArray[np.bool_]:
    classes = len(profile.classes)
    found = np.zeros((layer.units, classes), dtype=bool)
    contributions = _contributions(profile.base, layer.group, classes)
    if contributions is None:
        return found
    if rule == "activation":
        contributions *= layer.mean_activations
    for label in range(classes):
        confusing = confusing_classes(profile.confusion, label, count)
        greater = (contributions[:, confusing] > contributions[:, [label]]).sum(axis=1)
        if rule == "majority":
            found[:, label] = 2 * greater > len(confusing)
        elif rule == "all":
            found[:, label] = (greater == len(confusing)) & (greater > 0)
        else:
            found[:, label] = greater > 0
    return found


def _contributions(base: BaseModel, number: int, classes: int) -> NDArray[np.float64] | None:
    """Return w_nj, `(units, classes)`; None where the output layer does not read the group."""
    group, layers = base.channels.groups[number], _output_layers(base.graph)
    read = [
        sum_by_unit(values.reshape(classes, -1, values.shape[-1]).sum(axis=1), base, group, consumer)
        for consumer in group.consumers
        if consumer.operator in layers and len(values := real_values(base.graph.tensors[consumer.weight])) == classes
    ]
    return np.sum(read, axis=0).T if read else None


def _output_layers(graph: Graph) -> set[int]:
    """Return the operators with weights that compute the graph's output, but for what has none (softmax, mean)."""
    found, seen, pending = set(), set(), [graph.outputs[0]]
    while pending:
        tensor = pending.pop()
        producer = graph.producer.get(tensor)
        if producer is None or tensor in seen:
            continue
        seen.add(tensor)
        if producer.kind in WEIGHT_LAYERS:
            found.add(producer.index)
        else:
            pending += producer.inputs
    return found


def sum_by_unit(
    values: NDArray[np.float64], base: BaseModel, group: ChannelGroup, consumer: Consumer
) -> NDArray[np.float64]:
    """Add up `values` `(rows, inputs)`, one column for each input of a layer, to `(rows, units)` of a group it reads.

    A unit has several inputs where a map is flattened.
    """
    weight = consumer.weight
    units = base.channels.axes[weight][len(base.graph.tensors[weight].shape) - 1] - group.first
    own = (units >= 0) & (units < group.units)
    sums = np.zeros((group.units, len(values)))
    np.add.at(sums, units[own], values[:, own].T)
    return sums.T


def _distinct(masks: Iterable[tuple[float, NDArray[np.bool_]]], units: int) -> Iterator[Candidate]:
    """Drop cuts that keep what the one before kept, or nothing (a layer cannot be empty), or everything."""
    before = 0
    for figure, mask in masks:
        count = int(mask.sum())
        # Along a schedule the kept sets only grow, so equal numbers mean equal sets.
        if count in (0, before, units):
            continue
        before = count
        yield Candidate(figure, np.flatnonzero(mask))
