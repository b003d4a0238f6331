"""Reads a TOML file of settings, and finds the line that each stands on."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any

from edge_runtime.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["TomlFileError", "read_toml"]

_HEADER = re.compile(r"\s*\[\s*([\w.\- \"']+?)\s*\]\s*(#.*)?$")
_ASSIGNMENT = re.compile(r"\s*([\w.\- \"']+?)\s*=")


class TomlFileError(ConfigError):
    """A file is no TOML, or cannot be read.

    Attributes
    ----------
    where
        The file, with the line where there is one.
    text
        What is wrong, and what to do.
    """

    def __init__(self, where: str, text: str) -> None:
        super().__init__(f"{where}: {text}")
        self.where, self.text = where, text


def read_toml(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Return what the file says, and for each table and setting, by its full name, where it says so: "edge.toml:12".

    Raises
    ------
    TomlFileError
        It cannot be read, or is no TOML.
    """
    try:
        text = path.read_bytes().decode("utf-8")
        given = tomllib.loads(text)
    except OSError as error:
        raise TomlFileError(str(path), f"cannot be read ({error.strerror}): check the name after --config") from error
    except tomllib.TOMLDecodeError as error:
        reason, line = _without_line(str(error))
        raise TomlFileError(f"{path}:{line}", f"is not valid TOML: {reason}") from error
    except UnicodeDecodeError as error:
        raise TomlFileError(str(path), f"is not UTF-8 text ({error.reason}): save it as UTF-8") from error
    return given, {name: f"{path}:{line}" for name, line in _lines(text).items()}


def _without_line(message: str) -> tuple[str, int]:
    """Split what the parser says into the reason and the line, which for the end of the file it does not number."""
    found = re.fullmatch(r"(.*) \(at line (\d+), column \d+\)", message)
    return (found[1], int(found[2])) if found else (message, 1)


def _lines(text: str) -> dict[str, int]:
    """Return the line of each table and setting, by its full name; of one written another way than usual, none."""
    lines: dict[str, int] = {}
    table = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _HEADER.match(line):
            table = _plain(header[1])
            lines.setdefault(table, number)
        elif assignment := _ASSIGNMENT.match(line):
            lines.setdefault(".".join(filter(None, (table, _plain(assignment[1])))), number)
    return lines


def _plain(name: str) -> str:
    return re.sub(r"[\s\"']", "", name)
