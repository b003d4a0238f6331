"""Which classes a filter works for, and which filters work for the same ones.

Both measures become shares of classes, `(filters, classes)` with rows that sum to 1, and the preference is their mean:
the abstract names both and not how they are joined. Where one says nothing of a filter the other counts alone; a filter
that neither says anything of prefers no class, and its row is 0. Filters are clustered by k-means over these rows, into
as many clusters as there are classes, or fewer where fewer filters differ; a cluster's preference is the mean of its
filters'.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from cloud_pruner.errors import ProfileError
from edge_runtime.durable import write_durably

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["FilterPreference", "Preferences", "filter_preference"]

_STARTS: Final = 10
_DECIMALS: Final = 6


@dataclass(frozen=True, slots=True, eq=False)
class FilterPreference:
    """The preferences of one channel group's filters.

    Attributes
    ----------
    filters
        `(filters, classes) float64`: shares of classes, which sum to 1; all 0 for a filter that prefers none.
    clusters
        `(filters,) int64`: the cluster of each filter.
    centres
        `(clusters, classes) float64`: the mean preference of each cluster's filters.
    """

    filters: NDArray[np.float64]
    clusters: NDArray[np.int64]
    centres: NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Preferences:
    """The preferences of all filters of a base model.

    Attributes
    ----------
    base
        The base model's digest.
    groups
        Number of the channel group -> what its filters prefer.
    """

    base: str
    groups: Mapping[int, FilterPreference]

    def save(self, path: Path) -> None:
        """Write them to an `.npz` file."""
        content = io.BytesIO()
        arrays = {f"{number}_{name}": getattr(group, name) for number, group in self.groups.items() for name in _ARRAYS}
        np.savez(content, base=np.array(self.base), **arrays)
        write_durably(path, content.getvalue())

    @classmethod
    def load(cls, path: Path, base: str) -> Preferences:
        """Read what `save` wrote for the base model with this digest.

        Raises
        ------
        ProfileError
            There is no such file, it is damaged, or it is of another model.
        """
        try:
            with np.load(path, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
            measured = str(arrays.pop("base"))
            numbers = sorted({int(name.partition("_")[0]) for name in arrays})
            groups = {n: FilterPreference(*(arrays[f"{n}_{name}"] for name in _ARRAYS)) for n in numbers}
        except (OSError, ValueError, KeyError) as error:
            raise ProfileError(f"{path}: holds no preferences of filters ({error}): measure them again") from error
        if measured != base:
            raise ProfileError(f"{path}: is of model {measured[:12]}…, not of {base[:12]}…: measure that model")
        return cls(base, groups)


_ARRAYS: Final = ("filters", "clusters", "centres")


def filter_preference(gradients: NDArray[np.float64], pictures: NDArray[np.float64]) -> FilterPreference:
    """Join the two measures of one group's filters, and cluster the filters.

    Parameters
    ----------
    gradients
        `(filters, classes)`, none negative: how much a class's output reacts to the filter on images of that class.
        Classes are brought to the same scale first (each column's sum), then each filter's row to shares: a class
        whose output is steep everywhere is not everyone's favourite.
    pictures
        `(filters, classes)`, rows that sum to 1: the network's answer to the picture that the filter reacts to most;
        all 0 where it reacts to none.

    Raises
    ------
    ValueError
        The two are of different shapes, or empty.
    """
    # It takes seconds to import: who merely loads preferences does without.
    from sklearn.cluster import KMeans  # noqa: PLC0415
    from threadpoolctl import threadpool_limits  # noqa: PLC0415

    if gradients.shape != pictures.shape or not gradients.size:
        raise ValueError(f"measures of shapes {gradients.shape} and {pictures.shape} are not of the same filters")
    measures = np.stack([_shares(_shares(gradients.T).T), pictures])
    filters = measures.sum(axis=0) / np.maximum(measures.any(axis=2).sum(axis=0), 1)[:, np.newaxis]
    rows = np.round(filters, _DECIMALS)
    count = min(filters.shape[1], len(np.unique(rows, axis=0)))
    with threadpool_limits(1):  # with more, the order of additions varies, and so do the last bits
        clusters = KMeans(count, n_init=_STARTS, random_state=0).fit(rows).labels_.astype(np.int64)
    centres = np.stack([filters[clusters == number].mean(axis=0) for number in range(count)])
    return FilterPreference(filters, clusters, centres)


def _shares(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return each row as shares of its sum; 0 where that is 0."""
    sums = values.sum(axis=1, keepdims=True)
    shares: NDArray[np.float64] = np.divide(values, sums, out=np.zeros(values.shape), where=sums > 0)
    return shares
