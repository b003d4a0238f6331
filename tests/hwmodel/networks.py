"""Networks that the tests cost: VGG-16 and AlexNet by their shapes, and small Keras networks as .tflite files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hwmodel import Workload, convolution, dense, max_pooling

if TYPE_CHECKING:
    import keras

    from hwmodel import Layer

# Filters of each 3x3 convolution, a max pooling behind each block (Simonyan & Zisserman 2015, column D).
VGG16 = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
VGG16_PRUNED = ("conv5_1", "conv5_2", "conv5_3", "fc6", "fc7")


def vgg16(*, kept: float = 1.0) -> Workload:
    """VGG-16 for 224x224 images and 1000 classes; `kept` of the units of its last five hidden layers.

    Those are the layers that CAP'NN prunes (DAC 2020, sections V and V.C); the outputs of fc8 all stay.
    """
    layers: list[Layer] = []
    side, channels = 224, 3

    def units(name: str, count: int) -> int:
        return round(kept * count) if name in VGG16_PRUNED else count

    for block, widths in enumerate(VGG16, 1):
        for step, width in enumerate(widths, 1):
            name = f"conv{block}_{step}"
            layers.append(convolution(name, (side, side, channels), units(name, width), relu=True))
            channels = units(name, width)
        layers.append(max_pooling(f"pool{block}", (side, side, channels)))
        side //= 2
    inputs = side * side * channels
    for name, count in (("fc6", 4096), ("fc7", 4096), ("fc8", 1000)):
        layers.append(dense(name, inputs, units(name, count), relu=name != "fc8"))
        inputs = units(name, count)
    return Workload(tuple(layers))


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
