"""Tests of "this class loses epsilon or more", from what base and cut get right on the same images.

An image of a class counts X = +1 if the base gets it right and the cut wrong (*newly wrong*), -1 the other way round
(*newly right*), else 0. The true loss is E[X]. Each test gives a p-value for the hypothesis

    E[X] >= epsilon,

which contains "more than epsilon" and its boundary: if it is true then P(p <= u) <= u for every u in [0, 1], for any
number of images, provided that these are independent draws of the class. So a class with p <= delta may be called safe,
and is so wrongly with a probability of at most delta. The test has to be chosen before anybody looks at the counts.

- `binomial` looks at newly wrong images alone;
- `betting` and `clopper-pearson` set newly right images against newly wrong ones.

`edge_runtime.certificate` has the formulas and their sources, because a device computes them too. All p-values fall as
epsilon or the newly right images grow and rise with the newly wrong ones; what is below rests on that.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import Final

from edge_runtime.certificate import P_VALUES

__all__ = [
    "LOSS_TESTS",
    "LossTest",
    "PairedCounts",
    "check_shares",
    "images_needed",
    "largest_newly_wrong",
    "smallest_epsilon",
]

_RESOLUTION: Final = 1e-12


@dataclass(frozen=True, slots=True)
class PairedCounts:
    """What base and cut get right (top 1, over all outputs) of the same images of one class.

    Attributes
    ----------
    images
        How many there are.
    base
        Images that the base gets right.
    newly_wrong
        Images that the base gets right and the cut does not.
    newly_right
        Images that the cut gets right and the base does not.

    Raises
    ------
    ValueError
        The counts contradict each other.
    """

    images: int
    base: int
    newly_wrong: int
    newly_right: int

    def __post_init__(self) -> None:
        if not (0 <= self.newly_wrong <= self.base and 0 <= self.newly_right <= self.images - self.base):
            raise ValueError(f"{self} contradicts itself: both parts must be among the images that they are taken from")

    @property
    def cut(self) -> int:
        """Images that the cut gets right."""
        return self.base - self.newly_wrong + self.newly_right

    @property
    def base_accuracy(self) -> float:
        """Top-1 accuracy of the base on these images, in [0, 1]."""
        return self.base / self.images

    @property
    def accuracy(self) -> float:
        """Top-1 accuracy of the cut on these images, in [0, 1]."""
        return self.cut / self.images

    @property
    def loss(self) -> float:
        """Top-1 accuracy lost on these images; negative where it was gained."""
        return (self.newly_wrong - self.newly_right) / self.images


@dataclass(frozen=True, slots=True)
class LossTest:
    """A test of "this class loses epsilon or more", one of `LOSS_TESTS`."""

    name: str

    def p_value(self, counts: PairedCounts, epsilon: float) -> float:
        """Return the p-value, in [0, 1]; `epsilon` is in (0, 1)."""
        return P_VALUES[self.name](counts.images, counts.newly_wrong, counts.newly_right, epsilon)


LOSS_TESTS: Final[dict[str, LossTest]] = {name: LossTest(name) for name in P_VALUES}


def images_needed(test: LossTest, epsilon: float, delta: float) -> int:
    """Return the smallest number of images with which a class passes that the cut does not touch at all.

    "Not touch": no image newly wrong, none newly right.

    Raises
    ------
    ValueError
        `epsilon` or `delta` is not in (0, 1).
    """
    check_shares(epsilon, delta)

    def passes(images: int) -> bool:
        return test.p_value(PairedCounts(images, images, 0, 0), epsilon) <= delta

    enough = 1
    while not passes(enough):
        enough *= 2
    return bisect_left(range(enough), x=True, key=passes)


def largest_newly_wrong(test: LossTest, images: int, epsilon: float, delta: float) -> int | None:
    """Return with how many newly wrong of `images` a class still passes, none being newly right; None if with none.

    Raises
    ------
    ValueError
        `epsilon` or `delta` is not in (0, 1).
    """
    check_shares(epsilon, delta)

    def fails(newly_wrong: int) -> bool:
        return test.p_value(PairedCounts(images, images, newly_wrong, 0), epsilon) > delta

    failing = bisect_left(range(images + 1), x=True, key=fails)
    return failing - 1 if failing else None


def smallest_epsilon(test: LossTest, counts: PairedCounts, delta: float) -> float:
    """Return the smallest epsilon with which `counts` pass: an upper limit of the true loss, at confidence 1 - delta.

    It is 1 where nothing less passes. For one class and one cut that were chosen without these images this is a
    promise; as what to ask for next it is only a hint, because a request that is chosen after looking needs new images.

    Raises
    ------
    ValueError
        `delta` is not in (0, 1).
    """
    check_shares(delta)
    low, high = 0.0, 1.0
    while high - low > _RESOLUTION:
        middle = (low + high) / 2
        low, high = (low, middle) if test.p_value(counts, middle) <= delta else (middle, high)
    return high


def check_shares(*values: float) -> None:
    """Raise ValueError unless all values, an epsilon or a delta, are in (0, 1)."""
    for value in values:
        if not 0.0 < value < 1.0:
            raise ValueError(
                f"{value} as epsilon or delta: these are shares between 0 and 1 (0.03 is three in a hundred)"
            )
