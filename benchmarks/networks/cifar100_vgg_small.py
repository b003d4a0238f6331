"""A small VGG for CIFAR-100: 2.55 M parameters, 59.44 % top-1 on the test images; trained on all the others.

Write it as files:
python -m benchmarks.networks.cifar100_vgg_small -o FOLDER
"""

from __future__ import annotations

import sys
from typing import Any

from benchmarks.data import load_cifar, require_capnn_data
from benchmarks.networks.export import export_command
from benchmarks.networks.vgg import POOL, build_vgg
from cloud_pruner.images import ImageSet
from edge_runtime.preprocessing import Preprocessing

__all__ = ["PREPROCESSING", "build", "train_images", "unseen_images"]

PREPROCESSING = Preprocessing(32, 32, "rgb", mean=(0.4914, 0.4822, 0.4465), std=(0.247, 0.243, 0.261))


def build() -> Any:
    """Return the trained Keras model: preprocessed images `(n, 32, 32, 3)` -> logits `(n, 100)`."""
    features = (32, POOL, 64, POOL, 128, 128, POOL, 256, 256, POOL, 256)
    return build_vgg(require_capnn_data() / "weights" / "cifar100_vgg_small.npz", features, name="cifar100_vgg_small")


def train_images() -> ImageSet:
    """Return the 500 images a class that the network was trained on."""
    return ImageSet(*load_cifar("cifar100_train"))


def unseen_images() -> ImageSet:
    """Return the 100 test images a class."""
    return ImageSet(*load_cifar("cifar100_test"))


if __name__ == "__main__":
    sys.exit(export_command("cifar100_vgg_small", build, PREPROCESSING, train_images, unseen_images))
