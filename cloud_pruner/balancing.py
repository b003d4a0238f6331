"""Moves the outputs of a cut against each other, so that no class pays for the others.

A cut is as daring as the class that loses most allows. Often the others have accuracy to spare: the network, as cut,
says one of them a little too readily. Constants added to the outputs put that right, without retraining, as thresholds
of a classifier may be moved after the fact (Provost & Fawcett, Machine Learning 42 (2001)).

The constants become offsets of the fold that the last layer takes up anyway: with its weights W `(outputs, units)` the
offset v of what it reads adds W v to its outputs. So neither the plan's form nor its size changes.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edge_runtime.flatmodel import Fold, real_values

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from cloud_pruner.groups import PrunableGroup, Reader
    from edge_runtime.flatmodel import BaseModel, LayerCut

__all__ = ["Balance", "OutputLayer", "balance"]

# Between the layer that multiplies and the network's outputs: what passes a constant on, or only turns outputs, in
# their order, into probabilities.
_PASSED: Final = ("SOFTMAX", "RESHAPE", "SQUEEZE", "DEQUANTIZE", "QUANTIZE", "MEAN", "AVERAGE_POOL_2D")
# In logits; each step is a little shorter than the one before, and together they come to at most 6.
_STEP: Final = 0.5
_SHRINKS: Final = 0.93
_STEPS: Final = 60
# What a constant that cannot be had exactly may miss at other outputs, against one of the user's classes.
_OTHERS: Final = 0.1


@dataclass(frozen=True, slots=True, eq=False)
class Balance:
    """Constants for the outputs of a cut, and what they come to.

    Attributes
    ----------
    constants
        `(classes,) float64`; those of the user's classes sum to 0, the others are 0.
    lacking
        Class of the user -> the share of its images on which right answers are still missing; below 0 where there are
        more than it needs.
    """

    constants: NDArray[np.float64]
    lacking: dict[int, float]

    @property
    def worst(self) -> float:
        """What the class lacks that lacks most; 0 or less where all have what they need."""
        return max(self.lacking.values())


def balance(logits: NDArray[np.floating[Any]], labels: NDArray[np.int32], needed: Mapping[int, int]) -> Balance:
    """Return the first constants found with which each class has the right answers that it needs, or else the best.

    The class that lacks most answers is raised against the user's others, a little less each time.

    Parameters
    ----------
    logits
        `(images, classes)`: outputs, or logarithms of probabilities.
    labels
        `(images,)`: true classes, the user's.
    needed
        Class -> how many right answers it needs, for each class of `labels`.
    """
    classes = list(needed)
    images = {label: np.flatnonzero(labels == label) for label in classes}
    constants, step, best = np.zeros(logits.shape[1]), _STEP, None
    for _ in range(_STEPS):
        predicted = (logits + constants).argmax(axis=1)
        right = {label: int((predicted[mine] == label).sum()) for label, mine in images.items()}
        tried = Balance(constants.copy(), {c: (needed[c] - right[c]) / len(images[c]) for c in classes})
        if best is None or tried.worst < best.worst:
            best = tried
        if best.worst <= 0:
            break
        constants[max(tried.lacking, key=tried.lacking.__getitem__)] += step
        constants[classes] -= step / len(classes)
        step *= _SHRINKS
    assert best is not None  # there is at least one step
    return best


class OutputLayer:
    """The layer that makes the outputs of a base model, as far as constants can be added to what it gives.

    Attributes
    ----------
    reader
        It, as a reader of a prunable group; None where it reads none, or something else lies behind it.
    """

    def __init__(self, base: BaseModel, groups: Sequence[PrunableGroup]) -> None:
        operator = base.graph.output_maker(_PASSED)
        self.reader: Reader | None = None
        if operator is None or operator.options.get("activation", 0) != 0:
            return
        readers = (reader for group in groups for reader in group.readers)
        self.reader = next((reader for reader in readers if reader.operator == operator.index), None)
        if self.reader is not None:
            weights = real_values(base.graph.tensors[self.reader.weight]).astype(np.float64)
            # Each unit's offset is added wherever the unit is read: at all kernel positions, and places of a map.
            summed = weights.reshape(len(weights), -1, weights.shape[-1]).sum(axis=1)
            self._weights: NDArray[np.float64] = summed[:, self.reader.columns].sum(axis=1)

    def raised(
        self, cuts: Sequence[LayerCut], constants: NDArray[np.float64], classes: Sequence[int]
    ) -> tuple[LayerCut, ...] | None:
        """Return `cuts` with `constants` `(classes,)` added to the outputs; None where no fold can take them up.

        Where the layer reads fewer units than it has outputs, the constants of `classes` are met, others nearly.
        """
        reader = self.reader
        if reader is None or len(constants) != len(self._weights):
            return None
        matters = np.full(len(constants), _OTHERS)
        matters[list(classes)] = 1.0
        scaled = matters[:, None] * self._weights
        offsets = np.linalg.lstsq(scaled, matters * constants, rcond=None)[0]
        for number, cut in enumerate(cuts):
            for place, fold in enumerate(cut.folds):
                if fold.weight == reader.weight and len(fold.offsets) == len(offsets):
                    folds = list(cut.folds)
                    folds[place] = _with_offsets(fold, offsets)
                    return (*cuts[:number], dataclasses.replace(cut, folds=tuple(folds)), *cuts[number + 1 :])
        return None


def _with_offsets(fold: Fold, more: NDArray[np.floating[Any]]) -> Fold:
    offsets = np.ldexp(fold.offsets.astype(np.float64), fold.offset_exponent) + more
    coefficients = np.ldexp(fold.coefficients.astype(np.float64), fold.coefficient_exponent)
    return Fold.of(fold.weight, coefficients, offsets)
