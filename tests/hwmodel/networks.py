"""Networks that the tests cost: VGG-16 and AlexNet by their shapes, and small Keras networks as .tflite files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import keras


def small_network(*, filters: int = 8) -> keras.Model:
    """Return a network with one of each kind of layer, on 16x16 RGB images, with 5 classes and random weights."""
    import keras

    keras.utils.set_random_seed(0)
    layers = keras.layers
    image = keras.Input(batch_shape=(1, 16, 16, 3))
    x = stem = layers.Conv2D(filters, 3, padding="same", activation="relu", bias_initializer="normal", name="stem")(
        image
    )
    x = layers.DepthwiseConv2D(3, padding="same", bias_initializer="normal", name="depthwise")(x)
    x = layers.Add(name="residual")([stem, x])
    x = layers.MaxPooling2D(2, name="pool")(x)
    x = layers.Conv2D(12, 3, strides=2, groups=4, bias_initializer="normal", name="grouped")(x)
    x = layers.GlobalAveragePooling2D(name="mean")(x)
    x = layers.Dense(5, bias_initializer="normal", name="head")(x)
    return keras.Model(image, layers.Softmax(name="softmax")(x))


def tflite(model: keras.Model, *, weights: str = "float32") -> bytes:
    """Convert a model, with float32, float16 or int8 weights."""
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    if weights != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if weights == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if weights == "int8":
        images = np.random.default_rng(0).normal(size=(8, 1, *model.input_shape[1:])).astype(np.float32)
        converter.representative_dataset = lambda: ([image] for image in images)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    content = converter.convert()
    assert isinstance(content, bytes)
    return content
