"""Fits the folds of a cut: what each layer that reads pruned units does to make up for them, for one user.

A layer that reads activations `a` of the base will read only the kept ones, `x`, of the cut network. A linear fold lets
it read `mu_a + R (x - mu_x)` instead, with the ridge regression

    R = (I_S + D),   D = C_(a - x)x (C_xx + lambda mean(diag C_xx) I)^-1,

over the user's profile images: each pruned unit is predicted from the kept ones, and each kept one is set right for
what earlier cuts have changed about it (`docs/decisions/0012-folds-restore-the-base.md`). x are the activations of the
network as cut and folded up to there, so the layers are fitted in order. A mean fold puts the pruned units' means in
their place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import numpy as np

from cloud_pruner.segments import BATCH
from edge_runtime.flatmodel import Fold, LayerCut

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from cloud_pruner.groups import PrunableGroup, Reader
    from cloud_pruner.segments import Segments

__all__ = ["FOLDINGS", "RIDGE", "FoldFitter", "Folding"]

Folding: TypeAlias = Literal["none", "mean", "linear"]
FOLDINGS: Final[tuple[Folding, ...]] = ("none", "mean", "linear")

RIDGE: Final = 0.02
"""Regularisation, relative to the mean variance of the kept units."""

# Pixels of a map, of each image, that regressions look at: neighbours say nearly the same.
_PIXELS: Final = 64


class FoldFitter:
    """Fits folds on a user's images.

    Parameters
    ----------
    segments
        The base's pieces.
    groups
        All prunable groups, in order of computation.
    inputs
        `(images, ...) float32`: the images at the segments' boundary.
    weights
        `(images,) float64`, summing to 1: what each image counts. May be set to others.
    """

    def __init__(
        self,
        segments: Segments,
        groups: Sequence[PrunableGroup],
        inputs: NDArray[np.float32],
        weights: NDArray[np.float64],
    ) -> None:
        self._segments, self._groups, self._inputs, self.weights = segments, groups, inputs, weights
        readers = [(group, reader) for group in groups for reader in group.readers]
        self._readers = sorted(readers, key=lambda pair: pair[1].operator)
        self._rows = self._base_rows()

    def _base_rows(self) -> dict[Reader, NDArray[np.float32]]:
        """Return reader -> `(images, pixels, units read) float32` of the base."""
        tensors = sorted({reader.tensor for _, reader in self._readers}, key=self._segments.position.__getitem__)
        rows: dict[Reader, list[NDArray[np.float32]]] = {reader: [] for _, reader in self._readers}
        if not tensors:
            return {}
        model = self._segments.whole(self._segments.boundary, *tensors)
        for start in range(0, len(self._inputs), BATCH):
            values = dict(zip(tensors, model.run(self._inputs[start : start + BATCH]), strict=True))
            for _, reader in self._readers:
                rows[reader].append(_rows(values[reader.tensor], reader.axis, reader.places))
        return {reader: np.concatenate(parts) for reader, parts in rows.items()}

    def covariance(self, reader: Reader) -> NDArray[np.float64]:
        """Return the covariance `(units read, units read)` of what a reader reads in the base."""
        centred, _ = _centred(self._rows[reader], self.weights)
        return (centred.T @ centred).astype(np.float64)

    def cuts(self, kept: Mapping[int, NDArray[np.int64]], folding: Folding) -> tuple[LayerCut, ...]:
        """Return the cuts that keep `kept` (group number -> units, ascending), with folds.

        Raises
        ------
        PlanError
            They would leave some axis of the network without channels.
        """
        pruned = [group for group in self._groups if len(kept[group.group]) < group.units]
        folds: dict[int, list[Fold]] = {group.group: [] for group in self._groups}
        if folding == "mean":
            for group in pruned:
                folds[group.group] += [self._mean_fold(reader, kept[group.group]) for reader in group.readers]
        if folding == "linear" and pruned:
            self._fit_linear(kept, pruned, folds)
        return _cuts(self._groups, kept, folds)

    def next_group(
        self, group: PrunableGroup, cuts: Sequence[LayerCut], folding: Folding
    ) -> Callable[[NDArray[np.int64]], LayerCut]:
        """Return what makes the cut of `group` that keeps some units, with folds, in the network as `cuts` left it.

        Folds of `cuts` stay; the group's own are fitted on what its readers read before it is cut.
        """
        rows: dict[Reader, NDArray[np.float32]] = {}
        if folding == "linear":
            tensors = sorted({reader.tensor for reader in group.readers}, key=self._segments.position.__getitem__)
            read = dict(
                zip(tensors, self._segments.run(self._segments.boundary, tensors, cuts, self._inputs), strict=True)
            )
            every = self._every_unit(cuts)
            for reader in group.readers:
                rows[reader] = _rows(read[reader.tensor], reader.axis, self._kept_places(reader, every))

        def cut(kept: NDArray[np.int64]) -> LayerCut:
            folds: list[Fold] = []
            if folding == "mean":
                folds = [self._mean_fold(reader, kept) for reader in group.readers]
            elif folding == "linear":
                folds = [
                    self._linear_fold(reader, kept, rows[reader][..., np.isin(reader.units, kept)])
                    for reader in group.readers
                ]
            return LayerCut(group.tensor, group.units, kept, tuple(folds))

        return cut

    def _every_unit(self, cuts: Sequence[LayerCut]) -> dict[int, NDArray[np.int64]]:
        """Return group number -> kept units: all, but for those of groups that are cut."""
        channels = self._segments.base.channels
        kept = {group.group: np.arange(group.units) for group in self._groups}
        return kept | {channels.group_of(cut.tensor): cut.kept for cut in cuts}

    def alone(self, group: PrunableGroup, kept: NDArray[np.int64]) -> LayerCut:
        """Return the cut of one group with linear folds into its readers, all else as in the base."""
        folds = []
        for reader in group.readers:
            rows = self._rows[reader]
            folds.append(self._linear_fold(reader, kept, rows[..., np.isin(reader.units, kept)]))
        return LayerCut(group.tensor, group.units, kept, tuple(folds))

    def _fit_linear(
        self,
        kept: Mapping[int, NDArray[np.int64]],
        pruned: Sequence[PrunableGroup],
        folds: Mapping[int, list[Fold]],
    ) -> None:
        segments, channels = self._segments, self._segments.base.channels
        # Nothing differs from the base before the first layer that loses outputs or inputs.
        changed = min(
            index
            for group in pruned
            for index in (*channels.groups[group.group].producers, *(reader.operator for reader in group.readers))
        )
        state, values = segments.boundary, self._inputs
        for group, reader in self._readers:
            if segments.position[reader.tensor] < changed:
                continue
            cuts = _cuts(self._groups, kept, folds)
            separator = segments.separator_before(segments.position[reader.tensor] + 1)
            if separator != state:
                (values,) = segments.run(state, [separator], cuts, values)
                state = separator
            (read,) = segments.run(state, [reader.tensor], cuts, values)
            places = self._kept_places(reader, kept)
            rows = _rows(read, reader.axis, places)
            folds[group.group].append(self._linear_fold(reader, kept[group.group], rows))

    def _kept_places(self, reader: Reader, kept: Mapping[int, NDArray[np.int64]]) -> NDArray[np.int64]:
        """Return `(positions, kept units read) int64`: where the kept units are along the axis as cut."""
        channels = self._segments.base.channels
        labels = channels.axes[reader.tensor][reader.axis]
        stays = np.ones(channels.units + 1, dtype=bool)  # the last answers for channels that always stay
        for number, units in kept.items():
            group = channels.groups[number]
            stays[group.first : group.first + group.units] = False
            stays[group.first + units] = True
        after = np.cumsum(stays[labels]) - 1
        return after[reader.places[:, stays[labels[reader.places[0]]]]]

    def _mean_fold(self, reader: Reader, kept: NDArray[np.int64]) -> Fold:
        _, means = _centred(self._rows[reader], self.weights)
        lost = means[~np.isin(reader.units, kept)]
        return Fold.of(reader.weight, np.zeros((len(lost), 0)), lost)

    def _linear_fold(self, reader: Reader, kept: NDArray[np.int64], rows: NDArray[np.float32]) -> Fold:
        """Fit a fold; `rows` `(images, pixels, kept units read)` are those of the cut network."""
        if not rows.shape[2]:  # what else the layer reads is left
            return self._mean_fold(reader, kept)
        base, base_means = _centred(self._rows[reader], self.weights)
        cut, cut_means = _centred(rows, self.weights)
        stays = np.flatnonzero(np.isin(reader.units, kept))
        within = (cut.T @ cut).astype(np.float64)
        between = (base.T @ cut).astype(np.float64)
        between[stays] -= within
        scale = float(np.mean(np.diag(within)))
        if scale <= 0.0:
            corrections = np.zeros_like(between)
        else:
            within[np.diag_indices_from(within)] += RIDGE * scale
            corrections = np.linalg.solve(within, between.T).T.astype(np.float64)
        offsets = base_means - corrections @ cut_means
        offsets[stays] -= cut_means
        return Fold.of(reader.weight, corrections, offsets)


def _cuts(
    groups: Sequence[PrunableGroup], kept: Mapping[int, NDArray[np.int64]], folds: Mapping[int, Sequence[Fold]]
) -> tuple[LayerCut, ...]:
    return tuple(
        LayerCut(group.tensor, group.units, kept[group.group], tuple(folds[group.group]))
        for group in groups
        if len(kept[group.group]) < group.units or folds[group.group]
    )


def _rows(values: NDArray[np.float32], axis: int, places: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return `(images, pixels, units)` of an activation `(images, ...)`: evenly chosen pixels of large maps."""
    channels_last = np.moveaxis(values, axis, -1)
    pixels = channels_last.reshape(len(values), -1, channels_last.shape[-1])
    step = max(-(-pixels.shape[1] // _PIXELS), 1)
    # An odd step meets other columns in each row of a map whose width is a power of two.
    chosen = pixels[:, :: step | 1 if step > 1 else 1]
    rows: NDArray[np.float32] = np.ascontiguousarray(chosen[..., places]).reshape(len(values), -1, places.shape[1])
    return rows


def _centred(
    rows: NDArray[np.float32], weights: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Return `(images * pixels, units) float32`, centred and times the root of its weight, and the means `(units,)`."""
    _, pixels, units = rows.shape
    means: NDArray[np.float64] = np.einsum("i,iu->u", weights, rows.mean(axis=1, dtype=np.float64))
    centred = (rows - means.astype(np.float32)).reshape(-1, units)
    centred *= np.sqrt(np.repeat(weights / pixels, pixels)).astype(np.float32)[:, None]
    return centred, means
