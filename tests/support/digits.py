"""A small convolutional network, really trained on the handwritten digits that come with scikit-learn."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from sklearn.datasets import load_digits

from cloud_pruner.conversion import convert
from cloud_pruner.images import ImageSet, split_per_class
from cloud_pruner.profile import Profile
from cloud_pruner.profiling import ProfileSettings, build_profile
from edge_runtime.preprocessing import Preprocessing
from tests.support.once import made_once

if TYPE_CHECKING:
    from pathlib import Path

    from typing_extensions import Self

CLASSES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
PREPROCESSING = Preprocessing(8, 8, "grey", scale=1 / 255)


@dataclass(frozen=True)
class DigitsNetwork:
    """The trained network as Keras wrote it and as .tflite, with the images it was trained on and the rest."""

    keras: Path
    tflite: Path
    trained_on: ImageSet
    unseen: ImageSet

    @classmethod
    def in_folder(cls, folder: Path) -> Self:
        images = digit_images()
        return cls(folder / "digits.keras", folder / "digits.tflite", images["trained_on"], images["unseen"])

    def profile(self, name: str) -> Profile:
        """All layers: 90 profile, 40 select, 20 certify and 20 report images a class. Made once a run, as `name`."""

        def make(folder: Path) -> None:
            build_profile(
                self.tflite.read_bytes(),
                self.trained_on,
                PREPROCESSING,
                folder / "profile",
                unseen=self.unseen,
                settings=ProfileSettings(depth=None, images={"select": 40, "certify": 20, "report": 20}),
            )

        return Profile.open(made_once(name, make) / "profile")


def digit_images() -> dict[str, ImageSet]:
    digits = load_digits()
    pixels = np.round(digits.images[..., np.newaxis] * (255 / 16)).astype(np.uint8)
    labels = digits.target.astype(np.int64)
    parts = split_per_class(labels, {"trained_on": 90, "unseen": 80}, CLASSES)
    return {name: ImageSet(pixels[rows], labels[rows], CLASSES) for name, rows in parts.items()}


def train_digits_network(folder: Path) -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras

    keras.utils.set_random_seed(7)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(16, 3, padding="same", activation="relu"),
            layers.Conv2D(24, 3, padding="same", use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.MaxPooling2D(),
            layers.Conv2D(32, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(48, activation="relu"),
            layers.Dense(10),
        ]
    )
    trained_on = digit_images()["trained_on"]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(3e-3), loss)
    model.fit(PREPROCESSING.apply(trained_on.pixels), trained_on.labels, batch_size=64, epochs=25, verbose=0)
    model.save(folder / "digits.keras")
    convert(folder / "digits.keras", folder / "digits.tflite", images=trained_on, preprocessing=PREPROCESSING)
