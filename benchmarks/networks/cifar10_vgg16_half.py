"""VGG-16 at half width for CIFAR-10: 8.4 M parameters, 85.87 % top-1 on the test images.

It was trained on the first 4,500 train images of each class, in the order of the archive. The last 500 it never saw.

Write it as files:
    python -m benchmarks.networks.cifar10_vgg16_half -o FOLDER
"""

from __future__ import annotations

import sys
from typing import Any

from benchmarks.data import load_cifar, require_capnn_data
from benchmarks.networks.datasets import hold_out, joined
from benchmarks.networks.export import export_command
from benchmarks.networks.vgg import POOL, build_vgg
from cloud_pruner.images import ImageSet
from edge_runtime.preprocessing import Preprocessing

__all__ = ["PREPROCESSING", "build", "train_images", "unseen_images"]

PREPROCESSING = Preprocessing(32, 32, "rgb", mean=(0.4914, 0.4822, 0.4465), std=(0.247, 0.243, 0.261))

_HELD_OUT = 500


def build() -> Any:
    """Return the trained Keras model: preprocessed images `(n, 32, 32, 3)` -> logits `(n, 10)`."""
    features = (32, 32, POOL, 64, 64, POOL, *[128] * 3, POOL, *[256] * 3, POOL, *[256] * 3, POOL)
    return build_vgg(require_capnn_data() / "weights" / "cifar10_vgg16_half.npz", features, name="cifar10_vgg16_half")


def train_images() -> ImageSet:
    """Return the 4,500 images a class that the network was trained on."""
    return hold_out(ImageSet(*load_cifar("cifar10_train")), _HELD_OUT)[0]


def unseen_images() -> ImageSet:
    """Return the 500 held-out train images a class, followed by the 1,000 test images a class."""
    _, held_out = hold_out(ImageSet(*load_cifar("cifar10_train")), _HELD_OUT)
    return joined(held_out, ImageSet(*load_cifar("cifar10_test")))


if __name__ == "__main__":
    sys.exit(export_command("cifar10_vgg16_half", build, PREPROCESSING, train_images, unseen_images))
