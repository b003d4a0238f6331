"""What somebody else wrote, fit for a line of a log or of an answer."""

from __future__ import annotations

from typing import Final

__all__ = ["one_line"]

_LENGTH_MAX: Final = 300


def one_line(text: str, length: int = _LENGTH_MAX) -> str:
    """Return `text` on one line, without what cannot be printed, and no longer than `length` characters."""
    if len(text) > length:
        text = f"{text[: length - 1]}…"
    return text if text.isprintable() else "".join(letter if letter.isprintable() else " " for letter in text)
