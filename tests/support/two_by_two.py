"""A network of four units on pictures of 2 x 2 pixels, small enough to work out by hand what any method makes of it.

Pixels are numbers as they are. Class a shows 0 0 0 4, b 0 0 2 2, c 1 1 1 1. The units are convolutions of one pixel
with a ReLU; their means over the positions go into the output layer:

    unit    reacts as     weights of a, b, c    fires for a, b, c    mean for a, b, c
    0       x             0   0   1             1/4  2/4  4/4        1     1    1
    1       x - 1         0   2   0             1/4  2/4  0          3/4   1/2  0
    2       2x - 4        4   0   0             1/4  0    0          1     0    0
    3       3 - 3x        0   1   0             3/4  2/4  0          9/4   3/2  0

So a gets the outputs 4, 15/4, 1, b 0, 5/2, 1 and c 0, 0, 1: each is taken for what it is. In the images of the *select*
and *certify* splits a looks like b, and is taken for it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from cloud_pruner.images import ImageSet
from cloud_pruner.profiling import ProfileSettings, build_profile
from edge_runtime.preprocessing import Preprocessing
from tests.support.tflite_builder import NONE, SequentialBuilder

if TYPE_CHECKING:
    from pathlib import Path

    from cloud_pruner.profile import Profile

CLASSES = ("a", "b", "c")
PREPROCESSING = Preprocessing(2, 2, "grey", scale=1.0)
SHOWN = {"a": [[0, 0], [0, 4]], "b": [[0, 0], [2, 2]], "c": [[1, 1], [1, 1]]}
UNITS = np.array([1, 1, 2, -3], np.float32)
BIASES = np.array([0, -1, -4, 3], np.float32)
OUTPUTS = np.array([[0, 0, 4, 0], [0, 2, 0, 1], [1, 0, 0, 0]], np.float32)


@dataclass
class _WithWeights(SequentialBuilder):
    """Takes weights from a list where the builder draws them."""

    values: list[np.ndarray] = field(default_factory=list)

    def _normal(self, shape, scale):  # noqa: ARG002
        return self.values.pop(0).reshape(shape).astype(np.float32)


def images(*looks: str, each: int = 8) -> ImageSet:
    """Pictures of a, b and c that look as given."""
    pixels = np.array([SHOWN[look] for look in looks for _ in range(each)], np.uint8)[..., np.newaxis]
    return ImageSet(pixels, np.repeat(np.arange(3), each), CLASSES)


def two_by_two_profile(folder: Path) -> Profile:
    builder = _WithWeights((2, 2, 1), np.random.default_rng(0), values=[UNITS, BIASES, OUTPUTS])
    content = builder.conv(4, 1).mean().dense(3, activation=NONE, bias="zero").build()
    return build_profile(
        content,
        images("a", "b", "c"),
        PREPROCESSING,
        folder,
        unseen=images("b", "b", "c"),
        settings=ProfileSettings(depth=None, images={"profile": 8, "select": 4, "certify": 4}),
    )
