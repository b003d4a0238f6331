"""ResNet-20 for CIFAR-10: 0.27 M parameters, 91.73 % top-1 on the test images; trained on all the others.

Write it as files:
    python -m benchmarks.networks.cifar10_resnet20 -o FOLDER
"""

from __future__ import annotations

import sys
from typing import Any

from benchmarks.data import load_cifar, require_capnn_data
from benchmarks.networks.export import export_command
from benchmarks.networks.resnet import build_resnet
from cloud_pruner.images import ImageSet
from edge_runtime.preprocessing import Preprocessing

__all__ = ["PREPROCESSING", "build", "train_images", "unseen_images"]

PREPROCESSING = Preprocessing(32, 32, "rgb", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def build() -> Any:
    """Return the trained Keras model: preprocessed images `(n, 32, 32, 3)` -> logits `(n, 10)`."""
    return build_resnet(require_capnn_data() / "weights" / "cifar10_resnet20-12fca82f.npz", name="cifar10_resnet20")


def train_images() -> ImageSet:
    """Return the 5,000 images a class that the network was trained on."""
    return ImageSet(*load_cifar("cifar10_train"))


def unseen_images() -> ImageSet:
    """Return the 1,000 test images a class."""
    return ImageSet(*load_cifar("cifar10_test"))


if __name__ == "__main__":
    sys.exit(export_command("cifar10_resnet20", build, PREPROCESSING, train_images, unseen_images))
