"""Writes a reference network and its images as the files that the `capnn` commands take."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cloud_pruner.conversion import convert
from cloud_pruner.errors import PrunerError
from cloud_pruner.quantization import QUANTIZE_KINDS
from edge_runtime.commandline import CommandParser, run_command
from edge_runtime.interpreter import LoadedModel

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from numpy.typing import NDArray

    from cloud_pruner.images import ImageSet
    from cloud_pruner.quantization import QuantizeKind
    from edge_runtime.preprocessing import Preprocessing

__all__ = ["add_export_options", "export", "export_command", "top1_accuracy"]


def export_command(
    name: str,
    build: Callable[[], Any],
    preprocessing: Preprocessing,
    train_images: Callable[[], ImageSet] | None = None,
    unseen_images: Callable[[], ImageSet] | None = None,
    *,
    sample_images: Callable[[], NDArray[np.uint8]] | None = None,
) -> int:
    """Export a reference network by a command; returns the process's exit code."""

    def action(arguments: argparse.Namespace) -> int:
        export(
            build(), preprocessing, arguments.output, train_images, unseen_images,
            sample_images=sample_images, quantize=arguments.quantize,
        )  # fmt: skip
        return 0

    parser = CommandParser(
        prog=f"python -m benchmarks.networks.{name}",
        description=f"Rebuild {name} from CAPNN_DATA and write it with its images as files.",
        example=f"python -m benchmarks.networks.{name} -o /tmp/{name}",
    )
    add_export_options(parser)
    return run_command(parser, action, (PrunerError,))


def add_export_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `export` to a command: `output` and `quantize`."""
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER", help="folder to write to")
    parser.add_argument(
        "--quantize", choices=QUANTIZE_KINDS, default="none", help="what base.tflite stores (default: none)"
    )


def export(
    model: Any,
    preprocessing: Preprocessing,
    folder: Path,
    train_images: Callable[[], ImageSet] | None = None,
    unseen_images: Callable[[], ImageSet] | None = None,
    *,
    sample_images: Callable[[], NDArray[np.uint8]] | None = None,
    quantize: QuantizeKind = "none",
) -> None:
    """Write `model.keras` and `base.tflite`, and `train.npz` and `unseen.npz` where there are such images.

    Prints how far the `.tflite` differs from the network, and its top-1 accuracy on the unseen images. Conversion
    compares, and calibrates, on the train images, or else on the sample images `(n, height, width, channels)`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model.save(folder / "model.keras")
    images: ImageSet | NDArray[np.float32] | None = None
    if train_images is not None:
        images = train_images()
        _save(folder / "train.npz", images)
    elif sample_images is not None:
        images = preprocessing.apply(sample_images())
    report = convert(
        folder / "model.keras",
        folder / "base.tflite",
        images=images,
        preprocessing=preprocessing,
        quantize=quantize,
    )
    print(f"{report.path}: {report.bytes} bytes, {report.parameters} parameters, sha256 {report.digest}")
    print(
        f"differs from Keras by {report.max_difference:.2g} of the outputs' range on {report.images} images, "
        f"same top class on {report.top1_agreement:.1%}"
    )
    if unseen_images is not None:
        unseen = unseen_images()
        _save(folder / "unseen.npz", unseen)
        loaded = LoadedModel(report.path.read_bytes(), name=str(report.path))
        accuracy = top1_accuracy(loaded, preprocessing, unseen)
        print(f"top-1 on the {len(unseen.labels)} images of unseen.npz: {accuracy:.2%}")


def top1_accuracy(model: LoadedModel, preprocessing: Preprocessing, images: ImageSet) -> float:
    """Return the share of `images` whose class is the model's first output's largest."""
    right = sum(
        int((model.run(preprocessing.apply(images.pixels[rows]))[0].argmax(axis=1) == images.labels[rows]).sum())
        for rows in np.array_split(np.arange(len(images.labels)), max(len(images.labels) // 100, 1))
    )
    return right / len(images.labels)


def _save(path: Path, images: ImageSet) -> None:
    np.savez(path, x=images.pixels, y=images.labels, classes=np.array(images.classes))
