"""Where the service keeps its state, for the commands that look into it or change it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cloud_pruner.errors import StateError
from cloud_pruner.service.settings import StateSettings
from cloud_pruner.service.settings_file import read_settings
from cloud_pruner.state import Database

if TYPE_CHECKING:
    import argparse

    from edge_runtime.commandline import CommandParser

__all__ = ["WHERE", "add_state_options", "open_state"]

WHERE = "--state /var/lib/capnn"
"""For examples."""


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
