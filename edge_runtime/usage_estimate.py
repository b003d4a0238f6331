"""How often each class comes up, estimated from what a model makes of the images that it was shown.

The rules are Saerens, Latinne and Decaestecker's (Neural Computation 14, 2002), for classes whose images look as they
did when the model was trained, but come up more or less often: the likelihood of an image, given a class, is the
probability that the model gives the class, over the share that the class had then (here the same for all), and
expectation maximisation finds the shares under which what was seen is likeliest. That takes probabilities that are
right as such; those of networks are too high or too low, and become so with a temperature (`Manifest.temperature`).

Two things are our own. Users meet few of a model's classes, so that a class is in use only where the evidence calls for
it: classes are added one by one while the likelihood rises by enough. And answers are kept as one byte a class.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

__all__ = ["EVIDENCE", "UsageEstimate", "estimate", "likelihoods", "packed", "shares"]

EVIDENCE: Final = 8.0
"""By how much the logarithm of the likelihood must rise for another class to be in use."""

# A byte holds a probability's logarithm in steps of 1/16, down to exp(-15.9).
_STEPS: Final = 16.0
# No image is evidence against a class beyond this: a network can be sure and wrong.
_LEAST: Final = 1e-5
_ITERATIONS: Final = 200
_CONVERGED: Final = 1e-5
# Shares that another class is tried at, and how many classes are, of those that promise most.
_TRIED: Final = (0.01, 0.02, 0.04, 0.07, 0.1, 0.15, 0.2, 0.3, 0.45)
_CANDIDATES: Final = 12
_CLASSES_MAX: Final = 64


def packed(probabilities: NDArray[np.float32]) -> bytes:
    """Return an answer, `(classes,)` probabilities, as one byte a class."""
    with np.errstate(divide="ignore"):
        whole = np.log(probabilities) * -_STEPS
    return np.minimum(whole + 0.5, 255.0).astype(np.uint8).tobytes()


def likelihoods(answers: Sequence[bytes], temperature: float) -> NDArray[np.float64]:
    """Return how likely each image is for each class, `(images, classes)`, up to a factor for each image.

    `answers` are `packed`; `temperature` is what their logarithms are divided by.
    """
    stored = np.frombuffer(b"".join(answers), dtype=np.uint8).reshape(len(answers), -1)
    values = np.exp(stored * (-1.0 / (_STEPS * temperature)))
    seen: NDArray[np.float64] = np.maximum(values / values.sum(axis=1, keepdims=True), _LEAST)
    return seen


def shares(seen: NDArray[np.float64], start: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
    """Return the shares of classes, `(classes,)`, under which images of likelihoods `(images, classes)` are likeliest.

    By expectation maximisation from `start`, or from equal shares: the likelihood rises with each step.
    """
    found = np.full(seen.shape[1], 1.0 / seen.shape[1]) if start is None else start
    for _ in range(_ITERATIONS):
        former = found
        found = found * (seen.T @ (1.0 / (seen @ found))) / len(seen)
        if np.abs(found - former).max() < _CONVERGED:
            break
    return found


@dataclass(frozen=True, slots=True, eq=False)
class UsageEstimate:
    """The classes that are in use.

    Attributes
    ----------
    labels
        `(classes,)`: the classes that were taken for in use, in any order; of some the share may be next to nothing.
    shares
        `(classes,)`: what each comes to of all images; they sum to 1.
    """

    labels: tuple[int, ...]
    shares: NDArray[np.float64]

    def share(self, label: int) -> float:
        """Return a class's share, 0 where it is not in use."""
        return float(self.shares[self.labels.index(label)]) if label in self.labels else 0.0

    def evidence_against(self, seen: NDArray[np.float64], label: int, share: float) -> float:
        """Return how much likelier, in logarithms, these shares make what was seen than `share` for class `label`.

        The class's share is below `share`, and the others keep their proportions.
        """
        number = self.labels.index(label)
        of_class = seen[:, label]
        now = seen[:, self.labels] @ self.shares
        others = (now - self.shares[number] * of_class) / max(1.0 - self.shares[number], _LEAST)
        return float(np.log(now).sum() - np.log((1.0 - share) * others + share * of_class).sum())


def estimate(seen: NDArray[np.float64], start: Iterable[int] = (), evidence: float = EVIDENCE) -> UsageEstimate:
    """Estimate which classes are in use, and how much, from likelihoods `(images, classes)` of at least one image.

    `start` are classes that are taken for in use without evidence; without any, the likeliest single class is.
    """
    labels = list(start) or [int(np.log(seen).sum(axis=0).argmax())]
    found = shares(seen[:, labels])
    while len(labels) < min(_CLASSES_MAX, seen.shape[1]):
        ratios = seen / (seen[:, labels] @ found)[:, np.newaxis]
        promise = ratios.sum(axis=0)
        promise[labels] = -np.inf
        candidates = np.argsort(-promise)[:_CANDIDATES]
        candidates = candidates[np.isfinite(promise[candidates])]
        of_these = ratios[:, candidates] - 1.0
        gains = np.array([np.log1p(share * of_these).sum(axis=0) for share in _TRIED]).max(axis=0)
        if gains.max() < evidence:
            break
        labels.append(int(candidates[gains.argmax()]))
        found = shares(seen[:, labels])
    return UsageEstimate(tuple(labels), found)
