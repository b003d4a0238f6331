"""Tiny real models, and pictures for them.

The network looks at the four quarters of an 8x8 grey picture and names the brightest. A cut is the same network with a
handicap on the classes that it was not made for: like a real cut, it takes their pictures for one of its own.
"""

from __future__ import annotations

import contextlib
import io
import os
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from edge_runtime.certificate import Certificate, ClassEvidence, binomial
from edge_runtime.digests import digest_of
from edge_runtime.preprocessing import Preprocessing
from edge_runtime.self_test import expected_answer, self_test_images
from edge_runtime.serving import ServingModel
from edge_runtime.slots import StoredModel
from edge_runtime.wire import ClassFigures, Manifest, PlanFile, SelfTest

if TYPE_CHECKING:
    from collections.abc import Iterator

CLASSES = ("north-west", "north-east", "south-west", "south-east")
WEST = ("north-west", "south-west")
EAST = ("north-east", "south-east")
GREY_8x8 = Preprocessing(height=8, width=8, channels="grey")
SEED = 11


def picture(label: str, kind: str = "PNG") -> bytes:
    """Return a picture whose quarter `label` is bright."""
    file = io.BytesIO()
    Image.fromarray(pixels(label)[..., 0]).save(file, kind)
    return file.getvalue()


def pixels(label: str) -> np.ndarray:
    row, column = divmod(CLASSES.index(label), 2)
    image = np.full((8, 8, 1), 20, dtype=np.uint8)
    image[4 * row : 4 * row + 4, 4 * column : 4 * column + 4] = 220
    return image


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Lead file descriptors 1 and 2 nowhere: the converter prints about 90 lines that nothing else stops."""
    saved = [os.dup(1), os.dup(2)]
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        yield
    finally:
        for descriptor, copy in enumerate(saved, start=1):
            os.dup2(copy, descriptor)
            os.close(copy)
        os.close(nowhere)


def tflite_file(
    known: tuple[str, ...], *, softmax: bool = True, dtype: str = "float32", quantized: bool = False
) -> bytes:
    """Convert the network that is good at the classes `known`; `quantized`: to int8, inputs and outputs too."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    with _quiet():
        import tensorflow as tf
        from tensorflow import keras

        inputs = keras.Input(batch_shape=(1, 8, 8, 1), dtype=dtype)
        x = keras.layers.Rescaling(1.0)(inputs)
        x = keras.layers.Conv2D(2, 3, padding="same", activation="relu", name="conv")(x)
        x = keras.layers.AveragePooling2D(4)(x)
        x = keras.layers.Flatten()(x)
        model = keras.Model(
            inputs, keras.layers.Dense(len(CLASSES), activation="softmax" if softmax else None, name="head")(x)
        )
        kernel = np.zeros((3, 3, 1, 2), dtype=np.float32)
        kernel[1, 1, 0, :] = 1, 0.5
        model.get_layer("conv").set_weights([kernel, np.zeros(2, dtype=np.float32)])
        weights = np.zeros((8, len(CLASSES)), dtype=np.float32)
        bias = np.full(len(CLASSES), -20.0, dtype=np.float32)
        for index, label in enumerate(CLASSES):
            weights[2 * index : 2 * index + 2, index] = 6, 3
            bias[index] = 0 if label in known else -20
        model.get_layer("head").set_weights([weights, bias])
        converter = tf.lite.TFLiteConverter.from_keras_model(model)
        if quantized:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            pictures = [GREY_8x8.apply(pixels(label)[np.newaxis]) for label in CLASSES]
            converter.representative_dataset = lambda: ([picture] for picture in pictures)
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            converter.inference_input_type = converter.inference_output_type = tf.int8
        return bytes(converter.convert())


def describe(
    content: bytes | memoryview,
    *,
    base: bytes | memoryview | None = None,
    usage: dict[str, float] | None = None,
    plan: bytes | None = None,
) -> StoredModel:
    """Return the model with a manifest, as the cloud would make it: a cut of `base`, or a base model.

    It is not signed, which comes with each answer; `measured` and `certified` add what comes from running it.
    """
    content = bytes(content)
    manifest = Manifest(
        digest=digest_of(content),
        bytes=len(content),
        base=digest_of(content if base is None else base),
        profile="p" * 64,
        classes=CLASSES,
        preprocessing=GREY_8x8,
        usage=usage or {},
        variant="W",
        epsilon=0.03,
        guarantee="none" if base is None else "empirical",
        relative_size=1.0 if base is None else 0.4,
        parameters=56,
        per_class={label: ClassFigures(20, 1.0, 0.99) for label in usage or {}},
        cache_tier="search",
        plan=None if plan is None else PlanFile(digest_of(plan), len(plan)),
    )
    return StoredModel(manifest, content)


def measured(model: StoredModel) -> StoredModel:
    """Return a model with its self-test."""
    serving = ServingModel(model)
    answers = [expected_answer(serving.probabilities(image)) for image in self_test_images(SEED, 4, GREY_8x8.shape)]
    return replace(model, manifest=replace(model.manifest, self_test=SelfTest(SEED, tuple(answers), 0.05)))


def certified(model: StoredModel) -> StoredModel:
    """Return a cut with a certificate for the classes that it was made for, of images that nobody has run."""
    images, epsilon = 200, 0.03
    evidence = ClassEvidence(images, images, 0, 0, binomial(images, 0, 0, epsilon))
    manifest = model.manifest
    classes = dict.fromkeys(manifest.usage, evidence)
    certificate = Certificate(manifest.digest, manifest.profile, "binomial", epsilon, 0.1, classes)
    return replace(model, manifest=replace(manifest, guarantee="certified", certificate=certificate))
