"""The trained networks that the experiments run on, each with the images that it was trained on and never saw.

The first three are ours: their weights lie in `weights/`, and their images are CIFAR-10's, from wherever
`load_dataset` finds them. The others are in the folder named by CAPNN_DATA alone.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.data import capnn_data
from benchmarks.networks import (
    cifar10_mlperf_resnet8,
    cifar10_resnet20,
    cifar10_resnet56,
    cifar10_vgg16_half,
    cifar100_vgg_small,
)
from benchmarks.networks.datasets import Dataset, hold_out, joined, load_dataset
from benchmarks.networks.train import build_network, preprocessing
from benchmarks.networks.weight_files import load_weights, read_about
from cloud_pruner.errors import PrunerError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from cloud_pruner.images import ImageSet
    from edge_runtime.preprocessing import Preprocessing

__all__ = ["REFERENCES", "WEIGHTS", "Reference"]

WEIGHTS: Final = Path(__file__).parent / "weights"
"""The folder of our own networks' weights."""

_SIDE = 32


@dataclass(frozen=True, slots=True)
class Reference:
    """A trained network and its images.

    Attributes
    ----------
    name
        What commands call it.
    title
        What tables and figures call it.
    dataset
        What it tells apart: "cifar10" or "cifar100".
    note
        One sentence: architecture, width, training, where from.
    preprocessing
        How pixels become its inputs.
    build
        Returns the trained Keras model: preprocessed images -> logits or probabilities `(n, classes)` float32.
    train_images
        Returns what it was trained on.
    unseen_images
        Returns what it was never trained on: what was held out, if anything, then the test images.
    why_not
        Returns one line that says what is missing to use it; empty where nothing is.
    """

    name: str
    title: str
    dataset: str
    note: str
    preprocessing: Preprocessing
    build: Callable[[], Any]
    train_images: Callable[[], ImageSet]
    unseen_images: Callable[[], ImageSet]
    why_not: Callable[[], str]

    def available(self) -> bool:
        """Return whether its weights and images are here; images that can be downloaded are, by this."""
        return not self.why_not()


def _ours(name: str, title: str, note: str, trained_with: str) -> Reference:
    """Return one of the networks trained by `benchmarks.networks.train`; its weights' file says how it is built."""
    weights = WEIGHTS / f"{name}.npz"

    def build() -> Any:
        about = read_about(weights)
        shape = {key: about[key] for key in ("width", "head", "plain", "depth")}
        model = build_network(about["network"], 10, side=_SIDE, **shape)
        load_weights(weights, model)
        return model

    def parts() -> tuple[ImageSet, ImageSet]:
        return hold_out(_images("cifar10").train, read_about(weights)["hold_out"])

    def why_not() -> str:
        if not weights.is_file():
            command = (
                f"python -m benchmarks.networks.train {name} {trained_with} -o benchmarks/networks/weights/{name}.npz"
            )
            return f"its weights are not here: make them with {command}"
        try:
            _images("cifar10")
        except (PrunerError, OSError) as error:
            return " ".join(str(error).split())
        return ""

    return Reference(
        name, title, "cifar10", note, preprocessing(_SIDE), build, lambda: parts()[0],
        lambda: joined(parts()[1], _images("cifar10").test), why_not,
    )  # fmt: skip


def _given(name: str, title: str, dataset: str, note: str, network: ModuleType, weights: str) -> Reference:
    """Return a network of CAPNN_DATA, which `network` rebuilds from the file `weights` there."""

    def why_not() -> str:
        folder = capnn_data()
        if folder is None:
            return "its weights are in no package: set CAPNN_DATA to the folder with the reference data"
        needed = (f"weights/{weights}", f"data/{dataset}_train.webp.npz", f"data/{dataset}_test.webp.npz")
        missing = [path for path in needed if not (folder / path).is_file()]
        return f"CAPNN_DATA has no {', '.join(missing)}" if missing else ""

    return Reference(
        name, title, dataset, note, network.PREPROCESSING, network.build, network.train_images, network.unseen_images,
        why_not,
    )  # fmt: skip


@functools.lru_cache(maxsize=1)
def _images(name: str) -> Dataset:
    return load_dataset(name)


_ALL = (
    _ours(
        "vgg16",
        "VGG-16, quarter width",
        "VGG-16 with batch normalisation at a quarter of all widths, with two dense layers of 1024, trained 9 epochs "
        "on 45,000 images of CIFAR-10: 80.19 % top-1 on the test images; weights of this project.",
        "--width 0.25 --head 1024 --epochs 9",
    ),
    _ours(
        "alexnet",
        "AlexNet, quarter width",
        "AlexNet for 32x32 images at a quarter of all widths, with two dense layers of 1024, trained 8 epochs on "
        "45,000 images of CIFAR-10: 73.13 % top-1 on the test images; weights of this project.",
        "--width 0.25 --head 1024 --epochs 8",
    ),
    _ours(
        "resnet152",
        "ResNet-152, an eighth of the width",
        "ResNet-152 for 32x32 images at an eighth of all widths, trained on 45,000 images of CIFAR-10.",
        "--width 0.125 --epochs 30 --accelerator",
    ),
    _given(
        "vgg16-half",
        "VGG-16, half width",
        "cifar10",
        "VGG-16 with batch normalisation at half of all widths, with two dense layers of 2048, trained 9 epochs on the "
        "first 4,500 images a class of CIFAR-10; from CAPNN_DATA.",
        cifar10_vgg16_half,
        "cifar10_vgg16_half.npz",
    ),
    _given(
        "vgg-small",
        "small VGG, CIFAR-100",
        "cifar100",
        "Seven convolutions with batch normalisation and two dense layers of 512, 2.55 M parameters, trained on all "
        "train images of CIFAR-100; from CAPNN_DATA.",
        cifar100_vgg_small,
        "cifar100_vgg_small.npz",
    ),
    _given(
        "resnet56",
        "ResNet-56",
        "cifar10",
        "ResNet-56 for CIFAR-10 at full width, 0.86 M parameters, trained on all train images by Y. Idelbayev; from "
        "CAPNN_DATA.",
        cifar10_resnet56,
        "cifar10_resnet56-4bfd9763.npz",
    ),
    _given(
        "resnet20",
        "ResNet-20",
        "cifar10",
        "ResNet-20 for CIFAR-10 at full width, 0.27 M parameters, trained on all train images by Y. Idelbayev; from "
        "CAPNN_DATA.",
        cifar10_resnet20,
        "cifar10_resnet20-12fca82f.npz",
    ),
    _given(
        "resnet8",
        "ResNet-8",
        "cifar10",
        "ResNet-8 of MLPerf Tiny, 0.08 M parameters, trained on all train images of CIFAR-10 by its authors; from "
        "CAPNN_DATA.",
        cifar10_mlperf_resnet8,
        "cifar10_mlperftiny_resnet8.h5",
    ),
)

REFERENCES: Final[dict[str, Reference]] = {reference.name: reference for reference in _ALL}
"""By name, in the order in which reports show them."""
