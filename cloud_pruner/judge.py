"""Counts what a cut gets right on the images of a user's classes, and says early when that is too little."""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from cloud_pruner.loss_tests import PairedCounts

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from cloud_pruner.profile import Split
    from cloud_pruner.variants import Usage

__all__ = ["Judge", "losses_allowed", "paired_counts", "standard_error"]

# Fewer images at a time are hardly quicker.
_LEAST: Final = 8
# Of the images that would settle it so many are run, as not all answers are as expected.
_SPARE: Final = 1.2


def losses_allowed(epsilon: float, images: int) -> int:
    """Return how many right answers a class may lose, of so many images."""
    return int(epsilon * images + 1e-9)


def standard_error(epsilon: float, images: int) -> float:
    """Return the standard error of a loss of `epsilon`, measured on so many images of a class.

    Lost answers are counted like events that are rare and independent: of n images epsilon n, give or take its root.
    """
    return math.sqrt(epsilon / images)


class Judge:
    """Says whether a cut loses at most epsilon in each class, on the images of one split.

    Class i loses `(base's right answers - cut's right answers) / images`. What is judged is what all images would say,
    but most images need not be run: a class passes as soon as enough are right, and fails as soon as too many are
    wrong. So the class that failed last goes first, with the images that were wrong last; the others start with the
    images that were right last.

    Attributes
    ----------
    labels
        `(n,) int32`: the images' classes.
    rows
        `(n,) int64`: where they stand in the split.
    needed
        Class -> how many right answers are just enough.
    """

    def __init__(self, split: Split, usage: Usage, epsilon: float) -> None:
        rows = [split.rows(label) for label in usage.labels.tolist()]
        self._split = split
        self.rows: NDArray[np.int64] = np.concatenate([np.arange(r.start, r.stop) for r in rows])
        self.labels: NDArray[np.int32] = split.labels[self.rows]
        self.needed: dict[int, int] = {}
        self._classes: list[_Class] = []
        end = 0
        for label, r in zip(usage.labels.tolist(), rows, strict=True):
            begin, end = end, end + r.stop - r.start
            right = int((split.predictions[r] == label).sum())
            # At most epsilon is allowed: the smallest number of right answers that is still enough.
            self.needed[label] = right - losses_allowed(epsilon, end - begin)
            base_wrong_first = np.argsort(split.predictions[r] == label, kind="stable")
            self._classes.append(_Class(label, begin + base_wrong_first, self.needed[label]))
        # That a class fails is shown with the fewest images where the base is right most often.
        self._classes.sort(key=lambda one: one.wrong_to_fail)

    @cached_property
    def inputs(self) -> NDArray[np.float32]:
        """`(n, ...) float32`: the images, at the profile's boundary; read when they are first asked for."""
        return np.asarray(self._split.activations[self.rows])

    def failing(self, answers: Callable[[NDArray[Any]], NDArray[np.float32]], inputs: NDArray[Any]) -> int | None:
        """Return a class that loses more than epsilon, or None where there is none.

        `inputs` `(n, ...)` are the images as `answers` takes them (or their numbers, if that is what it takes); it
        gives `(n, classes)` outputs.
        """
        for position, one in enumerate(self._classes):
            if not one.passes(answers, inputs, likely=position > 0):
                self._classes.insert(0, self._classes.pop(position))
                return one.label
        return None


class _Class:
    """The images of one class: those that were wrong last, those that were not run, those that were right last."""

    def __init__(self, label: int, order: NDArray[np.int64], needed: int) -> None:
        self.label, self.images, self._needed = label, order, needed
        self.wrong_to_fail = len(order) - needed + 1

    def passes(
        self, answers: Callable[[NDArray[Any]], NDArray[np.float32]], inputs: NDArray[Any], *, likely: bool
    ) -> bool:
        right, wrong = self.images[:0], self.images[:0]
        left = self.images
        while (to_pass := self._needed - len(right)) > 0 and (to_fail := self.wrong_to_fail - len(wrong)) > 0:
            count = max(math.ceil(_SPARE * (to_pass if likely else to_fail)), _LEAST)
            chunk, left = (left[-count:], left[:-count]) if likely else (left[:count], left[count:])
            is_right = answers(inputs[chunk]).argmax(axis=1) == self.label
            right, wrong = np.concatenate([chunk[is_right], right]), np.concatenate([wrong, chunk[~is_right]])
            likely = self._needed - len(right) <= self.wrong_to_fail - len(wrong)
        self.images = np.concatenate([wrong, left, right])
        return len(right) >= self._needed


def paired_counts(
    split: Split, usage: Usage, answers: Callable[[NDArray[np.float32]], NDArray[np.float32]] | None
) -> dict[int, PairedCounts]:
    """Count, for each class of `usage`, what base and cut get right of all its images in `split`.

    `answers` gives the cut's outputs `(n, classes)` for activations at the profile's boundary; None: as the base.
    """
    counts = {}
    for label in usage.labels.tolist():
        rows = split.rows(label)
        base = np.asarray(split.predictions[rows] == label)
        cut = base if answers is None else answers(split.activations[rows]).argmax(axis=1) == label
        counts[label] = PairedCounts(
            images=len(base),
            base=int(base.sum()),
            newly_wrong=int((base & ~cut).sum()),
            newly_right=int((~base & cut).sum()),
        )
    return counts
