"""The class clusters that requests are compared by: a profile's own, others of its firing rates, or made-up ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from cloud_pruner.progress import no_progress

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from cloud_pruner.profile import Profile
    from cloud_pruner.progress import Progress

__all__ = ["OWN", "Clustering", "cluster_numbers", "made_up_rates", "of_profile", "with_numbers"]

OWN: Final = "elbow"
"""Name of the clustering whose number of clusters is each layer's own."""

_STARTS: Final = 10  # of k-means
_LATENT: Final = 8  # what classes have in common in all layers, in the made-up rates
_UNITS: Final = 64
_LAYERS: Final = 5
_NOISE: Final = 0.5  # what only one layer sees, relative to that


@dataclass(frozen=True, eq=False)
class Clustering:
    """Class clusters of each layer.

    Attributes
    ----------
    name
        "elbow", or how many clusters each layer has.
    layers
        `(classes,) int16` each: the cluster of each class.
    """

    name: str
    layers: tuple[NDArray[np.int16], ...]

    @property
    def counts(self) -> list[int]:
        """How many clusters each layer has."""
        return [len(np.unique(layer)) for layer in self.layers]


def of_profile(profile: Profile) -> Clustering:
    """Return the clusters that the profile keeps, whose number is each layer's elbow."""
    return Clustering(OWN, tuple(np.asarray(layer.clusters) for layer in profile.layers))


def with_numbers(
    rates: Sequence[NDArray[np.float32]], numbers: Sequence[int], progress: Progress = no_progress
) -> list[Clustering]:
    """Group the classes of every layer into `numbers` clusters each, by k-means on their columns of firing rates.

    Parameters
    ----------
    rates
        `(units, classes)` of each layer.
    numbers
        How many clusters; a layer with fewer different classes has a cluster for each.
    progress
        Called with the number of clusters, layers done and layers in all.
    """
    from sklearn.cluster import KMeans  # noqa: PLC0415 - seconds to import
    from threadpoolctl import threadpool_limits  # noqa: PLC0415 - likewise

    found: list[Clustering] = []
    total = len(numbers) * len(rates)
    for number in numbers:
        layers: list[NDArray[np.int16]] = []
        for layer in rates:
            progress(f"{number} clusters", len(found) * len(rates) + len(layers), total)
            columns = layer.T.astype(np.float64)
            k = min(number, len({column.tobytes() for column in columns}))
            with threadpool_limits(1):
                labels = KMeans(k, n_init=_STARTS, random_state=0).fit(columns).labels_
            layers.append(labels.astype(np.int16))
        found.append(Clustering(str(number), tuple(layers)))
    return found


def cluster_numbers(classes: int) -> tuple[int, ...]:
    """Return the numbers of clusters to compare, from 2 to one for each class."""
    return (*(number for number in (2, 4, 8, 16, 32, 64) if number < classes), classes)


def made_up_rates(classes: int, seed: int = 0) -> list[NDArray[np.float32]]:
    """Return firing rates of a network that there is not, `(units, classes) float32` for each layer.

    Each class has a few properties, at random; each layer's units fire by a random mixture of them and of what this
    layer alone tells of the class. So layers group classes similarly, but not alike.
    """
    rng = np.random.default_rng([seed, 2])
    common = rng.normal(size=(_LATENT, classes))
    rates = []
    for _ in range(_LAYERS):
        seen = common + _NOISE * rng.normal(size=common.shape)
        strengths = rng.normal(size=(_UNITS, _LATENT)) @ seen / np.sqrt(_LATENT)
        rates.append((1 / (1 + np.exp(-strengths))).astype(np.float32))
    return rates
