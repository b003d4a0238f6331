"""Per class: how often each channel of an activation fires, and its mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edge_runtime.flatmodel import extract, read_graph, takes_any_batch
from edge_runtime.interpreter import LoadedModel

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from edge_runtime.flatmodel import BaseModel

__all__ = ["ChannelMoments", "MomentSums", "exposed"]


@dataclass(frozen=True, slots=True, eq=False)
class ChannelMoments:
    """What was measured of one activation's channels, per class, over images and positions.

    Attributes
    ----------
    firing_rates
        `(channels, classes) float32`: fraction of values that are not zero (CAP'NN, section III).
    means
        `(channels, classes) float32`: of the values; real values, also of quantised tensors.
    """

    firing_rates: NDArray[np.float32]
    means: NDArray[np.float32]


class MomentSums:
    """Adds up what `ChannelMoments` are made of, batch by batch.

    Parameters
    ----------
    channels
        Activation (tensor index) -> how many channels it has, on its last axis.
    classes
        How many classes there are.
    """

    def __init__(self, channels: Mapping[int, int], classes: int) -> None:
        # (fires, sum) of each activation.
        self._sums = {tensor: np.zeros((2, classes, count)) for tensor, count in channels.items()}
        self._images = np.zeros(classes)

    def add(self, values: Mapping[int, NDArray[np.float32]], labels: NDArray[np.int32]) -> None:
        """Add the activations `(images, ..., channels)` of a batch with the classes `labels` `(images,)`."""
        self._images += np.bincount(labels, minlength=len(self._images))
        for tensor, sums in self._sums.items():
            flat = values[tensor].reshape(len(labels), -1, sums.shape[2])
            for total, part in zip(sums, (flat != 0, flat), strict=True):
                np.add.at(total, labels, part.mean(axis=1, dtype=np.float64))

    def of(self, tensor: int) -> ChannelMoments:
        """Return the moments of an activation; NaN for a class without images."""
        with np.errstate(invalid="ignore"):
            means = self._sums[tensor] / self._images[:, None]
        firing_rates, first = (np.ascontiguousarray(part.T, dtype=np.float32) for part in means)
        return ChannelMoments(firing_rates, first)


def exposed(base: BaseModel, tensors: Sequence[int], *, batch: int, name: str = "profiled model") -> LoadedModel:
    """Return the base model with the activations `tensors` as its outputs, in that order, ready to run.

    Any activation of any graph will do, whatever it is stored as: what comes out are real values. `batch` images go
    through at a time, where the model's structure allows for it.

    Raises
    ------
    ModelFileError
        An activation does not follow from the model's input.
    """
    part: bytes = extract(bytes(base.content), [base.graph.inputs[0]], list(tensors))
    return LoadedModel(part, batch=batch if takes_any_batch(read_graph(part)) else 1, name=name)
