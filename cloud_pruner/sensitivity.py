"""What pruning a channel group does to the logits, against what its readers' outputs lose: measured per class.

Errors of different groups cannot be compared as they are: what one layer gets wrong the next ones may drown or amplify,
and the more so the larger it is. So each group is pruned alone, by a quarter, a half and three quarters, with linear
folds for all classes. The mean squared change of the logits, centred over classes (softmax does not see their mean),
over the error that `elimination` foresees is the group's sensitivity there. Our own.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np

from cloud_pruner.elimination import Observed, eliminate
from cloud_pruner.fold_fitting import RIDGE, FoldFitter
from cloud_pruner.segments import Segments
from cloud_pruner.variants import Usage
from edge_runtime.errors import PlanError
from edge_runtime.flatmodel import real_values

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from cloud_pruner.elimination import Elimination
    from cloud_pruner.groups import PrunableGroup, Reader
    from cloud_pruner.taylor import TaylorMoments
    from edge_runtime.flatmodel import BaseModel, LayerCut

__all__ = ["SHARES", "gram", "scaled", "sensitivities", "weighted_by_gradients"]

SHARES: Final = (0.25, 0.5, 0.75)
"""Of a group's units, pruned where sensitivities are measured."""
_IMAGES: Final = 20
_IMAGES_IN_ALL: Final = 2000
_TINY: Final = 1e-12
# Weights that are widened to float64 at a time.
_AT_ONCE: Final = 1 << 20


def gram(base: BaseModel, reader: Reader) -> NDArray[np.float64]:
    """Return W^T W `(units read, units read) float64` of a layer, summed over outputs, kernel positions and places."""
    weights = real_values(base.graph.tensors[reader.weight])
    units = reader.columns.shape[1]
    product = np.zeros((units, units))
    strip = max(_AT_ONCE // units, 1)
    for rows in np.array_split(weights.reshape(-1, weights.shape[-1]), -(-weights.size // _AT_ONCE)):
        flat = rows[:, reader.columns].reshape(-1, units).astype(np.float64)
        for start in range(0, units, strip):
            product[start : start + strip] += flat[:, start : start + strip].T @ flat
    return product


def sensitivities(
    base: BaseModel,
    boundary: int,
    groups: Sequence[PrunableGroup],
    activations: NDArray[np.float32],
    labels: NDArray[np.int32],
    classes: int,
) -> Iterator[NDArray[np.float32]]:
    """Yield `(shares, classes) float32` for each of `groups`, for each of `SHARES`.

    Parameters
    ----------
    activations, labels
        `(n, ...)` at `boundary` and `(n,)`, ascending: some of each class are used.
    """
    each = max(min(_IMAGES, _IMAGES_IN_ALL // classes), 1)
    starts = np.searchsorted(labels, np.arange(classes))
    ends = np.searchsorted(labels, np.arange(classes), side="right")
    rows = np.concatenate([np.arange(start, min(start + each, end)) for start, end in zip(starts, ends, strict=True)])
    inputs, mine = np.asarray(activations[rows]), labels[rows]
    segments = Segments(base, boundary)
    fitter = FoldFitter(segments, groups, inputs, np.full(len(rows), 1.0 / len(rows)))
    usual = _outputs(segments, [], inputs)
    for group in groups:
        observed = [Observed(reader.units, fitter.covariance(reader), gram(base, reader)) for reader in group.readers]
        elimination = eliminate(group.units, observed, RIDGE)
        measured = np.ones((len(SHARES), classes), np.float32)
        for number, share in enumerate(SHARES if len(elimination.ends) else ()):  # one unit alone never goes
            block = min(int(np.searchsorted(elimination.ends, share * group.units)), len(elimination.ends) - 1)
            kept = np.setdiff1d(np.arange(group.units), elimination.order[: elimination.ends[block]])
            try:
                outputs = _outputs(segments, [fitter.alone(group, kept)], inputs)
            except PlanError:  # some layer would be left without channels
                measured[number:] = measured[max(number - 1, 0)]
                break
            change = np.square(outputs - usual).sum(axis=1)
            by_class = np.bincount(mine, change, minlength=classes) / np.bincount(mine, minlength=classes)
            measured[number] = np.maximum(by_class, _TINY) / max(elimination.errors[block], _TINY)
        yield measured


def scaled(elimination: Elimination, units: int, sensitivity: NDArray[np.floating]) -> Elimination:
    """Return a group's elimination with errors in terms of the network's logits.

    `sensitivity` `(shares,)`: the group's, for a user. Between shares its logarithm is interpolated; errors never fall.
    """
    factors = np.exp(np.interp(elimination.ends / units, SHARES, np.log(np.maximum(sensitivity, _TINY))))
    return replace(elimination, errors=np.maximum.accumulate(elimination.errors * factors))


def weighted_by_gradients(
    reader: Reader,
    covariance: NDArray[np.float64],
    gram: NDArray[np.float64],
    moments: TaylorMoments,
    usage: Usage,
) -> Observed:
    """Return what a reader sees, with errors in terms of the loss: as the network's gradients weigh them.

    A unit's centred Taylor score over its variance says what a squared error in it costs. The layer's W^T W, which says
    how errors of units add up, is scaled in place to have that on its diagonal. Errors can then be compared across
    groups.
    """
    alike = Usage(usage.labels, np.full(len(usage.labels), 1.0 / len(usage.labels)))
    scores = moments.scores(alike)[reader.places].sum(axis=0)
    costs = scores / np.maximum(np.diag(covariance), _TINY)
    factors = np.sqrt(costs / np.maximum(np.diag(gram), _TINY))
    gram *= factors[:, None]
    gram *= factors[None, :]
    return Observed(reader.units, covariance, gram, unit=1.0)


def _outputs(segments: Segments, cuts: Sequence[LayerCut], inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    producer = segments.base.graph.producer[segments.output]
    logits = producer.inputs[0] if producer.kind == "SOFTMAX" else segments.output
    (outputs,) = segments.run(segments.boundary, [logits], cuts, inputs)
    centred: NDArray[np.float32] = outputs - outputs.mean(axis=1, keepdims=True)
    return centred
