"""Runs pieces of a base model, between activations, as cut by a plan; the pieces are made once and kept."""

from __future__ import annotations

import math
import os
from bisect import bisect_right
from typing import TYPE_CHECKING, Final

import numpy as np

from edge_runtime.errors import PlanError
from edge_runtime.flatmodel import Part, separators
from edge_runtime.flatmodel.kept_channels import KeptChannels
from edge_runtime.interpreter import LoadedModel

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from cloud_pruner.groups import PrunableGroup
    from cloud_pruner.profile import Split
    from edge_runtime.flatmodel import BaseModel, LayerCut

__all__ = ["BATCH", "Activations", "Segments", "load"]

BATCH: Final = 64
"""Images that go through a piece at a time, where its structure allows for it."""

# Up to so many bytes an activation of the base is kept for all images.
_REMEMBERED: Final = 1 << 28
# Up to so many bytes of weights are loaded once more to have all that follows an activation in one piece.
_REPEATED: Final = 1 << 25


class Segments:
    """The pieces of a base model behind one of its separators (`flatmodel.separators`).

    Parameters
    ----------
    boundary
        Activation, a separator, at which all images are known.
    """

    def __init__(self, base: BaseModel, boundary: int) -> None:
        self.base, self.boundary = base, boundary
        found = separators(base.graph)
        self._separators = found[found.index(boundary) :]
        operators = base.graph.operators
        self.position = {tensor: operator.index for operator in operators for tensor in operator.outputs}
        self.position[base.graph.inputs[0]] = -1
        self._parts: dict[tuple[int, tuple[int, ...]], Part] = {}
        self._whole: dict[tuple[int, tuple[int, ...]], LoadedModel] = {}
        self._known: dict[int, Activations] = {}

    @property
    def output(self) -> int:
        """The network's output."""
        return self.base.graph.outputs[0]

    def part(self, source: int, *targets: int) -> Part:
        """Return the piece that computes `targets` from `source`."""
        if (source, targets) not in self._parts:
            self._parts[source, targets] = Part(self.base, source, targets)
        return self._parts[source, targets]

    def separator_before(self, operator: int) -> int:
        """Return the last separator that is computed before operator number `operator`."""
        return self._separators[bisect_right(self._separators, operator - 1, key=self.position.__getitem__) - 1]

    def start(self, group: PrunableGroup) -> int:
        """Return the last separator from which all layers that read `group` can still be run."""
        channels = self.base.channels.groups[group.group]
        return self.separator_before(min(consumer.operator for consumer in channels.consumers))

    def is_read_at_start(self, group: PrunableGroup) -> bool:
        """Return whether all layers that read `group` read it from the activation `start(group)` itself."""
        channels = self.base.channels.groups[group.group]
        return {consumer.tensor for consumer in channels.consumers} == {self.start(group)}

    def mask(self, tensor: int, group: int, kept: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return what to multiply values `(n, ...)` of an activation by: 0 for a group's units that are not `kept`."""
        units = self.base.channels.groups[group]
        ((axis, labels),) = self.base.channels.axes[tensor].items()
        of_unit = np.ones(self.base.channels.units + 1, np.float32)  # the last one: of what is of no unit (-1)
        of_unit[units.first : units.first + units.units] = 0.0
        of_unit[units.first + kept] = 1.0
        shape = [1] * len(self.base.graph.tensors[tensor].shape)
        shape[axis] = len(labels)
        return of_unit[labels].reshape(shape)

    def allow(self, cuts: Sequence[LayerCut]) -> bool:
        """Return whether `cuts` leave every layer with inputs and outputs."""
        channels = self.base.channels
        try:
            KeptChannels(channels, {channels.group_of(cut.tensor): cut for cut in cuts})
        except PlanError:
            return False
        return True

    def whole(self, source: int, *targets: int) -> LoadedModel:
        """Return what computes `targets` from `source` in the base itself, ready to run, on every core."""
        if (source, targets) not in self._whole:
            self._whole[source, targets] = load(self.part(source, *targets), [], BATCH, os.cpu_count() or 1)
        return self._whole[source, targets]

    def joined(self, source: int, steps: Sequence[LoadedModel]) -> Sequence[LoadedModel]:
        """Return `steps`, which lead from an activation to the output, as one piece where its weights are small.

        That takes less time, but loads what the steps have once more.
        """
        if len(steps) > 1 and self._weights_behind(source) <= _REPEATED:
            return [self.whole(source, self.output)]
        return steps

    def _weights_behind(self, tensor: int) -> int:
        """Return how many bytes of constants the operators behind an activation read."""
        graph = self.base.graph
        read = {index for operator in graph.operators[self.position[tensor] + 1 :] for index in operator.inputs}
        constants = (graph.tensors[index].data for index in read if index >= 0)
        return sum(data.nbytes for data in constants if data is not None)

    def known(
        self, tensor: int, split: Split, rows: NDArray[np.int64]
    ) -> Callable[[NDArray[np.int64]], NDArray[np.float32]]:
        """Return what gives an activation of the base, `(n, ...)`, for images numbered among `rows` of a split.

        It is the same for all users: what was computed is kept for later ones, unless that may take too much memory.
        """
        piece = self.whole(self.boundary, tensor)
        if 4 * math.prod(piece.output_shapes[0]) * len(split.labels) > _REMEMBERED:
            return Activations(piece, lambda images: split.activations[rows[images]], len(rows)).of
        if tensor not in self._known:
            self._known[tensor] = Activations(piece, split.activations.__getitem__, len(split.labels))
        of_split = self._known[tensor]
        return lambda images: of_split.of(rows[images])

    def run(
        self, source: int, targets: Sequence[int], cuts: Sequence[LayerCut], values: NDArray[np.float32]
    ) -> list[NDArray[np.float32]]:
        """Run `values` `(n, ...)`, the activation `source` as cut, and return each of `targets` as cut."""
        if tuple(targets) in {(), (source,)}:
            return [values for _ in targets]
        # The base itself is run once for a user, so it is not kept loaded.
        threads = 1 if cuts else os.cpu_count() or 1
        return load(self.part(source, *targets), cuts, len(values), threads).run(values)


class Activations:
    """What a piece of the network makes of its input, times a mask, for `count` images: each on demand."""

    def __init__(
        self,
        piece: LoadedModel,
        inputs: Callable[[NDArray[np.int64]], NDArray[np.float32]],
        count: int,
        mask: NDArray[np.float32] | None = None,
    ) -> None:
        self._piece, self._inputs, self._mask = piece, inputs, mask
        self._values = np.empty((count, *piece.output_shapes[0]), np.float32)
        self._known = np.zeros(count, dtype=bool)

    def of(self, images: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the activations `(n, ...)` of the images with these numbers, to be used up."""
        missing = images[~self._known[images]]
        if len(missing):
            inputs = self._inputs(missing)
            if self._mask is not None:
                inputs *= self._mask
            (values,) = self._piece.run(inputs)
            self._values[missing], self._known[missing] = values, True
            if len(missing) == len(images):
                return values
        return self._values[images]


def load(part: Part, cuts: Sequence[LayerCut], images: int, threads: int = 1) -> LoadedModel:
    """Return a piece as cut, ready to run `images` images."""
    batch = max(min(images, BATCH), 1) if part.any_batch else 1
    return LoadedModel(part.emit(cuts), batch=batch, threads=threads, name="part of the base model")
