"""Trains one of the papers' networks and writes its weights, with how they came about and what they get right.

python -m benchmarks.networks.train vgg16 --dataset cifar10 --width 0.25 --head 1024 --epochs 12 -o vgg16.npz
"""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.networks import architectures
from benchmarks.networks.datasets import DATASETS, hold_out, load_dataset
from benchmarks.networks.training import Recipe, measured_top1, train
from benchmarks.networks.weight_files import load_weights, save_weights
from cloud_pruner.errors import PrunerError
from edge_runtime.commandline import CommandParser, run_command
from edge_runtime.preprocessing import Preprocessing

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

__all__ = ["NETWORKS", "build_network", "main", "preprocessing"]

NETWORKS = ("vgg16", "alexnet", "resnet152", "cifar_resnet")

# Without batch normalisation the higher rate does not always begin to learn.
_RATES = {"vgg16": 2e-3, "alexnet": 1e-3, "resnet152": 2e-3, "cifar_resnet": 2e-3}
_PLAIN_RATE = 5e-4


def build_network(
    name: str, classes: int, *, side: int, width: float, head: int = 4096, plain: bool = False, depth: int = 20
) -> Any:
    """Build one of `NETWORKS`, untrained; what a network has no use for is not looked at."""
    if name == "vgg16":
        return architectures.vgg16(classes, width=width, head=head, normalised=not plain, side=side)
    if name == "alexnet":
        return architectures.alexnet(classes, width=width, head=head, side=side)
    if name == "resnet152":
        return architectures.resnet152(classes, width=width, side=side)
    return architectures.cifar_resnet(classes, depth=depth, width=width)


def preprocessing(side: int) -> Preprocessing:
    """Return what the trained networks take: RGB over 255, less the mean of CIFAR-10's images, over their deviation."""
    return Preprocessing(side, side, "rgb", mean=(0.4914, 0.4822, 0.4465), std=(0.247, 0.243, 0.261))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return run_command(_parser(), _train, (PrunerError, ValueError), argv)


def _parser() -> CommandParser:
    parser = CommandParser(
        prog="python -m benchmarks.networks.train",
        description="Train one of the papers' networks from scratch; Ctrl-C keeps the last epoch where --checkpoint is "
        "given, and the same command goes on from there.",
        example="python -m benchmarks.networks.train vgg16 --dataset cifar10 --width 0.25 --head 1024 --epochs 12 "
        "--checkpoint /tmp/vgg16 -o vgg16.npz",
    )
    parser.add_argument("network", choices=NETWORKS, help="which")
    parser.add_argument("--dataset", choices=DATASETS, default="cifar10", help="what on (default: cifar10)")
    parser.add_argument("--folder", type=Path, help="for imagenet-folder: the folder that has train/ and val/")
    parser.add_argument("--width", type=float, default=1.0, help="times all channels (default: 1)")
    parser.add_argument("--head", type=int, default=4096, help="units of each hidden dense layer (default: 4096)")
    parser.add_argument("--depth", type=int, default=20, help="of cifar_resnet (default: 20)")
    parser.add_argument("--plain", action="store_true", help="VGG-16 without batch normalisation")
    parser.add_argument("--epochs", type=int, default=12, help="passes over the images (default: 12)")
    parser.add_argument("--batch", type=int, default=128, help="images a step (default: 128)")
    parser.add_argument("--seed", type=int, default=0, help="of weights, order and crops (default: 0)")
    parser.add_argument(
        "--hold-out", type=int, default=500, metavar="N",
        help="the last N train images of each class are never trained on (default: 500)",
    )  # fmt: skip
    parser.add_argument(
        "--accelerator", action="store_true",
        help="train on an accelerator, through JAX (KERAS_BACKEND=jax); without it, on what Keras is set to",
    )  # fmt: skip
    parser.add_argument("--checkpoint", type=Path, metavar="FOLDER", help="keep the state of each epoch, and go on")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="the .npz file to write")
    return parser


def _train(arguments: argparse.Namespace) -> int:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if arguments.accelerator:
        _require_accelerator()
    import keras  # noqa: PLC0415 - seconds to import: --help and wrong usage do without

    dataset = load_dataset(arguments.dataset, arguments.folder)
    images, held_out = hold_out(dataset.train, arguments.hold_out)
    side = images.pixels.shape[1]
    rate = _PLAIN_RATE if arguments.plain else _RATES[arguments.network]
    recipe = Recipe(arguments.epochs, arguments.batch, rate, arguments.seed)
    keras.utils.set_random_seed(arguments.seed)
    shape = {name: getattr(arguments, name) for name in ("width", "head", "plain", "depth")}
    model = build_network(arguments.network, len(images.classes), side=side, **shape)
    print(f"{model.name}: {model.count_params()} parameters, {len(images.labels)} images, {keras.backend.backend()}")
    train(model, images, preprocessing(side), recipe, arguments.checkpoint, lambda line: print(line, flush=True))

    about = {"network": arguments.network, "dataset": arguments.dataset, **shape, **asdict(recipe)}
    about |= {"hold_out": arguments.hold_out, "keras": keras.__version__, "backend": keras.backend.backend()}
    # Measured with the rounded weights, as they are in the file.
    save_weights(arguments.output, model, about)
    load_weights(arguments.output, model)
    about["held_out_top1"] = measured_top1(model, held_out, preprocessing(side)) if arguments.hold_out else None
    about["test_top1"] = measured_top1(model, dataset.test, preprocessing(side))
    save_weights(arguments.output, model, about)
    if arguments.hold_out:
        print(f"top-1 on the {len(held_out.labels)} images held out: {about['held_out_top1']:.2%}")
    print(f"top-1 on the {len(dataset.test.labels)} test images: {about['test_top1']:.2%}")
    return 0


def _require_accelerator() -> None:
    """Have Keras run on JAX, on an accelerator; it chooses by KERAS_BACKEND when it is first imported."""
    backend = os.environ.setdefault("KERAS_BACKEND", "jax")
    if backend != "jax":
        raise PrunerError(f"--accelerator: KERAS_BACKEND is {backend}: set it to jax, or leave it out")
    try:
        import jax  # type: ignore[import-not-found, unused-ignore] # noqa: PLC0415 - for accelerators alone
    except ImportError as error:
        raise PrunerError(
            "--accelerator: JAX is not installed: pip install jax for your accelerator, such as jax[cuda12]"
        ) from error
    if jax.default_backend() == "cpu":
        raise PrunerError("--accelerator: JAX finds none: install it for your accelerator, or train on the CPU")


if __name__ == "__main__":
    sys.exit(main())
