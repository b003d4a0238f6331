"""The subcommands of `capnn`: their options, and what they call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cache import CacheError
from cloud_pruner.cli import (
    batch,
    cache,
    convert,
    demo,
    devices,
    evaluate,
    inspect,
    keys,
    operators,
    profile,
    prune,
    reproduce,
    rollout,
    serve,
)
from cloud_pruner.errors import PrunerError
from edge_runtime.commandline import CommandParser, run_command
from edge_runtime.errors import EdgeError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

__all__ = ["run"]


def run(argv: Sequence[str] | None = None) -> int:
    """Parse `argv` and run the subcommand it names."""
    parser = CommandParser(
        prog="capnn",
        description="Cut a trained classifier down to the classes that a user really meets, without retraining.",
        example="capnn convert model.keras -o base.tflite && capnn profile base.tflite --data images/ -o profile/\n"
        "  capnn prune profile/ --classes cat dog --weights 0.7 0.3 -o cut.tflite",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=CommandParser)
    for command in (
        inspect,
        convert,
        profile,
        prune,
        batch,
        evaluate,
        keys,
        serve,
        devices,
        operators,
        rollout,
        cache,
        reproduce,
        demo,
    ):
        command.add_command(commands)

    def action(arguments: argparse.Namespace) -> int:
        code: int = arguments.run(arguments)
        return code

    return run_command(parser, action, (PrunerError, EdgeError, CacheError), argv)
