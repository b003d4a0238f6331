"""`capnn convert`: a trained Keras classifier becomes a .tflite."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloud_pruner.cli.options import add_preprocessing_options, preprocessing_from
from cloud_pruner.cli.terminal import print_json, print_table
from cloud_pruner.conversion import convert
from cloud_pruner.images import load_images
from cloud_pruner.quantization import QUANTIZE_KINDS

if TYPE_CHECKING:
    import argparse

__all__ = ["add_command"]


def add_command(commands: Any) -> None:
    """Add `capnn convert` to the subcommands."""
    parser = commands.add_parser(
        "convert",
        help="turn a trained Keras classifier into a .tflite",
        description="Convert a .keras or .h5 file or a SavedModel folder to a batch-1 .tflite, float32 or quantised.\n"
        "The result is compared with the original on real images before it is written.",
        example="capnn convert model.keras -o base.tflite --data images/ --mean 0.49,0.48,0.45 --std 0.25,0.24,0.26",
    )
    parser.add_argument("source", type=Path, metavar="MODEL", help=".keras or .h5 file, or SavedModel folder")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="the .tflite to write")
    parser.add_argument(
        "--data", type=Path, metavar="PATH", help="images to compare on: a folder per class, or .npz (default: random)"
    )
    parser.add_argument(
        "--quantize",
        choices=QUANTIZE_KINDS,
        default="none",
        help="float16: half-size weights; dynamic: int8 weights; int8: all int8, which needs --data (default: none)",
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    add_preprocessing_options(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    images = load_images(arguments.data) if arguments.data else None
    preprocessing = preprocessing_from(arguments, images.pixels.shape[1:]) if images else None
    report = convert(
        arguments.source, arguments.output, images=images, preprocessing=preprocessing, quantize=arguments.quantize
    )
    if arguments.json:
        print_json({**dataclasses.asdict(report), "source": str(report.source), "path": str(report.path)})
        return 0
    print_table(
        f"{report.path}",
        ("", "value"),
        [
            ("bytes", f"{report.bytes:,}"),
            ("parameters", f"{report.parameters:,}"),
            ("input", "x".join(map(str, report.input_shape))),
            ("classes", str(report.classes)),
            ("stored as", "float32" if report.quantize == "none" else report.quantize),
            ("largest difference from the original", f"{report.max_difference:.1e} of the outputs' range"),
            ("same top class as the original", f"{report.top1_agreement:.1%}"),
            (
                "compared on",
                f"{report.images} {report.compared_on}" + (" inputs" if report.compared_on == "random" else ""),
            ),
            ("sha256", report.digest),
        ],
    )
    return 0
