"""Classifies images with the cut that is active, or with the base model, while either may be replaced at any time."""

from __future__ import annotations

import itertools
import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_runtime.errors import DigestError, EdgeError, InputError, MessageError, ModelFileError
from edge_runtime.interpreter import LoadedModel
from edge_runtime.slots import BASE, ModelSlots, StoredModel

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from edge_runtime.wire import Manifest

__all__ = ["TOP", "EdgeClassifier", "Models", "Prediction", "ServingModel", "load_models"]

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


class ServingModel:
    """A verified model in memory, tried once, and safe for use by several threads (which take turns).

    Parameters
    ----------
    stored
        The verified file and its manifest.
    slot
        Where it is kept: "base", "a" or "b"; None while it is kept nowhere.
    threads
        Threads of the interpreter.

    Raises
    ------
    ModelFileError
        The interpreter refuses the file, it fails on a first image, or its input or outputs are not what its manifest says.
    """

    def __init__(self, stored: StoredModel, slot: str | None = None, *, threads: int = 1) -> None:
        self.manifest = stored.manifest
        self.slot = slot
        name = f"model {stored.manifest.digest[:12]}"
        self._loaded = LoadedModel(stored.content, threads=threads, name=name)
        self._turn = threading.Lock()
        expected = self.manifest.preprocessing.shape
        if self._loaded.input_shape != expected:
            raise ModelFileError(f"{name}: takes {self._loaded.input_shape}, its manifest says {expected}: the cloud sent a wrong pair")
        if self._loaded.input_dtype != np.float32:
            raise ModelFileError(f"{name}: takes {self._loaded.input_dtype} inputs: only models with float32 inputs can be served")
        classes = len(self.manifest.classes)
        if self._loaded.output_shapes[0] != (classes,):
            shape = self._loaded.output_shapes[0]
            raise ModelFileError(f"{name}: has outputs {shape}, its manifest names {classes} classes: the cloud sent a wrong pair")
        self.probabilities(np.zeros(expected, dtype=np.uint8))

    def check_replaces(self, base: ServingModel) -> None:
        """Check that this model can stand in for `base` without a difference to callers.

        Raises
        ------
        ModelFileError
            It was cut from another base, or has other classes or another input.
        """
        mine, its = self.manifest, base.manifest
        for what, ours, theirs in (
            ("base model", mine.base[:12], its.digest[:12]),
            ("classes", mine.classes, its.classes),
            ("input", mine.preprocessing, its.preprocessing),
        ):
            if ours != theirs:
                raise ModelFileError(f"model {mine.digest[:12]}: its {what} is not that of the base model {its.digest[:12]} held here")

    def probabilities(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the probability of each class, `(classes,)` float32, for one image `(height, width, channels)` uint8.

        Raises
        ------
        InputError
            The image has another shape or dtype than the model takes.
        ModelFileError
            The interpreter fails, or gives numbers that are not finite.
        """
        inputs = self.manifest.preprocessing.apply(pixels[np.newaxis])
        with self._turn:
            outputs: NDArray[np.float32] = self._loaded.run(inputs)[0][0]
        if not np.isfinite(outputs).all():
            raise ModelFileError(f"{self._loaded.name}: gives outputs that are not finite numbers")
        if outputs.min() >= 0 and abs(outputs.sum() - 1) < 1e-3:
            return outputs  # the model ends in a softmax of its own
        exponents = np.exp(outputs - outputs.max())
        return np.asarray(exponents / exponents.sum(), dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Models:
    """The models of a device: replaced as a whole, so that a classification never sees half a swap.

    Attributes
    ----------
    base
        The uncut model; None before the first was fetched, or where its file is damaged.
    cut
        The active cut; None while the base serves.
    """

    base: ServingModel | None = None
    cut: ServingModel | None = None

    @property
    def active(self) -> ServingModel | None:
        """The model that answers: the cut, or else the base; None without any."""
        return self.cut or self.base


def load_models(slots: ModelSlots, *, threads: int = 1) -> tuple[Models, list[str]]:
    """Load what `slots` hold: the base, and the best cut that is whole. Also return what was damaged, a line each."""
    damage: list[str] = []

    def load(slot: str, base: ServingModel | None) -> ServingModel | None:
        try:
            stored = slots.read(slot)
            if stored is None:
                return None
            model = ServingModel(stored, slot, threads=threads)
            if base is not None:
                model.check_replaces(base)
        except (DigestError, ModelFileError, MessageError, InputError) as error:
            damage.append(str(error))
            return None
        return model

    base = load(BASE, None)
    cut = next(filter(None, (load(slot, base) for slot in slots.cut_slots())), None)
    return Models(base, cut), damage


class EdgeClassifier:
    """Classifies images; safe for use by several threads, also while `swap` replaces a model.

    Parameters
    ----------
    models
        What to classify with.
    counted
        Called with each class that counts as usage: every prediction while the base serves, the audited ones while a cut does.
        Without it nothing is audited.
    audit_every
        While a cut serves, every so many images the base answers in its place.

    Examples
    --------
    >>> classifier = EdgeClassifier.open(Path("/var/lib/capnn"))  # doctest: +SKIP
    >>> classifier.classify(Path("cat.jpg").read_bytes()).label  # doctest: +SKIP
    'cat'
    """

    def __init__(
        self, models: Models, *, counted: Callable[[str], object] | None = None, audit_every: int = 10
    ) -> None:
        self._models = models
        self._counted = counted
        self._audit_every = audit_every
        # `next` on it is atomic under the interpreter lock, and nothing breaks where two threads should audit the same turn.
        self._turns = itertools.count(1)

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
            raise ModelFileError(f"{state}: holds no verified model ({reason}): fetch one with capnn-edge run --state {state}")
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
                cut.check_replaces(models.base)
            models = replace(models, cut=cut)
        self._models = models

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
        if models.active is None:
            raise ModelFileError("there is no model yet: the base model must be fetched from the cloud first")
        pixels = pixels_for(models.active)
        audited = (
            models.base is not None
            and models.cut is not None
            and self._counted is not None
            and next(self._turns) % self._audit_every == 0
        )
        model = models.base if audited else models.active
        assert model is not None
        prediction = _prediction(model.probabilities(pixels), model.manifest, audited=audited)
        if self._counted is not None and model is models.base:
            self._counted(prediction.label)
        return prediction


def _prediction(probabilities: NDArray[np.float32], manifest: Manifest, *, audited: bool) -> Prediction:
    order = np.argsort(-probabilities, kind="stable")[:TOP]
    top = tuple((manifest.classes[i], float(probabilities[i])) for i in order)
    return Prediction(top[0][0], int(order[0]), top[0][1], top, manifest.digest, audited)
