"""How every command of the project ends: exit codes, one clear line for a failure, `--debug` for the traceback."""

from __future__ import annotations

import argparse
import sys
import traceback
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["CommandParser", "run_command"]


class CommandParser(argparse.ArgumentParser):
    """An argument parser whose help keeps the line breaks of its examples and that has no abbreviated options."""

    def __init__(self, *, example: str = "", **options: object) -> None:
        super().__init__(
            epilog=f"example:\n  {example}" if example else None,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
            **options,  # type: ignore[arg-type]
        )
        # On every (sub)command; suppressed, so that a subcommand's default does not undo what stood before it.
        self.add_argument(
            "--debug", action="store_true", default=argparse.SUPPRESS, help="show the traceback of a failure"
        )


def run_command(
    parser: argparse.ArgumentParser,
    action: Callable[[argparse.Namespace], int],
    errors: tuple[type[Exception], ...],
    argv: Sequence[str] | None = None,
) -> int:
    """Parse `argv`, run `action` and return the process's exit code.

    0 is success, 1 a failure (one line on stderr), 2 wrong usage (argparse's own), 130 an interrupt. `errors` are the
    exceptions that a command raises on purpose; with them and with the operating system's errors there is no traceback
    unless `--debug` is given.
    """
    arguments = parser.parse_args(argv)
    try:
        return action(arguments)
    except KeyboardInterrupt:
        print(f"{parser.prog}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of our output has gone (`| head`): nobody is left to tell.
        sys.stderr.close()
        return 1
    except (*errors, OSError) as error:  # type: ignore[misc] # mypy has no types for an unpacked tuple of classes
        if getattr(arguments, "debug", False):
            traceback.print_exc()
        print(f"{parser.prog}: error: {_line(error)}", file=sys.stderr)
        return 1


def _line(error: Exception) -> str:
    """Return what an error says on one line: the operating system's without its number."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return " ".join(str(error).split())
