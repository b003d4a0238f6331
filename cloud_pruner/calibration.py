"""How much too sure a base model is of its answers, which the device corrects before it estimates usage by them.

Temperature scaling: the logarithms of all probabilities are divided by one number, the one that makes the true classes
of images likeliest that the model was not trained on (Guo, Pleiss, Sun and Weinberger, ICML 2017).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["IMAGES_MAX", "logits_of", "temperature"]

IMAGES_MAX: Final = 10_000
"""One number needs no more images; those of 1,000 classes take 40 MB."""

# Between these, in steps of 2 %.
_TEMPERATURES: Final = np.geomspace(0.5, 8.0, 141)
# Devices keep no smaller probabilities apart.
_LEAST: Final = 1e-7


def logits_of(outputs: NDArray[np.float32], *, are_probabilities: bool) -> NDArray[np.float32]:
    """Return a model's outputs as logits, but for a constant of each image."""
    return np.log(np.maximum(outputs, _LEAST)) if are_probabilities else outputs


def temperature(logits: NDArray[np.floating[Any]], labels: NDArray[np.int32]) -> float:
    """Return the temperature, 0.5 to 8, of logits `(images, classes)` of images of classes `labels` `(images,)`."""
    scores = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    of_truth = scores[np.arange(len(scores)), labels]

    def mean_log_likelihood(value: float) -> float:
        return float((of_truth / value - np.log(np.exp(scores / value).sum(axis=1))).mean())

    # It has one peak: halve the way to it.
    low, high = 0, len(_TEMPERATURES) - 1
    while low < high:
        middle = (low + high) // 2
        if mean_log_likelihood(_TEMPERATURES[middle]) < mean_log_likelihood(_TEMPERATURES[middle + 1]):
            low = middle + 1
        else:
            high = middle
    return round(float(_TEMPERATURES[low]), 3)
