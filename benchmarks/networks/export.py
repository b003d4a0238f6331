"""Writes a reference network and its images as the files that the `capnn` commands take."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cloud_pruner.conversion import convert
from cloud_pruner.errors import PrunerError
from edge_runtime.commandline import CommandParser, run_command
from edge_runtime.interpreter import LoadedModel

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from cloud_pruner.images import ImageSet
    from edge_runtime.preprocessing import Preprocessing

__all__ = ["export_command"]


def export_command(
    name: str,
    build: Callable[[], Any],
    preprocessing: Preprocessing,
    train_images: Callable[[], ImageSet],
    unseen_images: Callable[[], ImageSet],
) -> int:
    """Write `model.keras`, `base.tflite`, `train.npz` and `unseen.npz`; print the top-1 accuracy of the `.tflite`.

    Returns the process's exit code.
    """

    def action(arguments: argparse.Namespace) -> int:
        folder: Path = arguments.output
        folder.mkdir(parents=True, exist_ok=True)
        unseen = unseen_images()
        _save(folder / "unseen.npz", unseen)
        _save(folder / "train.npz", train_images())
        build().save(folder / "model.keras")
        report = convert(folder / "model.keras", folder / "base.tflite", images=unseen, preprocessing=preprocessing)
        print(f"{report.path}: {report.bytes} bytes, {report.parameters} parameters, sha256 {report.digest}")
        print(f"differs from Keras by {report.max_difference:.2g} of the outputs' range on {report.images} images")
        model = LoadedModel(report.path.read_bytes(), name=str(report.path))
        correct = (
            np.concatenate(
                [
                    model.run(preprocessing.apply(pixels))[0].argmax(axis=1)
                    for pixels in np.array_split(unseen.pixels, 100)
                ]
            )
            == unseen.labels
        )
        print(f"top-1 on the {len(correct)} images of unseen.npz: {correct.mean():.2%}")
        return 0

    parser = CommandParser(
        prog=f"python -m benchmarks.networks.{name}",
        description=f"Rebuild {name} from CAPNN_DATA and write model.keras, base.tflite, train.npz and unseen.npz.",
        example=f"python -m benchmarks.networks.{name} -o /tmp/{name}",
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER", help="folder to write to")
    return run_command(parser, action, (PrunerError,))


def _save(path: Path, images: ImageSet) -> None:
    np.savez(path, x=images.pixels, y=images.labels, classes=np.array(images.classes))
