"""Which channels of a graph must be kept or pruned together, and where each of them shows.

A *channel group* is a set of units that share one kept set: the output channels of a layer and everything that only
hands them on (pooling, ReLU, flattening). The analysis walks the operators in order and gives every axis that carries
such channels, of activations and of constants alike, an `AxisUse`. Slicing then needs to know nothing of operators: it
gathers along those axes.

An operator that is not understood is a barrier: the channels that reach it, and those that leave it, stay. Nothing is
sliced by guess.
"""

from __future__ import annotations

import math
from collections.abc import Callable  # noqa: TC003 - the table of rules is annotated at run time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from edge_runtime.errors import PlanError

if TYPE_CHECKING:
    from edge_runtime.flatmodel.graph import Graph, Operator

__all__ = ["ELEMENTWISE", "AxisUse", "ChannelGroup", "Channels", "Consumer", "find_channels"]


@dataclass(frozen=True, slots=True)
class AxisUse:
    """An axis made of a group's channels, repeated.

    Its index is `position * units + channel` (1 position, but for a flattened map).
    """

    group: int
    positions: int


@dataclass(frozen=True, slots=True)
class Consumer:
    """A layer that multiplies a group's channels.

    Operator `operator` reads `tensor` and has `weight` and `bias` (tensor indices).
    """

    operator: int
    tensor: int
    weight: int
    bias: int


@dataclass(slots=True)
class ChannelGroup:
    """Channels that are kept or pruned together.

    Attributes
    ----------
    units
        How many there are.
    tensors
        The activations that carry them, in the order in which they are computed.
    producers
        Operators whose own output channels they are.
    consumers
        Layers that multiply them.
    barriers
        Why none may be pruned, in words; empty where any may.
    """

    units: int
    tensors: list[int] = field(default_factory=list)
    producers: list[int] = field(default_factory=list)
    consumers: list[Consumer] = field(default_factory=list)
    barriers: list[str] = field(default_factory=list)

    @property
    def prunable(self) -> bool:
        """Whether units of the group may be pruned: nothing speaks against it, and there is a layer that reads them."""
        return not self.barriers and bool(self.consumers)


@dataclass(frozen=True)
class Channels:
    """The channel groups of a graph.

    Attributes
    ----------
    groups
        In the order in which their first tensor is computed.
    axes
        Tensor index -> axis -> what that axis is made of; of activations and constants.
    shape_values
        Tensor index of a reshape's target shape -> which of its elements is such an axis.
    """

    groups: tuple[ChannelGroup, ...]
    axes: dict[int, dict[int, AxisUse]]
    shape_values: dict[int, dict[int, AxisUse]]

    def group_of(self, tensor: int) -> int:
        """Return the index of the group whose channels are the last axis of activation `tensor`.

        Raises
        ------
        PlanError
            The tensor carries no channels of a group.
        """
        for number, group in enumerate(self.groups):
            if tensor in group.tensors:
                return number
        raise PlanError(f"tensor {tensor} carries no channels that could be pruned")

    @property
    def prunable(self) -> list[int]:
        """Indices of the groups that may be pruned, in order of computation."""
        return [number for number, group in enumerate(self.groups) if group.prunable]


def find_channels(graph: Graph, *, inputs_are_cut: bool = False) -> Channels:
    """Find the channel groups of `graph`.

    `inputs_are_cut` says that the graph's inputs are boundary activations, whose channels may be pruned like any
    other; the channels of a whole model's input (colours) may not.
    """
    walk = _Walk(graph)
    for tensor in graph.inputs:
        walk.fresh(tensor, barrier=None if inputs_are_cut else "network input")
    for operator in graph.operators:
        _RULES.get(operator.kind, _unknown)(walk, operator)
    for tensor in graph.outputs:
        walk.bar(tensor, "network output")
    return walk.result()


# Ranks of the weights of layers: `[O, kh, kw, I]` and `[O, I]`.
_WEIGHT_RANKS: Final = {"CONV_2D": 4, "FULLY_CONNECTED": 2}

# Element-wise operators of one input: they hand every channel on.
ELEMENTWISE: Final = (
    "RELU",
    "RELU6",
    "RELU_N1_TO_1",
    "RELU_0_TO_1",
    "LEAKY_RELU",
    "ELU",
    "TANH",
    "LOGISTIC",
    "HARD_SWISH",
    "GELU",
)


class _Walk:
    """The state of one analysis: groups so far, and which axis belongs to which."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.groups: list[ChannelGroup] = []
        self.axes: dict[int, dict[int, AxisUse]] = {}
        self.shape_values: dict[int, dict[int, AxisUse]] = {}
        self._users: dict[int, int] = {}
        for operator in graph.operators:
            for tensor in operator.inputs:
                self._users[tensor] = self._users.get(tensor, 0) + 1

    def result(self) -> Channels:
        """Return what was found."""
        return Channels(tuple(self.groups), self.axes, self.shape_values)

    def fresh(self, tensor: int, *, barrier: str | None = None, producer: int | None = None) -> None:
        """Open a new group: the channels (last axis) of activation `tensor`."""
        shape = self.graph.tensors[tensor].shape
        if len(shape) < 2:
            return
        group = ChannelGroup(units=shape[-1], tensors=[tensor])
        if barrier is not None:
            group.barriers.append(barrier)
        if producer is not None:
            group.producers.append(producer)
        self.groups.append(group)
        self.axes[tensor] = {len(shape) - 1: AxisUse(len(self.groups) - 1, 1)}

    def use(self, tensor: int) -> AxisUse | None:
        """Return what the last axis of an activation is made of."""
        axes = self.axes.get(tensor)
        return None if axes is None else next(iter(axes.values()))

    def bar(self, tensor: int, reason: str) -> None:
        """Keep every channel of the activation `tensor`."""
        use = self.use(tensor)
        if use is not None and reason not in self.groups[use.group].barriers:
            self.groups[use.group].barriers.append(reason)

    def hand_on(self, source: int, target: int, positions: int | None = None) -> None:
        """Let `target`'s last axis carry the channels of `source`, each at `positions` places (None: as before)."""
        use = self.use(source)
        if use is None:
            return
        shape = self.graph.tensors[target].shape
        use = AxisUse(use.group, use.positions if positions is None else positions)
        self.axes[target] = {len(shape) - 1: use}
        self.groups[use.group].tensors.append(target)

    def own_constant(self, tensor: int) -> bool:
        """Whether `tensor` is a constant that numpy can slice and that has no other reader."""
        return self.graph.tensors[tensor].data is not None and self._users[tensor] == 1

    def slice_constant(self, tensor: int, axis: int, use: AxisUse | None) -> None:
        if use is not None:
            self.axes.setdefault(tensor, {})[axis] = use


def _unknown(walk: _Walk, operator: Operator, reason: str | None = None) -> None:
    reason = reason or f"{operator.kind} is not understood"
    for tensor in operator.inputs:
        walk.bar(tensor, f"{reason} (operator {operator.index})")
    for tensor in operator.outputs:
        walk.fresh(tensor, barrier=f"{reason} (operator {operator.index})")


def _mixes(walk: _Walk, operator: Operator) -> None:
    _unknown(walk, operator, f"{operator.kind} mixes the channels")


def _layer(walk: _Walk, operator: Operator) -> None:
    """CONV_2D `[O, kh, kw, I]` and FULLY_CONNECTED `[O, I]`: own channels on axis 0, the input's on the last axis."""
    source, weight, bias = operator.input(0), operator.input(1), operator.input(2)
    target = operator.outputs[0]
    tensors = walk.graph.tensors
    use = walk.use(source)
    if weight < 0 or not walk.own_constant(weight) or (bias >= 0 and not walk.own_constant(bias)):
        _unknown(walk, operator, f"{operator.kind} computes or shares its weights")
        return
    if tensors[weight].dtype != np.float32:
        _unknown(walk, operator, f"{operator.kind} has {tensors[weight].dtype} weights")
        return
    rank = _WEIGHT_RANKS[operator.kind]
    shape = tensors[weight].shape
    if len(shape) != rank or (bias >= 0 and tensors[bias].shape != shape[:1]):
        _unknown(walk, operator, f"{operator.kind} has weights of shape {shape} and a bias that does not fit them")
        return
    # A dense layer may flatten its input by itself, and a convolution may be grouped: then these differ.
    if tensors[source].shape[-1:] != shape[-1:] or tensors[target].shape[-1:] != shape[:1]:
        _unknown(walk, operator, f"{operator.kind} is grouped or reshapes its input")
        return
    if operator.options.get("weights_format"):
        _unknown(walk, operator, f"{operator.kind} has shuffled weights")
        return
    walk.fresh(target, producer=operator.index)
    own = walk.use(target)
    walk.slice_constant(weight, 0, own)
    walk.slice_constant(weight, len(shape) - 1, use)
    if bias >= 0:
        walk.slice_constant(bias, 0, own)
    if use is not None:
        walk.groups[use.group].consumers.append(Consumer(operator.index, source, weight, bias))


def _pass_through(walk: _Walk, operator: Operator) -> None:
    source, target = operator.input(0), operator.outputs[0]
    if walk.graph.tensors[source].shape[-1:] != walk.graph.tensors[target].shape[-1:]:
        _unknown(walk, operator, f"{operator.kind} changes the number of channels")
        return
    walk.hand_on(source, target)


def _flatten(walk: _Walk, operator: Operator) -> None:
    """RESHAPE of `(n, ..., channels)` to `(n, everything)`; any other reshape is a barrier."""
    source, target = operator.input(0), operator.outputs[0]
    before, after = walk.graph.tensors[source].shape, walk.graph.tensors[target].shape
    shape_tensor = operator.input(1)
    target_shape = walk.graph.tensors[shape_tensor].data if shape_tensor >= 0 else None
    use = walk.use(source)
    flattens = len(after) == 2 and len(before) >= 2 and after[1] == math.prod(before[1:])
    fits = target_shape is not None and target_shape.shape == (2,) and walk.own_constant(shape_tensor)
    if use is None or use.positions != 1 or not flattens or not fits:
        _unknown(walk, operator, "RESHAPE is not a plain flatten")
        return
    positions = math.prod(before[1:-1])
    walk.hand_on(source, target, positions)
    walk.shape_values[shape_tensor] = {1: AxisUse(use.group, positions)}


def _with_constant(walk: _Walk, operator: Operator) -> None:
    """ADD, SUB, MUL or DIV with a constant of one number, or one per channel, as batch normalisation leaves them."""
    tensors = walk.graph.tensors
    constants = [tensor for tensor in operator.inputs if tensors[tensor].is_constant]
    sources = [tensor for tensor in operator.inputs if not tensors[tensor].is_constant]
    if len(constants) != 1 or len(sources) != 1:
        _unknown(walk, operator, f"{operator.kind} of two activations is not understood")
        return
    (constant,), (source,), target = constants, sources, operator.outputs[0]
    values, shape = tensors[constant], tensors[source].shape
    per_channel = values.shape[-1:] == shape[-1:] and values.size == shape[-1]
    use = walk.use(source)
    if shape != tensors[target].shape or not (values.size == 1 or per_channel) or (use and use.positions != 1):
        _unknown(walk, operator, f"{operator.kind} with a constant of shape {values.shape}")
        return
    if values.size > 1:
        if not walk.own_constant(constant) or values.dtype != np.float32:
            _unknown(walk, operator, f"{operator.kind} shares its constant, or has one of {values.dtype}")
            return
        walk.slice_constant(constant, len(values.shape) - 1, use)
    walk.hand_on(source, target)


def _global_pool(walk: _Walk, operator: Operator) -> None:
    """MEAN or REDUCE_MAX over height and width hands the channels on."""
    source, axes = operator.input(0), walk.graph.tensors[operator.input(1)].data
    rank = len(walk.graph.tensors[source].shape)
    if rank < 2 or axes is None or axes.dtype.kind != "i":
        _unknown(walk, operator, f"{operator.kind} over axes that are not stated")
        return
    if {0, rank - 1} & {int(axis) % rank for axis in axes.ravel()}:
        _unknown(walk, operator, f"{operator.kind} runs over channels or batch")
        return
    _pass_through(walk, operator)


_RULES: Final[dict[str, Callable[[_Walk, Operator], None]]] = {
    "CONV_2D": _layer,
    "FULLY_CONNECTED": _layer,
    "MAX_POOL_2D": _pass_through,
    "AVERAGE_POOL_2D": _pass_through,
    "RESHAPE": _flatten,
    "MEAN": _global_pool,
    "REDUCE_MAX": _global_pool,
    **dict.fromkeys(("ADD", "SUB", "MUL", "DIV"), _with_constant),
    "SOFTMAX": _mixes,
    "LOG_SOFTMAX": _mixes,
    "L2_NORMALIZATION": _mixes,
    **dict.fromkeys(ELEMENTWISE, _pass_through),
}
