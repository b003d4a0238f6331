"""Orders of units from other work, to compare with: all through the same search, slicing and measuring.

Each gives every unit of a layer a score; the lowest share q of them goes, q from 0.95 down by 0.05. What is compared is
the order. Schedule, search and the bound on each class's loss are this project's throughout, and nothing is retrained,
so a method that its authors follow by retraining is seen without that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import numpy as np

from cloud_pruner.variants import by_share, sum_by_unit
from edge_runtime.flatmodel import real_values

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from cloud_pruner.profile import LayerProfile, Profile
    from cloud_pruner.variants import Candidate, Usage

    Score: TypeAlias = Callable[[Profile, LayerProfile, Usage], NDArray[np.float64]]

__all__ = [
    "BASELINES",
    "Baseline",
    "activation_rank",
    "average_firing_rate",
    "contribution",
    "filter_norm",
    "random_score",
]


@dataclass(frozen=True, slots=True)
class Baseline:
    """A variant (`variants.Variant`) that prunes the units with the lowest scores.

    Attributes
    ----------
    name, description
        Of the method, and in a few words what goes first.
    score
        Gives the units of a layer their scores, `(units,) float64`; equal ones go in the order of their numbers.
    folding
        What the method does with a pruned unit's mean: "none" drops it, "mean" leaves it to what reads the unit.
    start, step
        First share and decrement.
    """

    name: str
    description: str
    score: Score
    folding: Literal["none", "mean"] = "none"
    start: float = 0.95
    step: float = 0.05

    def candidates(self, profile: Profile, layer: LayerProfile, usage: Usage) -> Iterator[Candidate]:
        """Yield a cut for each share."""
        return by_share(np.argsort(self.score(profile, layer, usage), kind="stable"), self.start, self.step)


def random_score(profile: Profile, layer: LayerProfile, usage: Usage) -> NDArray[np.float64]:  # noqa: ARG001
    """Return chance, the same for every layer of a name and number of units: the floor under all methods."""
    return np.random.default_rng(list(layer.name.encode())).random(layer.units)


def filter_norm(profile: Profile, layer: LayerProfile, usage: Usage) -> NDArray[np.float64]:  # noqa: ARG001
    """Return the sum of the absolute weights of each unit's own filter.

    From Li et al., Pruning filters for efficient ConvNets, ICLR 2017, known to us from memory: filters of the smallest
    L1 norm go. Ours: the norms of all layers that produce a channel group are added, and dense layers are treated like
    convolutions. Where the model's file has batch normalisation folded into the weights, it is part of the filter.
    """
    channels, graph = profile.base.channels, profile.base.graph
    group = channels.groups[layer.group]
    norms = np.zeros(layer.units)
    for number in group.producers:
        weight = graph.constant_behind(graph.operators[number].input(1))
        assert weight is not None, "what has units of its own has constant weights"
        filters = np.abs(real_values(weight)).reshape(weight.shape[0], -1).sum(axis=1)
        np.add.at(norms, channels.axes[weight.index][0] - group.first, filters)
    return norms


def average_firing_rate(profile: Profile, layer: LayerProfile, usage: Usage) -> NDArray[np.float64]:  # noqa: ARG001
    """Return 1 - APoZ: the firing rate over all classes, whoever the user is.

    From Hu et al., Network trimming, arXiv 1607.03250, known to us from memory: units of the largest average percentage
    of zeros (APoZ) go, then the network is trained on; here the order alone is used. Every class counts the same.
    """
    rates: NDArray[np.float64] = layer.firing_rates.mean(axis=1, dtype=np.float64)
    return rates


def activation_rank(profile: Profile, layer: LayerProfile, usage: Usage) -> NDArray[np.float64]:  # noqa: ARG001
    """Return how early a unit is needed by one of the user's classes: minus the activation that stronger units carry.

    After Ma et al., OCAP, Journal of Systems Architecture 142, 2023, of which we know the idea and not the details:
    rank channels by their activation on each image of the user's classes, and keep the union over images and classes
    of those that rank high. A profile has means per class and none per image, so ours is coarser: for each class, the
    fewest units that carry a share s of the class's mean activation, and their union over the user's classes. The score
    is minus the s at which a unit enters the union, so the unions for all s are the kept sets of the schedule. Weights
    of use do not count.
    """
    means = np.maximum(layer.mean_activations[:, usage.labels].astype(np.float64), 0.0)
    order = np.argsort(-means, axis=0, kind="stable")
    descending = np.take_along_axis(means, order, axis=0)
    stronger = np.cumsum(descending, axis=0) - descending
    total = means.sum(axis=0)
    shares = np.divide(stronger, total, out=np.ones_like(means), where=total > 0)
    enters = np.empty_like(means)
    np.put_along_axis(enters, order, shares, axis=0)
    scores: NDArray[np.float64] = -enters.min(axis=1)
    return scores


def contribution(profile: Profile, layer: LayerProfile, usage: Usage) -> NDArray[np.float64]:
    """Return the mean activation for the user's classes times the absolute weights by which it is multiplied.

    After Guo and Potkonjak, Pruning ConvNets online for efficient specialist models, CVPR workshops 2017, of which we
    know the idea and not the details: a model for some of the classes loses the channels that contribute least for
    them, and a lost channel is replaced by its mean (run it with mean folding). This measure of contribution is ours:
    `sum_k w_k E_k[a_n] * ||W_out,n||_1`, summed over all layers that read the unit.
    """
    base = profile.base
    group = base.channels.groups[layer.group]
    reading = np.zeros(layer.units)
    for consumer in group.consumers:
        weights = np.abs(real_values(base.graph.tensors[consumer.weight]))
        totals = weights.reshape(-1, weights.shape[-1]).sum(axis=0, keepdims=True)
        reading += sum_by_unit(totals, base, group, consumer)[0]
    means: NDArray[np.float64] = layer.mean_activations[:, usage.labels].astype(np.float64) @ usage.weights
    return np.abs(means) * reading


BASELINES: Final[dict[str, Baseline]] = {
    baseline.name: baseline
    for baseline in (
        Baseline("random", "any units", random_score),
        Baseline("L1", "units with the smallest filters (Li et al. 2017)", filter_norm),
        Baseline("APoZ", "units that fire least over all classes (Hu et al. 2016)", average_firing_rate),
        Baseline("OCAP", "units that none of the classes activates much", activation_rank),
        Baseline("Guo-Potkonjak", "units that contribute least; their means stay", contribution, folding="mean"),
    )
}
