"""What the device learns from each image that it answers: what the monitor and a cut's probation are fed with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edge_runtime.wire import Manifest

__all__ = ["Observation"]


@dataclass(frozen=True, slots=True)
class Observation:
    """One answered image.

    Attributes
    ----------
    manifest
        Of the model that answered.
    index
        The most probable class, by its place among the model's outputs.
    confidence
        Its probability by the model, 0 to 1.
    seconds
        Time of the inference alone, in s: without decoding, and without waiting for another thread's turn.
    audited
        Whether the base model answered in place of the active cut.
    probabilities
        `(classes,) float32`: of all classes, by the model.
    """

    manifest: Manifest
    index: int
    confidence: float
    seconds: float
    audited: bool
    probabilities: NDArray[np.float32]
