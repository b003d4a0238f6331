"""Names and texts that others write, as the state takes them."""

from __future__ import annotations

import re
from typing import Final

from cloud_pruner.errors import RequestError

__all__ = ["TEXT_MAX", "checked_name", "line_of"]

TEXT_MAX: Final = 300
"""Letters of a text that is kept."""

_NAME_MAX: Final = 64
_NAME: Final = re.compile(rf"[A-Za-z0-9._-]{{1,{_NAME_MAX}}}")


def checked_name(name: str, what: str) -> str:
    """Return the name of a `what`, or raise RequestError; names stand in addresses and in file names."""
    if _NAME.fullmatch(name) is None or name in {".", ".."}:
        raise RequestError(
            f"{name!r:.80} is no name for a {what}: write 1 to {_NAME_MAX} of the letters A-Z a-z 0-9 . _ -"
        )
    return name


def line_of(text: str, limit: int = TEXT_MAX) -> str:
    """Return what somebody else wrote as one line that every database can hold."""
    return "".join(letter if letter.isprintable() else " " for letter in text[:limit])
