"""How every file of the project is named and checked: by its sha256."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Final

from edge_runtime.errors import DigestError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["check_digest", "digest_of", "digest_of_file", "is_digest"]

_PIECE: Final = 1 << 20


def digest_of(content: bytes | bytearray | memoryview) -> str:
    """Return the sha256 of `content` in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def is_digest(text: str) -> bool:
    """Return whether this is a sha256 as the project writes it: 64 lower-case hexadecimal digits."""
    return re.fullmatch(r"[0-9a-f]{64}", text) is not None


def digest_of_file(path: Path) -> str:
    """Return the sha256 of a file, which may be larger than memory.

    Raises
    ------
    OSError
        It cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


def check_digest(content: bytes | bytearray | memoryview, expected: str, what: str) -> None:
    """Raise DigestError unless `content` has the digest `expected`; `what` names it in the message."""
    actual = digest_of(content)
    if actual != expected:
        raise DigestError(
            f"{what}: digest is {actual[:12]}…, promised was {expected[:12]}…: it was damaged or replaced on the way"
        )
