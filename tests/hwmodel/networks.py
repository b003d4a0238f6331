"""Networks that the tests cost: VGG-16 and AlexNet by their shapes, and small Keras networks as .tflite files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hwmodel import Layer, MatrixProduct, Workload

if TYPE_CHECKING:
    from collections.abc import Iterator

    import keras

# Side of the output, input channels, filters of each 3x3 convolution (Simonyan & Zisserman 2015, column D).
VGG16_CONVOLUTIONS = (
    (224, 3, 64), (224, 64, 64),
    (112, 64, 128), (112, 128, 128),
    (56, 128, 256), (56, 256, 256), (56, 256, 256),
    (28, 256, 512), (28, 512, 512), (28, 512, 512),
    (14, 512, 512), (14, 512, 512), (14, 512, 512),
)  # fmt: skip
VGG16_POOLS = ((112, 64), (56, 128), (28, 256), (14, 512), (7, 512))
VGG16_DENSE = ((7 * 7 * 512, 4096), (4096, 4096), (4096, 1000))


def vgg16() -> Workload:
    """VGG-16 for 224x224 images and 1000 classes."""
    return Workload((*_vgg16_convolutions(), *_vgg16_pools(), *_vgg16_dense()))


def _vgg16_convolutions() -> Iterator[Layer]:
    for i, (side, channels, filters) in enumerate(VGG16_CONVOLUTIONS, 1):
        product = MatrixProduct(reduction=9 * channels, filters=filters, pixels=side * side)
        outputs = side * side * filters
        weights = 9 * channels * filters + filters
        yield Layer(
            f"conv{i}", "CONV_2D", "convolution", side * side * channels, outputs, weights, product, rectified=outputs
        )


def _vgg16_pools() -> Iterator[Layer]:
    for i, (side, channels) in enumerate(VGG16_POOLS, 1):
        outputs = side * side * channels
        yield Layer(f"pool{i}", "MAX_POOL_2D", "pooling", 4 * outputs, outputs, comparisons=3 * outputs)


def _vgg16_dense() -> Iterator[Layer]:
    for i, (inputs, units) in enumerate(VGG16_DENSE, 6):
        rectified = 0 if units == 1000 else units  # the last one ends in a softmax
        product = MatrixProduct(reduction=inputs, filters=units, pixels=1)
        yield Layer(
            f"fc{i}", "FULLY_CONNECTED", "dense", inputs, units, inputs * units + units, product, rectified=rectified
        )


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
