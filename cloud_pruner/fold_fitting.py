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

from edge_runtime.flatmodel import Fold, LayerCut
from edge_runtime.flatmodel.kept_channels import KeptChannels

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

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
        # What the base's layers read, in `_rows`' shape, less its means.
        self._centres: dict[Reader, NDArray[np.float32]] = {}
        self._rows: dict[Reader, NDArray[np.float32]] = {}
        for _, reader, read in self._reading(tuple):
            rows = _rows(read, reader.axis, reader.places)
            self._centres[reader] = (_each(rows, weights) @ _flat(rows)).astype(np.float32)
            rows -= self._centres[reader]
            self._rows[reader] = rows

    def _reading(
        self, cuts: Callable[[], Sequence[LayerCut]], first: int = -1
    ) -> Iterator[tuple[PrunableGroup, Reader, NDArray[np.float32]]]:
        """Yield each group and reader, in order of computation, with what it reads: `(images, ...) float32`.

        `cuts`, asked at each, says how the network is cut up to there. Readers of what is computed before operator
        `first` are left out.
        """
        segments = self._segments
        state, values = segments.boundary, self._inputs
        for group, reader in self._readers:
            position = segments.position[reader.tensor]
            separator = segments.separator_before(position + 1)
            if separator != state:
                (values,) = segments.run(state, [separator], cuts(), values)
                state = separator
            if position >= first:
                (read,) = segments.run(state, [reader.tensor], cuts(), values)
                yield group, reader, read

    def _means(self, reader: Reader) -> NDArray[np.float64]:
        """Return the means `(units read,)` of what a reader reads in the base, less `_centres`."""
        rows = self._rows[reader]
        means: NDArray[np.float64] = (_each(rows, self.weights) @ _flat(rows)).astype(np.float64)
        return means

    def covariance(self, reader: Reader) -> NDArray[np.float64]:
        """Return the covariance `(units read, units read)` of what a reader reads in the base."""
        rows, means = self._rows[reader], self._means(reader)
        scaled = _flat(rows) * np.sqrt(_each(rows, self.weights))[:, None]
        covariance = (scaled.T @ scaled).astype(np.float64)
        covariance -= np.outer(means, means)
        return covariance

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
            for reader in group.readers:
                rows[reader] = _rows(read[reader.tensor], reader.axis, self._kept_places(reader, cuts))

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

    def alone(self, group: PrunableGroup, kept: NDArray[np.int64]) -> LayerCut:
        """Return the cut of one group with linear folds into its readers, all else as in the base."""
        folds = []
        for reader in group.readers:
            rows = self._rows[reader] + self._centres[reader]
            folds.append(self._linear_fold(reader, kept, rows[..., np.isin(reader.units, kept)]))
        return LayerCut(group.tensor, group.units, kept, tuple(folds))

    def _fit_linear(
        self,
        kept: Mapping[int, NDArray[np.int64]],
        pruned: Sequence[PrunableGroup],
        folds: Mapping[int, list[Fold]],
    ) -> None:
        channels = self._segments.base.channels
        # Nothing differs from the base before the first layer that loses outputs or inputs.
        changed = min(
            index
            for group in pruned
            for index in (*channels.groups[group.group].producers, *(reader.operator for reader in group.readers))
        )

        def cuts() -> tuple[LayerCut, ...]:
            return _cuts(self._groups, kept, folds)

        for group, reader, read in self._reading(cuts, changed):
            rows = _rows(read, reader.axis, self._kept_places(reader, cuts()))
            folds[group.group].append(self._linear_fold(reader, kept[group.group], rows))

    def _kept_places(self, reader: Reader, cuts: Sequence[LayerCut]) -> NDArray[np.int64]:
        """Return `(positions, kept units read) int64`: where the kept units are along the axis as cut."""
        channels = self._segments.base.channels
        kept = KeptChannels(channels, {channels.group_of(cut.tensor): cut for cut in cuts}).axes(reader.tensor)
        if reader.axis not in kept:
            return reader.places
        left = kept[reader.axis]
        return np.searchsorted(left, reader.places[:, np.isin(reader.places[0], left)])

    def _mean_fold(self, reader: Reader, kept: NDArray[np.int64]) -> Fold:
        lost = ~np.isin(reader.units, kept)
        means = (self._means(reader) + self._centres[reader])[lost]
        return Fold.of(reader.weight, np.zeros((len(means), 0)), means)

    def _linear_fold(self, reader: Reader, kept: NDArray[np.int64], rows: NDArray[np.float32]) -> Fold:
        """Fit a fold; `rows` `(images, pixels, kept units read)`, used up, are those of the cut network."""
        if not rows.shape[2]:  # what else the layer reads is left
            return self._mean_fold(reader, kept)
        weights, cut = _each(rows, self.weights), _flat(rows)
        cut_means = weights @ cut
        roots = np.sqrt(weights)[:, None]
        cut -= cut_means
        cut *= roots
        within = (cut.T @ cut).astype(np.float64)
        cut *= roots  # the base's rows need no weights then, nor another mean
        between = (_flat(self._rows[reader]).T @ cut).astype(np.float64)
        stays = np.flatnonzero(np.isin(reader.units, kept))
        between[stays] -= within
        scale = float(np.mean(np.diag(within)))
        if scale <= 0.0:
            corrections = np.zeros_like(between)
        else:
            within[np.diag_indices_from(within)] += RIDGE * scale
            corrections = np.linalg.solve(within, between.T).T.astype(np.float64)
        offsets = self._means(reader) + self._centres[reader] - corrections @ cut_means
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


def _flat(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return rows `(images, pixels, units)` as `(images * pixels, units)`, the same memory."""
    return rows.reshape(-1, rows.shape[2])


def _each(rows: NDArray[np.float32], weights: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return what each of the flat `rows` counts, `(images * pixels,)`, where images count `weights`."""
    return np.repeat(weights / rows.shape[1], rows.shape[1]).astype(np.float32)
