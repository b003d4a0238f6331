"""A small untrained network with everything that a sequence of layers lacks, profiled on real digits.

Two layers add to one stream of channels; the output layer reads two groups at once, one of them as a flattened map.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cloud_pruner.profiling import ProfileSettings, build_profile
from tests.support.digits import PREPROCESSING, digit_images

if TYPE_CHECKING:
    from pathlib import Path

    from cloud_pruner.profile import Profile

STREAM, INNER, FLATTENED = 8, 6, 5
"""Units of the stream, of the branch beside it, and of the map that is flattened (2 x 2 positions)."""


def shortcut_network() -> bytes:
    import tensorflow as tf

    from tests.support.tflite_kinds import convert

    rng = np.random.default_rng(5)

    def weights(*shape):
        return tf.constant(rng.normal(0, np.sqrt(2 / np.prod(shape[:-1])), shape).astype(np.float32))

    def conv(x, filters, stride=1):
        bias = tf.constant(rng.uniform(-0.4, 0.4, filters).astype(np.float32))
        return tf.nn.conv2d(x, weights(3, 3, x.shape[-1], filters), stride, "SAME") + bias

    @tf.function(input_signature=[tf.TensorSpec((1, 8, 8, 1))])
    def classify(x):
        stream = tf.nn.relu(conv(x, STREAM, stride=2))
        stream = tf.nn.relu(stream + conv(tf.nn.relu(conv(stream, INNER)), STREAM))
        flat = tf.reshape(tf.nn.relu(conv(stream, FLATTENED, stride=2)), [1, -1])
        features = tf.concat([flat, tf.reduce_mean(stream, [1, 2])], -1)
        return tf.nn.softmax(tf.matmul(features, weights(int(features.shape[-1]), 10)))

    return convert(classify.get_concrete_function(), "float32", rng)


def shortcut_profile(folder: Path) -> Profile:
    images = digit_images()
    settings = ProfileSettings(depth=None, images={"profile": 20, "select": 20, "certify": 20})
    return build_profile(
        shortcut_network(), images["trained_on"], PREPROCESSING, folder, unseen=images["unseen"], settings=settings
    )
