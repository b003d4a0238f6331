"""What the values of settings may be: a rule for each kind, kept in the metadata of a dataclass's field."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from edge_runtime.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "Rule",
    "choice",
    "hours",
    "keys",
    "number",
    "parse_hours",
    "path_name",
    "switch",
    "text",
    "web_address",
    "whole",
]


@dataclass(frozen=True, slots=True)
class Rule:
    """What a setting may be.

    Attributes
    ----------
    expected
        In words: "a whole number from 1 to 9".
    holds
        Whether the setting may have this value.
    read
        Returns a value of a TOML file as the setting holds it; one of the wrong type as it is.
    """

    expected: str
    holds: Callable[[Any], bool]
    read: Callable[[Any], Any] = lambda value: value


def _metadata(
    expected: str, holds: Callable[[Any], bool], read: Callable[[Any], Any] = lambda value: value
) -> dict[str, Rule]:
    return {"rule": Rule(expected, holds, read)}


def whole(low: int, high: int) -> dict[str, Rule]:
    """Return the rule of a whole number from `low` to `high`."""
    return _metadata(
        f"a whole number from {low} to {high}",
        lambda value: isinstance(value, int) and not isinstance(value, bool) and low <= value <= high,
    )


def number(low: float, high: float) -> dict[str, Rule]:
    """Return the rule of a number from `low` to `high`."""
    return _metadata(
        f"a number from {low:g} to {high:g}",
        lambda value: isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high,
    )


def switch() -> dict[str, Rule]:
    """Return the rule of true or false."""
    return _metadata("true or false", lambda value: isinstance(value, bool))


def text() -> dict[str, Rule]:
    """Return the rule of a text on one line that is not empty."""
    return _metadata("a text in quotes", _is_text)


def choice(*words: str) -> dict[str, Rule]:
    """Return the rule of one of `words`."""
    return _metadata(
        " or ".join(f'"{word}"' for word in words), lambda value: isinstance(value, str) and value in words
    )


def web_address() -> dict[str, Rule]:
    """Return the rule of a web service's address."""
    return _metadata("an address such as https://capnn.example.org", _is_web_address)


def hours() -> dict[str, Rule]:
    """Return the rule of a daily stretch of time, as `parse_hours` reads it."""
    return _metadata(
        'two times of day such as "01:00-05:00", or "22:30-06:00" over midnight',
        lambda value: isinstance(value, str) and parse_hours(value) is not None,
    )


def path_name(kind: str) -> dict[str, Rule]:
    """Return the rule of the name of a "file" or another `kind` of thing."""
    return _metadata(
        f"the name of a {kind} in quotes",
        lambda value: isinstance(value, Path),
        lambda value: Path(value) if _is_text(value) else value,
    )


def keys() -> dict[str, Rule]:
    """Return the rule of a cloud service's public keys."""
    return _metadata(
        'a list of one or more keys such as ["ed25519:..."], as capnn keys show prints them',
        _are_keys,
        lambda value: tuple(value) if isinstance(value, list) else value,
    )


def parse_hours(stretch: str) -> tuple[time, time] | None:
    """Return beginning and end of a daily stretch "HH:MM-HH:MM"; None where `stretch` is none.

    The end may be before the beginning: the stretch then goes over midnight. They are never equal.
    """
    found = re.fullmatch(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)", stretch, re.ASCII)
    if found is None:
        return None
    begin, end = time(int(found[1]), int(found[2])), time(int(found[3]), int(found[4]))
    return None if begin == end else (begin, end)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value) and value.isprintable()


def _is_web_address(value: Any) -> bool:
    if not isinstance(value, str):
        return False
    try:
        address = urlsplit(value)
        return (
            address.scheme in {"http", "https"}
            and bool(address.hostname)
            and (address.port is None or address.port > 0)
        )
    except ValueError:
        return False


def _are_keys(value: Any) -> bool:
    from edge_runtime.signing import TrustedKeys  # noqa: PLC0415 - most commands of the device need no settings

    if not isinstance(value, tuple) or not all(isinstance(key, str) for key in value):
        return False
    try:
        TrustedKeys.of(value)
    except ConfigError:
        return False
    return True
