"""Files that hold a secret, a bearer token or a password, and where secrets may be sent."""

from __future__ import annotations

import ipaddress
import os
import stat
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from edge_runtime.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["is_private", "read_secret"]

_BYTES_MAX = 4096
# Everybody's rights, and the group's to write. The group may read: that is how systemd hands credentials to a service.
_TOO_OPEN = stat.S_IRWXO | stat.S_IWGRP


def read_secret(path: Path) -> str:
    """Return the one line that `path` holds.

    Raises
    ------
    ConfigError
        The file cannot be read, others than its owner and group may read it, or it is not one line of printable ASCII.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}): give it to the user of the daemon") from error
    if mode & _TOO_OPEN:
        raise ConfigError(f"{path}: has mode {stat.S_IMODE(mode):04o}, too open for a secret: chmod o=,g-w {path}")
    secret = content.strip()
    if not secret or len(content) > _BYTES_MAX or not (secret.isascii() and secret.decode("latin-1").isprintable()):
        raise ConfigError(f"{path}: is not one line of printable text: put the secret there, and nothing else")
    return secret.decode("ascii")


def is_private(url: str) -> bool:
    """Whether nobody on the way can read what is sent to `url`."""
    address = urlsplit(url)
    if address.scheme == "https" or address.hostname == "localhost":
        return True
    try:
        return ipaddress.ip_address(address.hostname or "").is_loopback
    except ValueError:
        return False
