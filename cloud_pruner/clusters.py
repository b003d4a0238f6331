"""Class clusters: which classes fire a layer's units alike.

Requests whose classes lie in the same clusters of a layer probably prune it alike; the cache looks for such near hits.
A layer's classes are grouped by k-means over their columns of firing rates, in float64, once for each k from 1 up. The
number of clusters is the elbow of the inertia curve, as kneedle has it: the point farthest from the chord between the
curve's ends (Satopaa et al., "Finding a 'kneedle' in a haystack", ICDCS workshops 2011). Both are seeded, and
run on one thread: the same rates give the same clusters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["MOST_CLUSTERS", "ClassClusters", "cluster_classes", "elbow"]

MOST_CLUSTERS: Final = 32
_STARTS: Final = 20
_DECIMALS: Final = 4  # far finer than what some hundred images can tell of a rate
_STRAIGHT: Final = 1e-9  # of the first inertia: a curve that bends less is a line and rounding errors


@dataclass(frozen=True, slots=True, eq=False)
class ClassClusters:
    """The clusters of one layer's classes.

    Attributes
    ----------
    labels
        `(classes,) int16`: the cluster of each class, numbered from 0 in the order of their first classes.
    inertia
        `(most,) float64`: for 1, 2, ... clusters the sum of the classes' squared distances from the means of their
        clusters. It ends at `MOST_CLUSTERS`, or where every class that differs from others is alone.
    """

    labels: NDArray[np.int16]
    inertia: NDArray[np.float64]


def cluster_classes(firing_rates: NDArray[np.float32], *, most: int = MOST_CLUSTERS, seed: int = 0) -> ClassClusters:
    """Group classes by their columns of `firing_rates`, `(units, classes) float32`, into at most `most` clusters.

    Raises
    ------
    ValueError
        There is no class, a rate is NaN or infinite, or `most` is below 1.
    """
    # It takes seconds to import, and is large: who merely opens a profile does without.
    from sklearn.cluster import KMeans  # noqa: PLC0415
    from threadpoolctl import threadpool_limits  # noqa: PLC0415

    if most < 1 or not firing_rates.shape[1] or not np.isfinite(firing_rates).all():
        raise ValueError(f"cannot group the classes of rates of shape {firing_rates.shape} into up to {most} clusters")
    columns = np.round(firing_rates.T.astype(np.float64), _DECIMALS)
    distinct = len(np.unique(columns, axis=0))
    with threadpool_limits(1):  # with more, the order of additions varies, and so do the last bits
        fits = [KMeans(k, n_init=_STARTS, random_state=seed).fit(columns) for k in range(1, min(distinct, most) + 1)]
    inertia = np.array([fit.inertia_ for fit in fits], np.float64)
    return ClassClusters(_by_first_class(fits[elbow(inertia) - 1].labels_), inertia)


def elbow(inertia: NDArray[np.float64]) -> int:
    """Return the number of clusters at which the curve `inertia`, of 1, 2, ... clusters, lies farthest below its chord.

    Where nothing lies below it, each cluster is worth as much as the one before: there is no place to stop, and the
    answer is the last number. So it is for two classes that differ.
    """
    # Distances from one line are to each other as they are along an axis, whatever the scale of the axes.
    below = np.linspace(inertia[0], inertia[-1], len(inertia)) - inertia
    return int(below.argmax()) + 1 if below.max() > _STRAIGHT * inertia[0] else len(inertia)


def _by_first_class(labels: NDArray[np.int32]) -> NDArray[np.int16]:
    """Return the same clusters, numbered in the order of their first classes."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    numbers: NDArray[np.int16] = first.argsort().argsort().astype(np.int16)[inverse]
    return numbers
