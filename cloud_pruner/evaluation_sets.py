"""What an evaluation compares: methods, and the users for whom each of them cuts.

Users are drawn at random: K classes, each set of them equally likely; every other one with equal weights, the others
with weights drawn evenly from all that sum to 1, and rounded as a request's are. Sets depend on the seed, K and their
number alone: all methods meet the same, and asking for more leaves the first ones as they were.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from cloud_pruner.errors import ProfileError, RequestError
from cloud_pruner.methods import METHODS
from cloud_pruner.requests import checked_usage

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cloud_pruner.profile import Profile
    from cloud_pruner.variants import Usage

__all__ = ["OUTSIDE_MAX", "RESTRICTED", "ClassSet", "EvaluationSettings", "class_sets"]

RESTRICTED: Final = "restricted"
"""The method that prunes nothing and compares the outputs of the user's classes alone."""

OUTSIDE_MAX: Final = 500
"""How many images of other classes are looked at for each class set."""


@dataclass(frozen=True, slots=True)
class EvaluationSettings:
    """What is compared.

    Attributes
    ----------
    methods
        Names of `METHODS`, and `RESTRICTED`.
    sizes
        K: how many classes a set has; 1 to all of the model's.
    sets
        Class sets for each K.
    epsilon
        Top-1 accuracy that a class may lose on the *select* images, in (0, 1).
    seed
        Of the class sets, and of the images of other classes.
    """

    methods: tuple[str, ...]
    sizes: tuple[int, ...]
    sets: int = 20
    epsilon: float = 0.03
    seed: int = 0

    def check(self, profile: Profile) -> None:
        """Raise unless this can be evaluated on `profile`.

        Raises
        ------
        RequestError
            A method is unknown, or a number out of range.
        ProfileError
            The profile has no report images.
        """
        known = (*METHODS, RESTRICTED)
        for method in self.methods:
            if method not in known:
                raise RequestError(f"method '{method}' is unknown: choose among {', '.join(known)}")
        for k in self.sizes:
            if not 1 <= k <= len(profile.classes):
                raise RequestError(f"K is {k}: a class set has 1 to {len(profile.classes)} of the model's classes")
        if self.sets < 1:
            raise RequestError(f"{self.sets} class sets: ask for 1 or more (20 give a fair interval)")
        if self.seed < 0:
            raise RequestError(f"the seed is {self.seed}: give a whole number of 0 or more")
        if not 0.0 < self.epsilon < 1.0:
            raise RequestError(
                f"epsilon is {self.epsilon}: it is a share of accuracy, between 0 and 1 (0.03 is three points)"
            )
        if "report" not in profile.splits or not len(profile.splits["report"].labels):
            raise ProfileError(
                f"{profile.folder}: has no report images, on which methods are compared: make the profile again with "
                "'capnn profile ... --report-images N'"
            )


@dataclass(frozen=True, slots=True, eq=False)
class ClassSet:
    """A user to cut for.

    Attributes
    ----------
    number
        0 and up, among the sets of the same K.
    usage
        Classes and weights.
    outside
        `(n,) int64`, ascending: rows of the report split whose images are of other classes; at random at most
        `OUTSIDE_MAX` of them.
    """

    number: int
    usage: Usage
    outside: NDArray[np.int64]


def class_sets(profile: Profile, k: int, settings: EvaluationSettings) -> list[ClassSet]:
    """Draw the class sets of size `k`, and which images of other classes to look at."""
    labels = profile.splits["report"].labels
    drawn = []
    for number in range(settings.sets):
        rng = np.random.default_rng([settings.seed, k, number])
        names = [profile.classes[label] for label in rng.choice(len(profile.classes), k, replace=False)]
        weights = np.ones(k) if number % 2 == 0 else rng.dirichlet(np.ones(k))
        usage = checked_usage(dict(zip(names, weights.tolist(), strict=True)), profile.classes)
        others = np.flatnonzero(~np.isin(labels, usage.labels))
        outside = np.sort(rng.choice(others, min(len(others), OUTSIDE_MAX), replace=False))
        drawn.append(ClassSet(number, usage, outside))
    return drawn
