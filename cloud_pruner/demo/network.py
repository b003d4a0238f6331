"""The demo's images and network: scikit-learn's handwritten digits, and a small VGG-style classifier of them."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from sklearn.datasets import load_digits

from cloud_pruner.conversion import convert
from cloud_pruner.images import ImageSet, split_per_class
from cloud_pruner.profiling import ProfileSettings, build_profile
from edge_runtime.preprocessing import Preprocessing

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from cloud_pruner.profile import Profile
    from cloud_pruner.progress import Progress

__all__ = ["DEPTH", "IMAGES", "PREPROCESSING", "DigitImages", "load_images", "make_profile", "train"]

IMAGES: Final = {"train": 36, "select": 66, "certify": 4}
"""Images of each class for each purpose; those that are left, 68 to 77 of a class, are for the report.

Few to train on, so that there are many to measure with. 66 to select on: at an epsilon of 3 % a class may lose one.
"""

DEPTH: Final = 3
"""How many of the last weight layers the cuts look at: the two hidden dense layers, which as in VGG-16 hold most of the
parameters, and the output layer, which is never cut.

They are wide for ten digits, so that even the most daring cut of a layer, to a twentieth, keeps units to spare. In
narrow layers the search ends where 66 images just do not show a loss, and others then do: of 30 sets of classes, 1.4 %
of cuts lost more than 3 points on unseen images, with these layers none.
"""

PREPROCESSING: Final = Preprocessing(8, 8, "grey", mean=(0.3,), std=(0.4,))

_EPOCHS: Final = 6
_BATCH: Final = 32
_LEARNING_RATE: Final = 1e-3
_THREADS: Final = 2
_SHIFTS: Final = ((1, 1), (0, 1), (2, 1), (1, 0), (1, 2))
"""Where to cut an image out of itself with a border of one pixel: as it is, and moved by one pixel each way."""


@dataclass(frozen=True, slots=True)
class DigitImages:
    """Disjoint sets of images.

    Attributes
    ----------
    train
        What the network is trained on and the profile's statistics come from.
    held_out
        What cuts are selected and certified on, in that order class by class; users show these to their devices, too.
    report
        What nothing but the report's accuracy is computed from.
    """

    train: ImageSet
    held_out: ImageSet
    report: ImageSet


def load_images(seed: int) -> DigitImages:
    """Load the 1797 digits that come with scikit-learn, 8 x 8 grey pixels, and split them at random."""
    digits = load_digits()
    order = np.random.default_rng(seed).permutation(len(digits.target))
    pixels = np.rint(digits.images[order] * (255 / 16)).astype(np.uint8)[..., np.newaxis]  # the scans go from 0 to 16
    labels = digits.target[order].astype(np.int64)
    held_out = IMAGES["select"] + IMAGES["certify"]
    parts = split_per_class(labels, {"train": IMAGES["train"], "held out": held_out})
    rest = np.setdiff1d(np.arange(len(labels)), np.concatenate(list(parts.values())))
    classes = tuple(str(digit) for digit in range(10))

    def images(rows: NDArray[np.int64]) -> ImageSet:
        return ImageSet(pixels[rows], labels[rows], classes)

    return DigitImages(images(parts["train"]), images(parts["held out"]), images(rest))


def train(images: ImageSet, path: Path, seed: int, progress: Progress) -> None:
    """Train a network on `images` and save it as `path`, a `.keras` file; `progress` is called after each epoch."""
    import keras  # noqa: PLC0415 - seconds to import
    import tensorflow as tf  # noqa: PLC0415 - likewise

    # More threads do not help so small a network. TensorFlow refuses where it is already running in this process.
    with contextlib.suppress(RuntimeError):
        tf.config.threading.set_intra_op_parallelism_threads(_THREADS)
    keras.utils.set_random_seed(seed)
    model = _network(keras, len(images.classes))
    steps = _EPOCHS * -(-len(_SHIFTS) * len(images.labels) // _BATCH)
    rate = keras.optimizers.schedules.CosineDecay(_LEARNING_RATE, steps)
    model.compile(keras.optimizers.Adam(rate), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    after_epoch = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, _logs: progress("epochs", epoch + 1, _EPOCHS)
    )
    shifted = _with_shifts(images)
    inputs = PREPROCESSING.apply(shifted.pixels)
    model.fit(inputs, shifted.labels, batch_size=_BATCH, epochs=_EPOCHS, verbose=0, callbacks=[after_epoch])
    model.save(path)


def _with_shifts(images: ImageSet) -> ImageSet:
    """Return the images, and each of them moved by one pixel up, down, left and right."""
    height, width = images.pixels.shape[1:3]
    padded = np.pad(images.pixels, ((0, 0), (1, 1), (1, 1), (0, 0)))
    moved = [padded[:, top : top + height, left : left + width] for top, left in _SHIFTS]
    return ImageSet(np.concatenate(moved), np.tile(images.labels, len(_SHIFTS)), images.classes)


def _network(keras: Any, classes: int) -> Any:
    layers = keras.layers

    def convolution(filters: int) -> list[Any]:
        # The usual momentum of 0.99 is for longer training: the averages would still lag behind at its end.
        return [
            layers.Conv2D(filters, 3, padding="same"),
            layers.BatchNormalization(momentum=0.9),
            layers.ReLU(),
        ]

    def dense(units: int) -> list[Any]:
        return [layers.Dense(units, activation="relu"), layers.Dropout(0.5)]

    return keras.Sequential(
        [
            keras.Input(PREPROCESSING.shape),
            *convolution(24),
            *convolution(24),
            layers.MaxPooling2D(),
            *convolution(48),
            *convolution(48),
            layers.MaxPooling2D(),
            layers.Flatten(),
            *dense(512),
            *dense(512),
            layers.Dense(classes),
        ],
        name="digits",
    )


def make_profile(trained: Path, images: DigitImages, folder: Path, progress: Progress) -> Profile:
    """Convert the trained network and profile it, into `folder`."""
    base = folder / "base.tflite"
    convert(trained, base, images=images.train, preprocessing=PREPROCESSING)
    counts: dict[str, int | None] = {
        "profile": len(_SHIFTS) * IMAGES["train"],
        "select": IMAGES["select"],
        "certify": IMAGES["certify"],
    }
    return build_profile(
        base.read_bytes(),
        _with_shifts(images.train),
        PREPROCESSING,
        folder / "profile",
        unseen=images.held_out,
        settings=ProfileSettings(DEPTH, counts),
        progress=progress,
        name=base.name,
    )
