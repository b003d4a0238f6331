"""MobileNetV1 at a quarter of its width for ImageNet (Howard et al. 2017): 0.48 M parameters, 224x224, 1000 classes.

There are no ImageNet images here: it runs on crops of the two photographs that come with scikit-learn. They exercise
it as photographs do, which enlarged CIFAR pictures do not, and say nothing of its accuracy.

Write it as files:
    python -m benchmarks.networks.imagenet_mobilenet_v1_025 -o FOLDER
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from benchmarks.data import require_capnn_data
from benchmarks.networks.export import export_command
from benchmarks.networks.photographs import photograph_crops
from edge_runtime.preprocessing import Preprocessing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["PREPROCESSING", "build", "sample_images"]

PREPROCESSING = Preprocessing(224, 224, "rgb", scale=1 / 127.5, mean=(1.0,))


def build() -> Any:
    """Return the trained Keras model: preprocessed images `(n, 224, 224, 3)` -> probabilities `(n, 1000)`."""
    import keras  # noqa: PLC0415 - seconds to import, and this module is imported for its constants too

    # Built anew: the file is Keras 2's, and its depthwise layers no longer load as they were written.
    weights = require_capnn_data() / "weights" / "imagenet_mobilenet_v1_0.25_224.h5"
    return keras.applications.MobileNet(alpha=0.25, weights=str(weights))


def sample_images() -> NDArray[np.uint8]:
    """Return 400 square crops of photographs, `(n, 224, 224, 3)`."""
    return photograph_crops(400, PREPROCESSING.height)


if __name__ == "__main__":
    sys.exit(export_command("imagenet_mobilenet_v1_025", build, PREPROCESSING, sample_images=sample_images))
