"""VGG-16 at half width for CIFAR-10: 8.4 M parameters, 85.87 % top-1 on the test images.

It was trained on the first 4,500 train images of each class. The last 500 it never saw: with them, 85.47 %.

Write it as files:
    python -m benchmarks.networks.cifar10_vgg16_half -o FOLDER
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from benchmarks.data import load_cifar, require_capnn_data
from benchmarks.networks.export import export_command
from benchmarks.networks.vgg import POOL, build_vgg
from cloud_pruner.images import ImageSet, split_per_class
from edge_runtime.preprocessing import Preprocessing

__all__ = ["PREPROCESSING", "build", "train_images", "unseen_images"]

PREPROCESSING = Preprocessing(32, 32, "rgb", mean=(0.4914, 0.4822, 0.4465), std=(0.247, 0.243, 0.261))

_SPLIT = {"trained": 4500, "held out": 500}


def build() -> Any:
    """Return the trained Keras model: preprocessed images `(n, 32, 32, 3)` -> logits `(n, 10)`."""
    features = (32, 32, POOL, 64, 64, POOL, *[128] * 3, POOL, *[256] * 3, POOL, *[256] * 3, POOL)
    return build_vgg(require_capnn_data() / "weights" / "cifar10_vgg16_half.npz", features, name="cifar10_vgg16_half")


def train_images() -> ImageSet:
    """Return the 4,500 images a class that the network was trained on."""
    pixels, labels, classes = load_cifar("cifar10_train")
    trained = split_per_class(labels, _SPLIT)["trained"]
    return ImageSet(pixels[trained], labels[trained], classes)


def unseen_images() -> ImageSet:
    """Return the 500 held-out train images a class, followed by the 1,000 test images a class."""
    pixels, labels, classes = load_cifar("cifar10_train")
    held_out = split_per_class(labels, _SPLIT)["held out"]
    test_pixels, test_labels, _ = load_cifar("cifar10_test")
    return ImageSet(
        np.concatenate([pixels[held_out], test_pixels]), np.concatenate([labels[held_out], test_labels]), classes
    )


if __name__ == "__main__":
    sys.exit(export_command("cifar10_vgg16_half", build, PREPROCESSING, train_images, unseen_images))
