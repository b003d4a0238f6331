"""The state of one walk over a graph's operators: which units the channels of each tensor are.

Every output channel of a layer is a new *unit*, with a number of its own. A label array says, for each index along an
axis, which unit it is, or `STAYS`. Rules (`channel_rules`) hand labels on from operator to operator, and note which
units must share a fate ("coupled"), which may not go ("barred"), and where constants must be sliced along.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np

from edge_runtime.errors import ModelFileError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edge_runtime.flatmodel.graph import Graph, Operator, Tensor

__all__ = ["STAYS", "Barrier", "ChannelWalk", "Consumer", "LabelledAxis", "Labels"]

STAYS: Final = -1
"""The label of an index that is never pruned."""

# Labels made and handed on in one walk, which takes at most 40 bytes for each. The largest networks in use need two
# million; a damaged file could ask for billions.
_LABELS_MAX: Final = 1 << 23
# Elements that tell most axes apart.
_SAMPLE: Final = 1 << 10


class Barrier(Exception):  # noqa: N818 - it ends the pruning of some channels, and is no error
    """Raised by a rule: this operator's channels stay, and why, in words that follow the operator's name."""


Labels: TypeAlias = "NDArray[np.int32]"


@dataclass(frozen=True, slots=True, eq=False)
class LabelledAxis:
    """The axis of an activation that carries channels, and the unit of each index along it."""

    axis: int
    labels: Labels


@dataclass(frozen=True, slots=True)
class Consumer:
    """A layer that multiplies a group's channels.

    Operator `operator` reads activation `tensor`; `weight` and `bias` are its constants (tensor indices; also where a
    DEQUANTIZE stands between), `bias` -1 where it has none.
    """

    operator: int
    tensor: int
    weight: int
    bias: int


@dataclass(frozen=True, slots=True)
class Source:
    """Units that came into being together: `count` of them from number `first` on, computed by operator `producer`."""

    first: int
    count: int
    producer: int | None


class ChannelWalk:
    """What a walk has found so far; rules add to it.

    Attributes
    ----------
    carried
        Activation (tensor index) -> its axis of channels; activations whose channels all stay are not in it.
    sliced
        Constant -> axis -> labels.
    counts
        Constant -> index of an element -> labels: the element's value is how many of these units are kept.
    couplings
        Pairs of label arrays of one length whose units share a fate, element by element.
    bars
        Labels that must stay, with the reason.
    consumers
        Labels of what a layer multiplies, with the layer.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.carried: dict[int, LabelledAxis] = {}
        self.sliced: dict[int, dict[int, Labels]] = {}
        self.counts: dict[int, dict[int, Labels]] = {}
        self.couplings: list[tuple[Labels, Labels]] = []
        self.bars: list[tuple[Labels, str]] = []
        self.consumers: list[tuple[Labels, Consumer]] = []
        self.sources: list[Source] = []
        self.units = 0
        self._labels_made = 0
        self._readers: dict[int, int] = {}
        for tensor in (*graph.outputs, *(tensor for operator in graph.operators for tensor in operator.inputs)):
            self._readers[tensor] = self._readers.get(tensor, 0) + 1

    def tensor(self, index: int) -> Tensor:
        """Return a tensor of the graph."""
        return self.graph.tensors[index]

    def shape(self, index: int) -> tuple[int, ...]:
        """Return the shape of a tensor of the graph."""
        return self.graph.tensors[index].shape

    def new_units(self, count: int, producer: int | None = None) -> Labels:
        """Return labels of `count` new units."""
        self.charge(8 * count)
        labels = np.arange(self.units, self.units + count, dtype=np.int32)
        self.sources.append(Source(self.units, count, producer))
        self.units += count
        return labels

    def charge(self, count: int) -> None:
        """Account for `count` labels that are about to be made.

        Raises
        ------
        ModelFileError
            They are more than any network needs: the file's shapes are wrong.
        """
        self._labels_made += count
        if self._labels_made > _LABELS_MAX:
            raise ModelFileError(f"damaged .tflite: its shapes ask for more than {_LABELS_MAX} channels")

    def carry(self, tensor: int, axis: int, labels: Labels | None) -> None:
        """Say which units the indices of `axis` of activation `tensor` are; None: they stay.

        Raises
        ------
        ModelFileError
            The axis has another length in the file.
        """
        if labels is None:
            return
        if self.shape(tensor)[axis : axis + 1] != labels.shape:
            raise ModelFileError(
                f"damaged .tflite: tensor {tensor} of shape {self.shape(tensor)} should have {len(labels)} channels"
            )
        if not len(labels):
            raise ModelFileError(f"damaged .tflite: tensor {tensor} has no channels")
        self.charge(len(labels))
        self.carried[tensor] = LabelledAxis(axis, labels)
        quantization = self.tensor(tensor).quantization
        if quantization is not None and quantization.count > 1:
            self.bar(tensor, f"tensor {tensor} has a scale for each channel")

    def channels_last(self, tensor: int) -> Labels | None:
        """Return the labels of the last axis of activation `tensor`; None where its channels stay.

        Raises
        ------
        Barrier
            The tensor carries its channels on another axis.
        """
        carried = self.carried.get(tensor)
        if carried is None:
            return None
        if carried.axis != len(self.shape(tensor)) - 1:
            raise Barrier("expects channels on the last axis")
        return carried.labels

    def bar(self, tensor: int, reason: str) -> None:
        """Keep every channel of activation `tensor`."""
        carried = self.carried.get(tensor)
        if carried is not None:
            self.bars.append((carried.labels, reason))

    def bar_operator(self, operator: Operator, reason: str) -> None:
        """Keep every channel that `operator` reads; those that it writes are never labelled."""
        for tensor in operator.inputs:
            self.bar(tensor, f"{operator.kind} (operator {operator.index}) {reason}")

    def couple(self, first: Labels, second: Labels) -> None:
        """Let the units of two label arrays of one length share a fate, element by element."""
        if first is not second:
            self.charge(4 * len(first))
            self.couplings.append((first, second))

    def own_constant(self, tensor: int) -> Tensor:
        """Return the constant that `tensor` is, or is the DEQUANTIZE of.

        Raises
        ------
        Barrier
            The values are computed, shared with another operator, or stored in a form that cannot be sliced.
        """
        constant = self.graph.constant_behind(tensor)
        if constant is None or constant.data is None:
            raise Barrier("computes its weights, or has them in a form that cannot be sliced")
        if self._readers.get(tensor) != 1 or self._readers.get(constant.index) != 1:
            raise Barrier("shares its constants with another operator")
        if self.shape(tensor) != constant.shape:
            raise Barrier("changes the shape of its weights")
        quantization = constant.quantization
        if quantization is not None and not quantization.fits(constant.shape):
            raise Barrier("has scales that do not fit its weights")
        return constant

    def slice_constant(self, tensor: int, axis: int, labels: Labels | None) -> None:
        """Slice the constant that `tensor` is, or is the DEQUANTIZE of, along `axis`."""
        if labels is None:
            return
        producer = self.graph.producer.get(tensor)
        for index in (tensor,) if producer is None else (tensor, producer.input(0)):
            self.sliced.setdefault(index, {})[axis] = labels

    def count(self, tensor: int, element: int, labels: Labels | None) -> None:
        """Let an element of the constant `tensor` be the number of kept units among `labels`."""
        if labels is not None:
            self.counts.setdefault(tensor, {})[element] = labels

    def integers(self, tensor: int) -> NDArray[np.int64]:
        """Return the values of a constant of shapes, axes or the like, flat.

        Raises
        ------
        Barrier
            They are computed, or no integers.
        """
        data = self.tensor(tensor).data if tensor >= 0 else None
        if data is None or data.dtype.kind != "i" or data.size > 64:
            raise Barrier("computes its shape or axes")
        return data.astype(np.int64).ravel()

    def reshaped(self, tensor: int, shape: tuple[int, ...]) -> LabelledAxis | None:
        """Return what the axis of channels becomes when activation `tensor` is reshaped; None where channels stay.

        Raises
        ------
        Barrier
            The channels come to lie across several axes.
        """
        carried = self.carried.get(tensor)
        if carried is None:
            return None
        before = self.shape(tensor)
        if math.prod(before) != math.prod(shape) or len(carried.labels) != before[carried.axis] or 0 in shape:
            raise Barrier("reshapes to another number of elements")
        for axis in reversed(range(len(shape))):
            labels = self._along(
                carried.labels, math.prod(before[carried.axis + 1 :]), shape[axis], math.prod(shape[axis + 1 :])
            )
            if labels is not None:
                return LabelledAxis(axis, labels)
        raise Barrier("spreads the channels over several axes")

    def _along(self, labels: Labels, inner: int, side: int, stride: int) -> Labels | None:
        """Return the labels along an axis, if it alone says which unit an element is of.

        Element p is of unit `labels[p // inner % len(labels)]` and lies at index `p // stride % side` of the axis.
        Both repeat, and both are the same for a whole block of elements: one of each block, of one period, says all.
        """
        block = math.gcd(inner, stride)
        period = math.lcm(len(labels) * inner, side * stride) // block
        for size in (min(period, _SAMPLE), period):
            self.charge(4 * size)  # positions have 8 bytes, and there are several arrays of them
            blocks = np.arange(size)
            # The element at the same index of this axis, and 0 of all others.
            first = blocks // (stride // block) % side * stride
            if not np.array_equal(
                labels[blocks // (inner // block) % len(labels)], labels[first // inner % len(labels)]
            ):
                return None
        self.charge(4 * side)
        return labels[np.arange(side) * stride // inner % len(labels)]
