"""`capnn profile`: measure a base model once, so that cuts can be made of it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cloud_pruner.cli.options import add_preprocessing_options, check_folder, png_file, positive, preprocessing_from
from cloud_pruner.cli.terminal import print_json, print_table, progress_bar
from cloud_pruner.errors import ImageDataError, MissingExtraError
from cloud_pruner.images import load_images
from cloud_pruner.profile import SPLITS
from cloud_pruner.profiling import DEFAULT_DEPTH, ProfileSettings, build_profile
from edge_runtime.durable import write_durably
from edge_runtime.flatmodel import read_graph

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

    from matplotlib.figure import Figure

    from cloud_pruner.profile import LayerProfile, Profile

__all__ = ["add_command"]


def add_command(commands: Any) -> None:
    """Add `capnn profile` to the subcommands."""
    parser = commands.add_parser(
        "profile",
        help="measure a .tflite on labelled images",
        description="Measure a base model once, into a folder: firing rates, class clusters, confusion, activations.\n"
        "Images: a folder with one sub-folder per class, or an .npz with x, y and classes. Search and\n"
        "certification need images that the network was not trained on: give them with --unseen, or give\n"
        "only such images with --data.",
        example="capnn profile base.tflite --data train/ --unseen held-out/ -o profile/",
    )
    parser.add_argument("model", type=Path, metavar="MODEL", help="the base model, a .tflite classifier")
    parser.add_argument("--data", type=Path, required=True, metavar="PATH", help="images to profile on")
    parser.add_argument(
        "--unseen", type=Path, metavar="PATH", help="images that the network never saw, to select and certify on"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER", help="where the profile goes")
    parser.add_argument(
        "--depth",
        default=str(DEFAULT_DEPTH),
        metavar="N|all",
        help=f"how many of the last weight layers to look at, the output layer among them (default: {DEFAULT_DEPTH})",
    )
    for split in SPLITS:
        parser.add_argument(
            f"--{split}-images", type=positive, metavar="N", help=f"images a class for the {split} split"
        )
    parser.add_argument(
        "--keras",
        type=Path,
        metavar="MODEL",
        help="the Keras network that MODEL was converted from: its gradients tell better which units matter",
    )
    parser.add_argument(
        "--three-bit-rates",
        action="store_true",
        help="store firing rates in 3 bits, as the paper does: a tenth of the space, the same cuts but for a few units",
    )
    parser.add_argument(
        "--plot", type=png_file, metavar="FILE.png", help="draw the class clusters of each layer (needs capnn[plots])"
    )
    parser.add_argument("--json", action="store_true", help="print a summary as JSON")
    add_preprocessing_options(parser)
    parser.set_defaults(run=_run, parser=parser)


def _run(arguments: argparse.Namespace) -> int:
    if arguments.depth != "all" and (not arguments.depth.isdigit() or int(arguments.depth) < 2):
        arguments.parser.error(f"--depth {arguments.depth}: a whole number of 2 or more, or 'all'")
    draw = _plotter(arguments.plot) if arguments.plot else None
    content = arguments.model.read_bytes()
    graph = read_graph(content, str(arguments.model))
    shape = graph.tensors[graph.inputs[0]].shape[1:]
    if len(shape) != 3:
        raise ImageDataError(f"{arguments.model}: takes inputs of shape {shape}, not images (height, width, channels)")
    preprocessing = preprocessing_from(arguments, shape)
    images = load_images(arguments.data, size=(shape[0], shape[1]))
    unseen = load_images(arguments.unseen, size=(shape[0], shape[1])) if arguments.unseen else None
    settings = ProfileSettings(
        depth=None if arguments.depth == "all" else int(arguments.depth),
        images={split: getattr(arguments, f"{split}_images") for split in SPLITS},
        three_bit_rates=arguments.three_bit_rates,
        keras=arguments.keras,
    )
    with progress_bar("profile") as progress:
        profile = build_profile(
            content,
            images,
            preprocessing,
            arguments.output,
            unseen=unseen,
            settings=settings,
            progress=progress,
            name=str(arguments.model),
        )
    if draw is not None:
        image = io.BytesIO()
        draw(profile.layers, profile.classes).savefig(image, format="png")
        write_durably(arguments.plot, image.getvalue())
    _print(profile, as_json=arguments.json)
    return 0


def _plotter(path: Path) -> Callable[[Sequence[LayerProfile], Sequence[str]], Figure]:
    """Import what draws, and see that there is a folder for `path`, before any work is done."""
    try:
        from cloud_pruner.cluster_plot import cluster_plot  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise MissingExtraError("--plot needs capnn[plots]: pip install 'capnn[plots]'") from error
    check_folder(path)
    return cluster_plot


def _print(profile: Profile, *, as_json: bool) -> None:
    accuracy = profile.splits["select"].accuracy(len(profile.classes))
    summary = {
        "profile": str(profile.folder),
        "digest": profile.digest,
        "base": profile.base.digest,
        "parameters": profile.base.graph.parameters,
        "classes": list(profile.classes),
        "images": {name: len(split.labels) for name, split in profile.splits.items()},
        "base_accuracy": {name: round(float(a), 4) for name, a in zip(profile.classes, accuracy, strict=True)},
        "layers": [
            {
                "name": layer.name,
                "units": layer.units,
                "mean_firing_rate": round(float(np.mean(layer.firing_rates)), 4),
                "class_clusters": layer.cluster_count,
            }
            for layer in profile.layers
        ],
    }
    if as_json:
        print_json(summary)
        return
    print_table(
        f"{profile.folder}: {len(profile.classes)} classes, base top-1 {np.mean(accuracy):.2%} on the select images",
        ("prunable layer", "units", "mean firing rate", "class clusters"),
        [
            (layer.name, str(layer.units), f"{np.mean(layer.firing_rates):.3f}", str(layer.cluster_count))
            for layer in profile.layers
        ],
    )
    counts = ", ".join(f"{len(split.labels)} {name}" for name, split in profile.splits.items())
    print(f"images: {counts}")
