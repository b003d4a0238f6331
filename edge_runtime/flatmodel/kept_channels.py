"""Which indices of each tensor's axes are left when a plan's units are kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edge_runtime.errors import PlanError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from edge_runtime.flatmodel.channel_walk import Labels
    from edge_runtime.flatmodel.channels import Channels
    from edge_runtime.flatmodel.plan import LayerCut

__all__ = ["KeptChannels"]


class KeptChannels:
    """Which indices of each tensor's axes a cut keeps."""

    def __init__(self, channels: Channels, by_group: Mapping[int, LayerCut]) -> None:
        # The last one answers for STAYS, which is -1.
        self._keeps = np.ones(channels.units + 1, dtype=bool)
        for number, cut in by_group.items():
            first = channels.groups[number].first
            self._keeps[first : first + cut.units] = False
            self._keeps[first + cut.kept] = True
        # Many tensors share one array of labels; None: it keeps all.
        self._indices: dict[int, NDArray[np.int64] | None] = {}
        self._axes = {
            tensor: {axis: kept for axis, labels in axes.items() if (kept := self._kept(tensor, labels)) is not None}
            for tensor, axes in channels.axes.items()
        }

    def axes(self, tensor: int) -> dict[int, NDArray[np.int64]]:
        """Return axis -> kept indices along it, for the axes of `tensor` that lose some."""
        return self._axes.get(tensor, {})

    def count(self, labels: Labels) -> int:
        """Return how many of these units are kept."""
        return int(self._keeps[labels].sum())

    def _kept(self, tensor: int, labels: Labels) -> NDArray[np.int64] | None:
        if id(labels) not in self._indices:
            indices = np.flatnonzero(self._keeps[labels])
            if not len(indices):
                raise PlanError(f"tensor {tensor} would be left without channels: keep at least one of its units")
            self._indices[id(labels)] = None if len(indices) == len(labels) else indices
        return self._indices[id(labels)]
