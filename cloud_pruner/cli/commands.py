"""The subcommands of `capnn`: their options, and what they call."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Final

from cache import CacheError
from cloud_pruner.errors import PrunerError
from edge_runtime.commandline import CommandParser, run_command
from edge_runtime.errors import EdgeError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

__all__ = ["run"]

_COMMANDS: Final = (
    "inspect", "convert", "profile", "prune", "batch", "evaluate", "keys", "serve", "devices", "operators", "rollout",
    "cache", "reproduce", "demo",
)  # fmt: skip


def run(argv: Sequence[str] | None = None) -> int:
    """Parse `argv` and run the subcommand it names."""
    parser = CommandParser(
        prog="capnn",
        description="Cut a trained classifier down to the classes that a user really meets, without retraining.",
        example="capnn convert model.keras -o base.tflite && capnn profile base.tflite --data images/ -o profile/\n"
        "  capnn prune profile/ --classes cat dog --weights 0.7 0.3 -o cut.tflite",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=CommandParser)
    given = sys.argv[1:] if argv is None else argv
    # All of them take a second to import: the one that is named is enough, but for the help and for errors.
    for name in given[:1] if given and given[0] in _COMMANDS else _COMMANDS:
        import_module(f"cloud_pruner.cli.{name}").add_command(commands)

    def action(arguments: argparse.Namespace) -> int:
        code: int = arguments.run(arguments)
        return code

    return run_command(parser, action, (PrunerError, EdgeError, CacheError), argv)
