"""The command `capnn-hw`: what a .tflite costs on an accelerator, and what a cut of it saves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from edge_runtime.commandline import CommandParser, run_command
from edge_runtime.errors import EdgeError
from hwmodel.accelerator import DAC20, PRESETS
from hwmodel.errors import HardwareError
from hwmodel.report import compare, estimate
from hwmodel.table import comparison_text, report_text

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from hwmodel.report import Report

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = CommandParser(
        prog="capnn-hw",
        description="Estimate MACs, memory words and energy of one inference of a model on a TPU-like accelerator.",
        example="capnn-hw base.tflite --compare cut.tflite",
    )
    parser.add_argument("model", type=Path, metavar="MODEL.tflite", help="the model")
    parser.add_argument(
        "--compare", type=Path, metavar="CUT.tflite", help="a cut of the model: print the ratio of each figure"
    )
    parser.add_argument(
        "--preset", choices=sorted(PRESETS), default=DAC20.name, help="the accelerator (default: %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON, energies in pJ")
    return run_command(parser, _run, (EdgeError, HardwareError), argv)


def _run(arguments: argparse.Namespace) -> int:
    base = _estimate(arguments.model, arguments.preset)
    if arguments.compare is None:
        print(json.dumps(base.to_dict(), indent=2) if arguments.json else report_text(base))
        return 0
    comparison = compare(base, _estimate(arguments.compare, arguments.preset))
    print(json.dumps(comparison.to_dict(), indent=2) if arguments.json else comparison_text(comparison))
    return 0


def _estimate(path: Path, preset: str) -> Report:
    return estimate(path.read_bytes(), PRESETS[preset], name=str(path))
