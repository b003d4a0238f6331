"""Small untrained networks for the digits' size, each with a structure that fitting and searching must get right."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cloud_pruner.profiling import ProfileSettings, build_profile
from tests.support.digits import PREPROCESSING, digit_images

if TYPE_CHECKING:
    from pathlib import Path

    from cloud_pruner.profile import Profile


def projection_first(tf, layer, x):
    """A residual block whose projection is computed before the branch beside it."""
    x = tf.nn.relu(layer(x, 6))
    projection = layer(x, 8, 2, 1)
    return tf.nn.relu(projection + layer(tf.nn.relu(layer(x, 5, 2)), 8))


def padded_shortcut(tf, layer, x):
    """A shortcut that skips pixels and pads channels (ResNet's option A): the first layer behind it reads a part."""
    x = tf.nn.relu(layer(x, 6))
    branch = layer(tf.nn.relu(layer(x, 5, 2)), 8)
    return tf.nn.relu(tf.pad(x[:, ::2, ::2, :], [[0, 0], [0, 0], [0, 0], [0, 2]]) + branch)


def joined(tf, layer, x):
    """A layer that reads two groups of different sizes."""
    x = tf.nn.relu(layer(x, 6))
    return tf.nn.relu(layer(tf.concat([x, tf.nn.relu(layer(x, 5))], -1), 7))


def joined_alike(tf, layer, x):
    """A layer that reads two groups of the same size."""
    x = tf.nn.relu(layer(x, 6))
    return tf.nn.relu(layer(tf.concat([x, tf.nn.relu(layer(x, 6))], -1), 7))


def read_unequally(tf, layer, x):
    """A layer that reads some units twice, and so takes up no fold."""
    x = tf.nn.relu(layer(x, 6))
    return tf.nn.relu(layer(tf.concat([x, x[..., :3]], -1), 7))


def one_unit(tf, layer, x):
    """A layer of a single unit."""
    return tf.nn.relu(layer(tf.nn.relu(layer(x, 1)), 8))


def network(structure) -> bytes:
    """Return a .tflite of `structure`, one of the functions above, and a classifier behind it."""
    import tensorflow as tf

    from tests.support.tflite_kinds import convert

    rng = np.random.default_rng(5)

    def weights(*shape):
        return tf.constant(rng.normal(0, np.sqrt(2 / np.prod(shape[:-1])), shape).astype(np.float32))

    def layer(x, filters, stride=1, kernel=3):
        bias = tf.constant(rng.uniform(-0.4, 0.4, filters).astype(np.float32))
        return tf.nn.conv2d(x, weights(kernel, kernel, x.shape[-1], filters), stride, "SAME") + bias

    @tf.function(input_signature=[tf.TensorSpec((1, 8, 8, 1))])
    def classify(x):
        x = tf.reduce_mean(structure(tf, layer, x), [1, 2])
        return tf.matmul(x, weights(int(x.shape[-1]), 10))

    return convert(classify.get_concrete_function(), "float32", rng)


def profile_of(structure, folder: Path) -> Profile:
    images = digit_images()
    settings = ProfileSettings(depth=None, images={"profile": 20, "select": 20, "certify": 20})
    unseen = images["unseen"]
    return build_profile(
        network(structure), images["trained_on"], PREPROCESSING, folder, unseen=unseen, settings=settings
    )
