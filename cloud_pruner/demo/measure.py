"""What a cut is worth to its user: accuracy on unseen images, energy, MACs and latency, beside the base model's."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from edge_runtime.interpreter import LoadedModel
from hwmodel import compare, estimate

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from cloud_pruner.images import ImageSet
    from edge_runtime.preprocessing import Preprocessing

__all__ = ["Figures", "Meter"]

_RUNS: Final = 300


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one cut, for one set of classes.

    Attributes
    ----------
    unseen_images
        Images that both accuracies are of.
    accuracy_base, accuracy_cut
        Top-1 over all outputs.
    energy_ratio, macs_ratio
        Of one inference on the modelled accelerator, relative to the base's.
    energy_uj
        Energy of one inference (uJ).
    macs
        Multiply-accumulate operations of one inference.
    latency_base_ms, latency_cut_ms
        Median time of one inference on this machine, one thread; both measured in turn.
    """

    unseen_images: int
    accuracy_base: float
    accuracy_cut: float
    energy_ratio: float
    macs_ratio: float
    energy_uj: float
    macs: int
    latency_base_ms: float
    latency_cut_ms: float

    @property
    def latency_ratio(self) -> float:
        """Latency of the cut relative to the base's."""
        return self.latency_cut_ms / self.latency_base_ms


class Meter:
    """Compares cuts with the base model on the report's images.

    Parameters
    ----------
    base
        The base model's file.
    images
        Images that were used for nothing else.
    preprocessing
        What both take.
    """

    def __init__(self, base: bytes, images: ImageSet, preprocessing: Preprocessing) -> None:
        self._base = LoadedModel(base, name="base model")
        self._base_costs = estimate(base, name="base model")
        self._images = images
        self._inputs = preprocessing.apply(images.pixels)
        self._base_predictions = _predictions(self._base, self._inputs)

    @property
    def base_accuracy(self) -> float:
        """Top-1 of the base model on all images."""
        return float((self._base_predictions == self._images.labels).mean())

    def measure(self, cut: bytes, classes: Iterable[str]) -> Figures:
        """Measure `cut` for a user of `classes`; the base itself may be measured, too."""
        model = LoadedModel(cut, name="cut model")
        rows = np.isin(self._images.labels, [self._images.classes.index(name) for name in classes])
        labels = self._images.labels[rows]
        costs = estimate(cut, name="cut model")
        ratios = compare(self._base_costs, costs).ratios
        latency_base, latency_cut = _latencies_ms((self._base, model), self._inputs[:1])
        return Figures(
            unseen_images=len(labels),
            accuracy_base=float((self._base_predictions[rows] == labels).mean()),
            accuracy_cut=float((_predictions(model, self._inputs[rows]) == labels).mean()),
            energy_ratio=ratios["energy"] or 0.0,
            macs_ratio=ratios["macs"] or 0.0,
            energy_uj=costs.energy.total * 1e-6,
            macs=costs.macs,
            latency_base_ms=latency_base,
            latency_cut_ms=latency_cut,
        )


def _predictions(model: LoadedModel, inputs: NDArray[np.float32]) -> NDArray[np.int64]:
    predictions: NDArray[np.int64] = model.run(inputs)[0].argmax(axis=1)
    return predictions


def _latencies_ms(models: tuple[LoadedModel, LoadedModel], image: NDArray[np.float32]) -> tuple[float, float]:
    """Return the median time of each; in turn, so that whatever else the machine does meets both alike."""
    times: tuple[list[int], list[int]] = ([], [])
    for run in range(_RUNS):
        for number in (0, 1) if run % 2 else (1, 0):  # whichever comes first finds colder caches
            start = time.perf_counter_ns()
            models[number].run(image)
            times[number].append(time.perf_counter_ns() - start)
    first, second = (statistics.median(its_times) * 1e-6 for its_times in times)
    return first, second
