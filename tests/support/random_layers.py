"""Layers of convolutional networks, drawn at random while TensorFlow traces the network."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import tensorflow as tf


@dataclass
class Draw:
    """Draws layers with weights as training leaves them: He normal, with biases and statistics of their own.

    Attributes
    ----------
    image
        The network's input.
    narrowest, widest
        Channels of a layer.
    lacks
        Operators that must not occur.
    """

    rng: np.random.Generator
    image: tf.Tensor
    narrowest: int
    widest: int
    lacks: frozenset[str]

    def whole(self, low, high):
        """An integer in low..high."""
        return int(self.rng.integers(low, high + 1))

    def chance(self, probability=0.5):
        return bool(self.rng.random() < probability)

    def one_of(self, *choices):
        return choices[self.whole(0, len(choices) - 1)]

    def width(self):
        return self.whole(self.narrowest, self.widest)

    def weights(self, *shape, fan_in=None):
        fan_in = math.prod(shape[:-1]) if fan_in is None else fan_in
        return tf.constant(self.rng.normal(0, math.sqrt(2 / fan_in), shape).astype(np.float32))

    def vector(self, size, low=-0.4, high=0.4):
        return tf.constant(self.rng.uniform(low, high, size).astype(np.float32))

    def bias(self, x):
        return x + self.vector(x.shape[-1])

    def conv(self, x, filters=None, kernel=None, *, stride=1, groups=1, bias=None, padding="SAME"):
        filters, kernel = filters or self.width(), kernel or self.one_of(1, 3)
        weights = self.weights(kernel, kernel, x.shape[-1] // groups, filters)
        dilation = 2 if kernel == 3 and stride == 1 and min(x.shape[1:3]) >= 6 and self.chance(0.15) else 1
        y = tf.nn.conv2d(x, weights, stride, padding, dilations=dilation)
        return self.bias(y) if (self.chance(0.7) if bias is None else bias) else y

    def depthwise(self, x, multiplier=1, stride=1):
        weights = self.weights(3, 3, x.shape[-1], multiplier, fan_in=9)
        y = tf.nn.depthwise_conv2d(x, weights, [1, stride, stride, 1], "SAME")
        return self.bias(y) if self.chance(0.7) else y

    def dense(self, x, units, *, bias=None):
        y = tf.matmul(x, self.weights(x.shape[-1], units))
        return self.bias(y) if (self.chance(0.6) if bias is None else bias) else y

    def normalized(self, x):
        """Batch normalisation."""
        channels = x.shape[-1]
        mean, variance = self.vector(channels), self.vector(channels, 0.4, 1.6)
        return tf.nn.batch_normalization(
            x, mean, variance, self.vector(channels), self.vector(channels, 0.6, 1.4), 1e-3
        )

    def activated(self, x):
        common = (tf.nn.relu, tf.nn.relu, tf.nn.relu6, tf.nn.silu, hard_swish)
        return self.one_of(*common, tf.nn.tanh, tf.nn.leaky_relu, tf.nn.elu)(x)

    def unit(self, x, filters=None, kernel=None, *, stride=1):
        """A convolution, its activation, and batch normalisation before it, behind it, or not at all."""
        y = self.conv(x, filters, kernel, stride=stride)
        order = self.one_of("plain", "before", "behind")
        if order == "before":
            y = self.normalized(y)
        y = self.activated(y)
        return self.normalized(y) if order == "behind" else y

    def halving(self, x):
        """A stride that `x` can take: 2, or 1 for the smallest maps."""
        return 2 if min(x.shape[1:3]) >= 4 else 1


def hard_swish(x):
    return x * tf.nn.relu6(x + 3.0) * (1 / 6)
