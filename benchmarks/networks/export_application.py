"""Writes a network of `keras.applications`, trained on ImageNet by its authors, and one's images as files.

The weights are downloaded by Keras, once. Images are a folder with `train` and `val`, each with one sub-folder for each
of ImageNet's 1,000 classes, named by its WordNet number (`n01440764`, ...), whose order is that of the outputs.

python -m benchmarks.networks.export_application VGG16 --folder /data/imagenet -o /tmp/vgg16
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.networks.datasets import FOLDER_SIDE, read_folder
from benchmarks.networks.export import add_export_options, export
from cloud_pruner.errors import PrunerError
from edge_runtime.commandline import CommandParser, run_command
from edge_runtime.preprocessing import Preprocessing

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from cloud_pruner.images import ImageSet

__all__ = ["APPLICATIONS", "main"]

# As the `preprocess_input` of their modules in keras.applications.
_CAFFE = Preprocessing(FOLDER_SIDE, FOLDER_SIDE, "bgr", scale=1.0, mean=(103.939, 116.779, 123.68))
_TORCH = Preprocessing(FOLDER_SIDE, FOLDER_SIDE, "rgb", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
_SIGNED = Preprocessing(FOLDER_SIDE, FOLDER_SIDE, "rgb", scale=1 / 127.5, mean=(1.0,))
_OWN = Preprocessing(FOLDER_SIDE, FOLDER_SIDE, "rgb", scale=1.0)

APPLICATIONS: Final = {
    "VGG16": _CAFFE,
    "VGG19": _CAFFE,
    "ResNet50": _CAFFE,
    "ResNet101": _CAFFE,
    "ResNet152": _CAFFE,
    "DenseNet121": _TORCH,
    "MobileNet": _SIGNED,
    "MobileNetV2": _SIGNED,
    "EfficientNetB0": _OWN,
}
"""Name in `keras.applications` -> how pixels become its inputs."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = CommandParser(
        prog="python -m benchmarks.networks.export_application",
        description="Write a network of keras.applications, trained on ImageNet, with images of ImageNet as files.",
        example="python -m benchmarks.networks.export_application VGG16 --folder /data/imagenet -o /tmp/vgg16",
    )
    parser.add_argument("network", choices=APPLICATIONS, help="which")
    parser.add_argument("--folder", type=Path, required=True, help="has train/ and val/, a sub-folder a class in each")
    parser.add_argument(
        "--images", type=int, default=100, metavar="N", help="the first N of each class and part (default: 100)"
    )
    add_export_options(parser)
    return run_command(parser, _export, (PrunerError,), argv)


def _export(arguments: argparse.Namespace) -> int:
    parts = [read_folder(arguments.folder / part, FOLDER_SIDE, arguments.images) for part in ("train", "val")]
    model = _load(arguments.network)
    for part, images in zip(("train", "val"), parts, strict=True):
        _check_classes(arguments.folder / part, images, model.output_shape[-1])
    train_images, unseen_images = parts
    export(
        model, APPLICATIONS[arguments.network], arguments.output, lambda: train_images, lambda: unseen_images,
        quantize=arguments.quantize,
    )  # fmt: skip
    return 0


def _load(name: str) -> Any:
    import keras  # noqa: PLC0415 - seconds to import

    try:
        return getattr(keras.applications, name)(weights="imagenet", classifier_activation=None)
    except Exception as error:  # Keras raises a bare Exception where it cannot download
        raise PrunerError(f"{name}: its weights cannot be downloaded ({error}): connect to the internet") from error


def _check_classes(folder: Path, images: ImageSet, outputs: int) -> None:
    if len(images.classes) != outputs:
        raise PrunerError(
            f"{folder}: has {len(images.classes)} sub-folders, the network has {outputs} outputs: give it one a class"
        )


if __name__ == "__main__":
    sys.exit(main())
