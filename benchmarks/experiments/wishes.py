"""What an experiment wants measured: one cut of one network, by one method, for one user."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import numpy as np

from cloud_pruner.evaluation_sets import RESTRICTED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.experiments.store import Value

__all__ = [
    "CAPTOR",
    "CUTS",
    "LAST_LAYERS",
    "WEIGHTLESS",
    "Guarantee",
    "Wish",
    "class_sets",
    "equal_weights",
    "users",
    "usual_depth",
]

Guarantee: TypeAlias = Literal["empirical", "certified"]
"""What a cut keeps within epsilon on: the images of the search, or, shown with a test, on others."""

CUTS: Final = "cuts"
"""The table that experiments share: what several ask for is measured once."""

LAST_LAYERS: Final = 6
"""The `depth` of CAP'NN: the last six weight layers, of which the output layer is never pruned."""

CAPTOR: Final = "CAPTOR"
"""The method that needs preferences of filters, which the lab finds for it."""

WEIGHTLESS: Final = ("B", "L", CAPTOR, RESTRICTED)
"""Methods that do not look at how often each class comes up: users with the same classes get the same cut."""

_PAPERS: Final = ("B", "W", "M")


@dataclass(frozen=True, slots=True)
class Wish:
    """A cut to measure.

    Attributes
    ----------
    network
        A name of `REFERENCES`, or one that the lab was told of.
    method
        A name of `METHODS`, `RESTRICTED`, or `CAPTOR`.
    classes, weights
        The user: names of classes and how often each comes up, on any scale.
    epsilon
        Top-1 accuracy that each class may lose.
    guarantee
        "empirical": on the images of the search, as CAP'NN; "certified": shown on others (delta 0.1).
    depth
        How many of the last weight layers are pruned (`LAST_LAYERS`); None: all.
    """

    network: str
    method: str
    classes: tuple[str, ...]
    weights: tuple[float, ...]
    epsilon: float = 0.03
    guarantee: Guarantee = "empirical"
    depth: int | None = None

    def __post_init__(self) -> None:
        if not self.classes or len(self.classes) != len(self.weights):
            raise ValueError(f"{len(self.classes)} classes with {len(self.weights)} weights: give one for each")

    @property
    def measured(self) -> Wish:
        """What is measured in its place: one wish for all users that a method gives the same cut."""
        order = sorted(range(len(self.classes)), key=self.classes.__getitem__)
        classes = tuple(self.classes[position] for position in order)
        if self.method in WEIGHTLESS:
            return replace(self, classes=classes, weights=equal_weights(len(classes)))
        total = math.fsum(self.weights)
        return replace(self, classes=classes, weights=tuple(self.weights[position] / total for position in order))

    @property
    def key(self) -> str:
        """What tells it from all others that are measured differently."""
        one = self.measured
        user = ";".join(f"{name}:{weight:.4g}" for name, weight in zip(one.classes, one.weights, strict=True))
        return f"{one.network} {one.method} depth={one.depth} epsilon={one.epsilon:g} {one.guarantee} {user}"

    def fields(self) -> dict[str, Value]:
        """Return what was wished for, as the first fields of its row."""
        one = self.measured
        return {
            "network": one.network,
            "method": one.method,
            "k": len(one.classes),
            "classes": ";".join(one.classes),
            "weights": ";".join(f"{weight:.4g}" for weight in one.weights),
            "epsilon": one.epsilon,
            "guarantee": one.guarantee,
            "depth": one.depth,
        }


def usual_depth(method: str) -> int | None:
    """Return how many layers a method prunes unless an experiment says otherwise: CAP'NN's the last six, ours all."""
    return LAST_LAYERS if method in _PAPERS else None


def equal_weights(k: int) -> tuple[float, ...]:
    """Return `k` weights that sum to 1."""
    return (1.0 / k,) * k


def users(classes: Sequence[str], k: int, count: int, seed: int) -> list[tuple[tuple[str, ...], tuple[float, ...]]]:
    """Draw `count` users of `k` classes: every other one with equal weights, the others with random ones.

    Random weights are drawn evenly from all that sum to 1. No set of classes comes twice before all have come.
    """
    sets = class_sets(classes, k, count, seed)
    drawn = []
    for number in range(count):
        weights = equal_weights(k)
        if number % 2:
            weights = tuple(np.random.default_rng([seed, k, number]).dirichlet(np.ones(k)).tolist())
        drawn.append((sets[number % len(sets)], weights))
    return drawn


def class_sets(classes: Sequence[str], k: int, count: int, seed: int) -> list[tuple[str, ...]]:
    """Draw up to `count` different sets of `k` classes, each equally likely; all of them where there are no more.

    They depend on the classes, `k` and `seed` alone; asking for more leaves the first ones as they were.
    """
    rng = np.random.default_rng([seed, k])
    total = math.comb(len(classes), k)
    if total <= 5000:
        every = list(itertools.combinations(classes, k))
        return [every[position] for position in rng.permutation(total)[:count].tolist()]
    drawn: dict[tuple[str, ...], None] = {}
    while len(drawn) < count:
        chosen = sorted(rng.choice(len(classes), k, replace=False).tolist())
        drawn[tuple(classes[position] for position in chosen)] = None
    return list(drawn)
