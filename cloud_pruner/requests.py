"""A wish for a cut, checked and brought to the form in which equal wishes are equal."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from cloud_pruner.allocation import OBJECTIVES
from cloud_pruner.errors import RequestError
from cloud_pruner.fold_fitting import FOLDINGS
from cloud_pruner.loss_tests import LOSS_TESTS
from cloud_pruner.methods import method_named
from cloud_pruner.variants import Usage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["DEFAULT_TEST", "GUARANTEES", "WEIGHT_STEP", "PruneRequest", "checked_usage"]

GUARANTEES: Final = ("certified", "empirical")
DEFAULT_TEST: Final = "clopper-pearson"

WEIGHT_STEP: Final = 0.05
"""Weights are rounded to multiples of this, so that users who differ by less share one cut."""


@dataclass(frozen=True, slots=True)
class PruneRequest:
    """What to cut for.

    Attributes
    ----------
    usage
        Class name -> how often it comes up, on any non-negative scale; classes with weight 0 are not the user's.
    variant
        One of `methods.METHODS`.
    epsilon
        Top-1 accuracy that each of the classes may lose, in (0, 1).
    guarantee
        "certified": shown on the certify images, which the search never sees; "empirical": measured on the images of
        the search, as the paper does.
    delta
        Probability, over the certify images, with which a certified cut may lose more all the same; in (0, 1).
    test
        Which test certifies (`loss_tests.LOSS_TESTS`).
    folding
        "none", "mean" or "linear": what becomes of pruned units; None: what the variant does.
    objective
        "size", "macs" or "energy": what variant L makes small.

    Raises
    ------
    RequestError
        A field makes no sense.
    """

    usage: Mapping[str, float]
    variant: str = "L"
    epsilon: float = 0.03
    guarantee: str = "certified"
    delta: float = 0.1
    test: str = DEFAULT_TEST
    folding: str | None = None
    objective: str = "size"

    def __post_init__(self) -> None:
        method_named(self.variant)
        for name, share, meaning in (
            ("epsilon", self.epsilon, "a share of accuracy, between 0 and 1 (0.03 is three points)"),
            ("delta", self.delta, "a probability, between 0 and 1 (0.1 is one in ten)"),
        ):
            if not 0.0 < share < 1.0:
                raise RequestError(f"{name} is {share}: it is {meaning}")
        for name, value, known in (
            ("guarantee", self.guarantee, GUARANTEES),
            ("test", self.test, tuple(LOSS_TESTS)),
            ("folding", self.folding, (None, *FOLDINGS)),
            ("objective", self.objective, OBJECTIVES),
        ):
            if value not in known:
                raise RequestError(f"{name} '{value}' is unknown: choose one of {', '.join(filter(None, known))}")


def checked_usage(usage: Mapping[str, float], classes: Sequence[str], step: float = WEIGHT_STEP) -> Usage:
    """Return the labels of the user's classes, ascending, and their weights, which sum to 1.

    A weight is rounded to the nearest multiple, but not to nothing; then all are divided by their sum.

    Raises
    ------
    RequestError
        No classes, a class that the model does not have, a weight that is negative or no number, or weights that are
        all 0.
    """
    if not usage:
        raise RequestError("no classes: name at least one that the user meets")
    positions = {name: number for number, name in enumerate(classes)}
    for name, weight in usage.items():
        if name not in positions:
            raise RequestError(f"unknown class '{name}': the model knows {_some(classes)}")
        if not math.isfinite(weight) or weight < 0:
            raise RequestError(f"the weight of class '{name}' is {weight}: weights are numbers of 0 or more")
    try:
        total = math.fsum(usage.values())
    except OverflowError:
        raise RequestError("the weights sum to more than there are numbers: write them smaller") from None
    if total <= 0:
        raise RequestError("the weights sum to nothing: at least one class needs a weight above 0")
    whole = {positions[name]: max(1, round(weight / total / step)) for name, weight in usage.items() if weight > 0}
    labels = sorted(whole)
    counts = np.array([whole[label] for label in labels], dtype=np.float64)
    return Usage(np.array(labels, dtype=np.int64), counts / counts.sum())


def _some(classes: Sequence[str]) -> str:
    shown = ", ".join(classes[:5])
    return shown if len(classes) <= 5 else f"{shown}, … ({len(classes)} in all)"
