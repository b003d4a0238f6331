"""A small residual network, really trained on the handwritten digits that come with scikit-learn.

Its stem's map is one group with what an inner branch adds to it, and is read by three layers; a second block halves the
map, with a projection beside it. Made once for all tests of a run.
"""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING

from cloud_pruner.conversion import convert
from tests.support.digits import PREPROCESSING, DigitsNetwork, digit_images
from tests.support.once import made_once

if TYPE_CHECKING:
    from pathlib import Path

    from cloud_pruner.profile import Profile


@functools.cache
def residual_network() -> DigitsNetwork:
    folder, images = made_once("residual", _train), digit_images()
    return DigitsNetwork(folder / "residual.keras", folder / "residual.tflite", images["trained_on"], images["unseen"])


def _train(folder: Path) -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras

    keras.utils.set_random_seed(3)
    layers = keras.layers

    def conv(x, filters, kernel=3, strides=1):
        x = layers.Conv2D(filters, kernel, strides, padding="same", use_bias=False)(x)
        return layers.BatchNormalization(momentum=0.8)(x)  # few steps: the usual 0.99 would lag behind

    inputs = keras.Input((8, 8, 1))
    x = layers.ReLU()(conv(inputs, 12))
    branch = conv(layers.ReLU()(conv(x, 10)), 12)
    x = layers.ReLU()(layers.Add()([x, branch]))
    branch = conv(layers.ReLU()(conv(x, 14, strides=2)), 16)
    x = layers.ReLU()(layers.Add()([branch, conv(x, 16, 1, strides=2)]))
    model = keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))
    trained_on = digit_images()["trained_on"]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-2), loss)
    model.fit(PREPROCESSING.apply(trained_on.pixels), trained_on.labels, batch_size=64, epochs=15, verbose=0)
    model.save(folder / "residual.keras")
    convert(folder / "residual.keras", folder / "residual.tflite", images=trained_on, preprocessing=PREPROCESSING)


@functools.cache
def residual_profile() -> Profile:
    return residual_network().profile("residual-profile")
