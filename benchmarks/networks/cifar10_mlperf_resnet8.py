"""ResNet-8 for CIFAR-10, of the MLPerf Tiny benchmark: 0.08 M parameters, 87.19 % top-1 on the test images.

It was trained on all the others.

Write it as files:
    python -m benchmarks.networks.cifar10_mlperf_resnet8 -o FOLDER
"""

from __future__ import annotations

import sys
from typing import Any

from benchmarks.data import load_cifar, require_capnn_data
from benchmarks.networks.export import export_command
from cloud_pruner.images import ImageSet
from edge_runtime.preprocessing import Preprocessing

__all__ = ["PREPROCESSING", "build", "train_images", "unseen_images"]

PREPROCESSING = Preprocessing(32, 32, "rgb", scale=1.0)


def build() -> Any:
    """Return the trained Keras model: preprocessed images `(n, 32, 32, 3)` -> probabilities `(n, 10)`."""
    import keras  # noqa: PLC0415 - seconds to import, and this module is imported for its constants too

    model = keras.models.load_model(require_capnn_data() / "weights" / "cifar10_mlperftiny_resnet8.h5", compile=False)
    return keras.Model(model.inputs[0], model.outputs[0], name="cifar10_mlperf_resnet8")


def train_images() -> ImageSet:
    """Return the 5,000 images a class that the network was trained on."""
    return ImageSet(*load_cifar("cifar10_train"))


def unseen_images() -> ImageSet:
    """Return the 1,000 test images a class."""
    return ImageSet(*load_cifar("cifar10_test"))


if __name__ == "__main__":
    sys.exit(export_command("cifar10_mlperf_resnet8", build, PREPROCESSING, train_images, unseen_images))
