"""Classifies images with the cut that is active, or with the base model, while either may be replaced at any time."""

from __future__ import annotations

import random
import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_runtime.acceptance import check_replaces
from edge_runtime.errors import ModelFileError
from edge_runtime.observation import Observation
from edge_runtime.serving import Models, ServingModel, load_models
from edge_runtime.slots import ModelSlots

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from edge_runtime.wire import Manifest

__all__ = ["TOP", "EdgeClassifier", "Prediction"]

TOP = 5
"""How many of the most probable classes a prediction lists."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """What an image was taken for.

    Attributes
    ----------
    label, index
        The most probable class, and its place among the model's outputs.
    confidence
        Its probability by the model, 0 to 1.
    top
        The `TOP` most probable classes with their probabilities, best first.
    model
        Digest of the model that answered.
    audited
        Whether the base model answered in place of the active cut, to be counted.
    """

    label: str
    index: int
    confidence: float
    top: tuple[tuple[str, float], ...]
    model: str
    audited: bool

    def to_fields(self) -> dict[str, Any]:
        """Return the fields as plain numbers, strings and lists, fit for JSON."""
        return {
            "class": self.label,
            "index": self.index,
            "confidence": self.confidence,
            "top": [{"class": label, "confidence": confidence} for label, confidence in self.top],
            "model": self.model,
            "audited": self.audited,
        }


class EdgeClassifier:
    """Classifies images; safe for use by several threads, also while `swap` replaces a model.

    Parameters
    ----------
    models
        What to classify with.
    observed
        Called with an `Observation` of each answered image, in the thread that asked. Without it nothing is audited.
    audit_every
        While a cut serves, one in so many images, at a random place among them, is answered by the base; 0 for none.
    failed
        Called with a cut that failed while it ran, and its error, before the base answers that image in its place.

    Examples
    --------
    >>> classifier = EdgeClassifier.open(Path("/var/lib/capnn"))  # doctest: +SKIP
    >>> classifier.classify(Path("cat.jpg").read_bytes()).label  # doctest: +SKIP
    'cat'
    """

    def __init__(
        self,
        models: Models,
        *,
        observed: Callable[[Observation], object] | None = None,
        audit_every: int = 10,
        failed: Callable[[ServingModel, ModelFileError], object] | None = None,
    ) -> None:
        self._models = models
        self._observed = observed
        self._audit_every = audit_every
        self._failed = failed
        self._lock = threading.Lock()
        self._turn = 0
        self._audited_turn = 0

    @classmethod
    def open(cls, state: Path, *, threads: int = 1) -> EdgeClassifier:
        """Make one from a state folder that `capnn-edge run` keeps; it neither counts nor follows later swaps.

        Raises
        ------
        ModelFileError
            There is no verified model in the folder.
        """
        models, damage = load_models(ModelSlots(state), threads=threads)
        if models.active is None:
            reason = "; ".join(damage) or "it is empty"
            raise ModelFileError(
                f"{state}: holds no verified model ({reason}): fetch one with capnn-edge run --state {state}"
            )
        return cls(models)

    @property
    def models(self) -> Models:
        """The models that the next classification will use."""
        return self._models

    def swap(self, *, base: ServingModel | None = None, cut: ServingModel | None = None) -> None:
        """Use another base or another cut from the next classification on; those under way finish on the former.

        A cut of another base than the new one is dropped. Called by one thread at a time.

        Raises
        ------
        ModelFileError
            The cut is not one of the base.
        """
        models = self._models
        if base is not None:
            former = models.cut
            keep = former is not None and former.manifest.base == base.manifest.digest
            models = Models(base, former if keep else None)
        if cut is not None:
            if models.base is not None:
                check_replaces(cut.manifest, models.base.manifest)
            models = replace(models, cut=cut)
        self._models = models

    def drop_cut(self) -> None:
        """Let the base serve from the next classification on, where there is one. Called by the thread that swaps."""
        if self._models.base is not None:
            self._models = Models(self._models.base)

    def classify(self, image: bytes) -> Prediction:
        """Classify a picture: the bytes of a PNG, JPEG, BMP, GIF, WebP or PPM file.

        Raises
        ------
        InputError
            It is no such picture.
        ModelFileError
            There is no model yet, or it fails.
        """
        return self._classify(lambda model: model.manifest.preprocessing.decode(image))

    def classify_pixels(self, pixels: NDArray[np.uint8]) -> Prediction:
        """Classify pixels `(height, width, channels)` uint8 of the model's exact size, in RGB order or grey.

        Raises
        ------
        InputError
            The pixels have another shape or dtype.
        ModelFileError
            There is no model yet, or it fails.
        """
        return self._classify(lambda _: pixels)

    def _classify(self, pixels_for: Callable[[ServingModel], NDArray[np.uint8]]) -> Prediction:
        models = self._models
        model = models.active
        if model is None:
            raise ModelFileError("there is no model yet: the base model must be fetched from the cloud first")
        pixels = pixels_for(model)
        audited = models.base is not None and models.cut is not None and self._audit_is_due()
        if audited and models.base is not None:
            model = models.base
        try:
            probabilities, seconds = model.run(pixels)
        except ModelFileError as error:
            if models.base is None or model is models.base:
                raise
            if self._failed is not None:
                self._failed(model, error)
            model = models.base
            probabilities, seconds = model.run(pixels)
        prediction = _prediction(probabilities, model.manifest, audited=audited)
        if self._observed is not None:
            self._observed(
                Observation(model.manifest, prediction.index, prediction.confidence, seconds, audited, probabilities)
            )
        return prediction

    def _audit_is_due(self) -> bool:
        """Return whether this image is the audited one of its block of `audit_every`, which chance decides.

        A fixed stride would see only one class of a user, or of a camera, whose classes take turns in step with it.
        """
        if self._observed is None or self._audit_every == 0:
            return False
        with self._lock:
            if self._turn % self._audit_every == 0:
                self._turn = 0
                self._audited_turn = random.randrange(self._audit_every)  # noqa: S311 - samples, protects nothing
            self._turn += 1
            return self._turn - 1 == self._audited_turn


def _prediction(probabilities: NDArray[np.float32], manifest: Manifest, *, audited: bool) -> Prediction:
    order = np.argsort(-probabilities, kind="stable")[:TOP]
    top = tuple((manifest.classes[i], float(probabilities[i])) for i in order)
    return Prediction(top[0][0], int(order[0]), top[0][1], top, manifest.digest, audited)
