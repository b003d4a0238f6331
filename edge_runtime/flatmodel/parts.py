"""Parts of a base model: what lies between two activations, cut by the same plans as the whole.

A search that knows what an activation is like need not run what comes before it again. A part has the base's tensors
and units under the base's numbers, so a `LayerCut` of the base cuts each of its parts.

Making a part needs the schema's object API (`normalize.extract`); done in the cloud.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from edge_runtime.flatmodel.batching import takes_any_batch
from edge_runtime.flatmodel.kept_channels import KeptChannels
from edge_runtime.flatmodel.normalize import extract
from edge_runtime.flatmodel.slicing import BaseModel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from edge_runtime.flatmodel.channels import Channels
    from edge_runtime.flatmodel.graph import Graph
    from edge_runtime.flatmodel.plan import LayerCut

__all__ = ["Part", "separators"]


class Part:
    """What computes the activations `targets` of a base model from the activation `source`.

    Attributes
    ----------
    any_batch
        Whether many images may go through it at once.

    Raises
    ------
    ModelFileError
        A target does not follow from the source and constants alone.
    """

    def __init__(self, base: BaseModel, source: int, targets: Sequence[int]) -> None:
        self._base, self.source = base, source
        content = extract(bytes(base.content), [source], list(targets))
        self._model = BaseModel(content, channels=lambda graph: _within(base, graph), name="part of the base model")
        self._weights = {consumer.weight for group in self._model.channels.groups for consumer in group.consumers}
        self.any_batch = takes_any_batch(self._model.graph)

    def emit(self, cuts: Sequence[LayerCut]) -> memoryview:
        """Return the part's file with `cuts` of the base applied; its input has the source's kept channels."""
        return self._model.emit(
            replace(cut, folds=tuple(fold for fold in cut.folds if fold.weight in self._weights)) for cut in cuts
        )

    def kept_inputs(
        self, values: NDArray[np.float32], cuts: Sequence[LayerCut], before: Sequence[LayerCut] = ()
    ) -> NDArray[np.float32]:
        """Return what `cuts` leave of the source's activations `(n, ...)`, from which `before` has taken its share."""
        after, earlier = self._kept(cuts), self._kept(before)
        for axis, indices in after.items():
            left = np.isin(earlier[axis], indices) if axis in earlier else indices
            values = values[(slice(None),) * axis + (left,)]
        return np.ascontiguousarray(values)

    def _kept(self, cuts: Sequence[LayerCut]) -> dict[int, NDArray[np.int64]]:
        channels = self._base.channels
        return KeptChannels(channels, {channels.group_of(cut.tensor): cut for cut in cuts}).axes(self.source)


def separators(graph: Graph) -> list[int]:
    """Return the activations from each of which alone the graph's output is computed, in order of computation.

    The first is the graph's input, the last its output.
    """
    # Activations, as against what is computed from constants alone (weights stored as float16).
    computed_at = {graph.inputs[0]: -1}
    last_read: dict[int, int] = {}
    for operator in graph.operators:
        activations = [tensor for tensor in operator.inputs if tensor in computed_at]
        if activations:
            last_read |= dict.fromkeys(activations, operator.index)
            computed_at |= dict.fromkeys(operator.outputs, operator.index)
    last_read |= dict.fromkeys(graph.outputs, len(graph.operators))
    found: list[int] = []
    alive: set[int] = set()
    for position, computed in groupby(computed_at, key=computed_at.__getitem__):
        new = {tensor for tensor in computed if tensor in last_read}
        alive = {tensor for tensor in alive if last_read[tensor] > position} | new
        if len(alive) == len(new) == 1:
            found += alive
    return found


def _within(base: BaseModel, graph: Graph) -> Channels:
    """Return the base's channels, for the tensors and layers that are in a part whose graph is `graph`."""
    channels = base.channels
    there = {*graph.inputs, *(index for operator in graph.operators for index in (*operator.inputs, *operator.outputs))}
    operators = {tensor: operator.index for tensor, operator in graph.producer.items()}
    groups = []
    for group in channels.groups:
        consumers = [
            replace(consumer, operator=operators[base.graph.operators[consumer.operator].outputs[0]])
            for consumer in group.consumers
            if consumer.weight in there
        ]
        groups.append(replace(group, consumers=consumers))
    return replace(
        channels,
        groups=tuple(groups),
        axes={tensor: axes for tensor, axes in channels.axes.items() if tensor in there},
        counts={tensor: counts for tensor, counts in channels.counts.items() if tensor in there},
    )
