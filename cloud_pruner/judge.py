"""Counts what a cut gets right on the images of a user's classes, and says early when that is too little."""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from cloud_pruner.loss_tests import PairedCounts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import TypeAlias

    from numpy.typing import NDArray

    from cloud_pruner.profile import Split
    from cloud_pruner.variants import Usage

    _Chunk: TypeAlias = tuple["_Class", NDArray[np.int64]]

__all__ = ["Judge", "losses_allowed", "paired_counts", "standard_error"]

# Fewer images at a time are hardly quicker.
_LEAST: Final = 10
# So many borderline images of each class are run before all that it takes to pass.
_PROBED: Final = 5
# No more classes are taken together once they have so many images.
_TOGETHER: Final = 512


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
    wrong. Which go first is guessed from the margins of the last cuts (`_failed`); the verdict does not depend on it.

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
        # By how much an image's own class led when it was last run; to begin with, only whether the base is right.
        self._margins: NDArray[np.float32] = np.where(split.predictions[self.rows] == self.labels, 1, -1).astype("f4")
        self._classes: list[_Class] = []
        for label in usage.labels.tolist():
            images = np.flatnonzero(self.labels == label)
            right = int((self._margins[images] > 0).sum())
            # At most epsilon is allowed: the smallest number of right answers that is still enough.
            self.needed[label] = right - losses_allowed(epsilon, len(images))
            self._classes.append(_Class(label, images, self.needed[label]))
        # That a class fails is shown with the fewest images where the base is right most often.
        self._classes.sort(key=lambda one: len(one.images) - one.needed)

    @cached_property
    def inputs(self) -> NDArray[np.float32]:
        """`(n, ...) float32`: the images, at the profile's boundary; read when they are first asked for."""
        return np.asarray(self._split.activations[self.rows])

    def failing(self, answers: Callable[[NDArray[Any]], NDArray[np.float32]], inputs: NDArray[Any]) -> int | None:
        """Return a class that loses more than epsilon, or None where there is none.

        `inputs` `(n, ...)` are the images as `answers` takes them (or their numbers, if that is what it takes); it
        gives `(n, classes)` outputs.
        """

        def ask(chunks: list[_Chunk]) -> None:
            images = np.concatenate([chunk for _, chunk in chunks])
            outputs = answers(inputs[images])
            labels = self.labels[images]
            is_right = outputs.argmax(axis=1) == labels
            self._margins[images] = _margins(outputs, labels)
            start = 0
            for one, chunk in chunks:
                one.count(is_right[start : start + len(chunk)])
                start += len(chunk)

        failed = self._failed(ask)
        if failed is None:
            return None
        self._classes.remove(failed)
        self._classes.insert(0, failed)
        return failed.label

    def _failed(self, ask: Callable[[list[_Chunk]], None]) -> _Class | None:
        """Return a class that fails, or None, `ask`ing for as few images as may be.

        The class that failed last goes first. If it passes, a few borderline images of each other class tell which of
        them may fail, and that is followed up; where none looks like it, they all go on together.
        """
        suspect, *others = self._classes
        suspect.begin(self._margins)
        chunk = suspect.riskiest
        while suspect.is_open:
            ask([(suspect, chunk())])
            chunk = suspect.surest if suspect.to_pass <= suspect.to_fail else suspect.riskiest
        if suspect.failed:
            return suspect
        for one in others:
            one.begin(self._margins)
        while others := [one for one in others if one.is_open]:
            shown = [one for one in others if one.is_begun]
            worst = min(shown, key=lambda one: one.spare(self._margins), default=None)
            if worst is not None and worst.spare(self._margins) < 0:
                ask([(worst, worst.riskiest())])
            elif len(shown) < len(others):
                ask(_some((one, one.borderline()) for one in others if not one.is_begun))
            else:
                ask(_some((one, one.surest()) for one in others))
            for one in others:
                if one.failed:
                    return one
        return None


class _Class:
    """The images of one class, and what is still open in one trial of them.

    Attributes
    ----------
    to_pass, to_fail
        How many more right answers, or wrong ones, settle it.
    """

    def __init__(self, label: int, images: NDArray[np.int64], needed: int) -> None:
        self.label, self.images, self.needed = label, images, needed

    def begin(self, margins: NDArray[np.float32]) -> None:
        """Begin a trial: no image was run."""
        self._left = self.images[np.argsort(margins[self.images], kind="stable")]
        self.to_pass, self.to_fail = self.needed, len(self.images) - self.needed + 1

    @property
    def failed(self) -> bool:
        return self.to_fail <= 0

    @property
    def is_begun(self) -> bool:
        return len(self._left) < len(self.images)

    @property
    def is_open(self) -> bool:
        return self.to_pass > 0 and self.to_fail > 0

    def spare(self, margins: NDArray[np.float32]) -> int:
        """Return how many right answers more than needed there will be, if those to come are as they were last."""
        return int((margins[self._left] > 0).sum()) - self.to_pass

    def count(self, is_right: NDArray[np.bool_]) -> None:
        right = int(is_right.sum())
        self.to_pass -= right
        self.to_fail -= len(is_right) - right

    def riskiest(self) -> NDArray[np.int64]:
        """Take the images that are most likely wrong, as many as show that the class fails, if they are."""
        return self._take(0, max(self.to_fail, _LEAST))

    def surest(self) -> NDArray[np.int64]:
        """Take the images that are most likely right, as many as show that the class passes, if they are."""
        return self._take(max(len(self._left) - max(self.to_pass, _LEAST), 0))

    def borderline(self) -> NDArray[np.int64]:
        """Take the least likely of the images that it takes to pass, a few."""
        start = len(self._left) - self.to_pass
        return self._take(start, start + _PROBED)

    def _take(self, start: int, stop: int | None = None) -> NDArray[np.int64]:
        taken = self._left[start:stop]
        self._left = np.concatenate([self._left[:start], self._left[start + len(taken) :]])
        return taken


def _some(chunks: Iterable[_Chunk]) -> list[_Chunk]:
    """Return the first chunks, as many as are run together."""
    taken: list[_Chunk] = []
    images = 0
    for chunk in chunks:
        taken.append(chunk)
        images += len(chunk[1])
        if images >= _TOGETHER:
            break
    return taken


def _margins(outputs: NDArray[np.float32], labels: NDArray[np.int32]) -> NDArray[np.float32]:
    """Return by how much the outputs `(n, classes)` of the images' own classes lead the largest other one, `(n,)`."""
    own = np.arange(len(outputs)), labels
    others = outputs.copy()
    others[own] = -np.inf
    margins: NDArray[np.float32] = outputs[own] - others.max(axis=1)
    return margins


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
