"""`capnn demo`: the whole loop on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse

__all__ = ["add_command"]


def add_command(commands: Any) -> None:
    """Add `capnn demo` to the subcommands."""
    parser = commands.add_parser(
        "demo",
        help="see the whole loop on this machine",
        description="Train a small network on handwritten digits, profile it, start the cloud service and a device,\n"
        "and play users whose interests change. Prints what happens and writes a report with plots.",
        example="capnn demo -o demo-report",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("demo-report"),
        metavar="FOLDER",
        help="the report (default: demo-report)",
    )
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from cloud_pruner.demo import play  # noqa: PLC0415 - TensorFlow and matplotlib: the other commands start faster

    return play(arguments.output, as_json=arguments.json)
