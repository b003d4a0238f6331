"""Where the service keeps its state, for the commands that look into it or change it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from cloud_pruner.cli.terminal import print_json
from cloud_pruner.errors import StateError
from cloud_pruner.service.settings import StateSettings
from cloud_pruner.service.settings_file import read_settings
from cloud_pruner.state import Database

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from edge_runtime.commandline import CommandParser

__all__ = ["WHERE", "add_action", "add_name", "add_state_options", "open_state", "print_token"]

_Of = TypeVar("_Of")

WHERE = "--state /var/lib/capnn"
"""For examples."""


def add_action(
    actions: Any,
    command: str,
    what: str,
    of: Callable[[Database], _Of],
    run: Callable[[argparse.Namespace, _Of], None],
    *,
    make: bool = False,
) -> Any:
    """Add an action on the state of a service; return its parser.

    Parameters
    ----------
    command
        As in the example, without the state: "devices register porch". Its second word is the action's name.
    what
        What it does, as the start of a sentence.
    of
        Makes what `run` works on.
    make
        Whether a state that is not there yet is made.
    """
    name = command.split()[1]
    parser = actions.add_parser(
        name, help=what, description=f"{what[0].upper()}{what[1:]}.", example=f"capnn {command} {WHERE}"
    )
    add_state_options(parser)

    def with_state(arguments: argparse.Namespace) -> int:
        with open_state(arguments, make=make) as database:
            run(arguments, of(database))
        return 0

    parser.set_defaults(run=with_state)
    return parser


def add_name(action: Any, whose: str) -> None:
    """Add the name of the device or operator that an action is about."""
    action.add_argument("name", metavar="NAME", help=f"of the {whose}: up to 64 of the letters A-Z a-z 0-9 . _ -")


def print_token(arguments: argparse.Namespace, token: str) -> None:
    """Print a new token, the only time that it is to be seen."""
    if arguments.json:
        print_json({"name": arguments.name, "token": token})
    else:
        print(token)


def add_state_options(parser: CommandParser) -> None:
    """Add `--state`, `--config` and `--json`."""
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--state", type=Path, metavar="DIR", help="as given to 'capnn serve --state'")
    where.add_argument("--config", type=Path, metavar="FILE", help="as given to 'capnn serve --config'")
    parser.add_argument("--json", action="store_true", help="print the same as JSON")


def open_state(arguments: argparse.Namespace, *, make: bool = False) -> Database:
    """Open the database that the options name; `make`: also one that is not there yet.

    Raises
    ------
    StateError
        It cannot be opened, or is not there.
    StateVersionError, ConfigError
        It is not a service's state; the file of settings is wrong.
    """
    if arguments.config is not None:
        return Database.open(read_settings(arguments.config).state.database)
    folder: Path = arguments.state
    if make:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    elif not (folder / "state.sqlite").exists():
        raise StateError(f"{folder}: holds no state of a service: give the folder of 'capnn serve --state'")
    return Database.open(StateSettings.in_folder(folder).database)
