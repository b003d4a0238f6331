"""The command `capnn`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run `capnn` and return its exit code; without the extra `cloud` say how to get it."""
    try:
        from cloud_pruner.cli.commands import run  # noqa: PLC0415 - needs packages that the device install lacks
    except ModuleNotFoundError as error:
        print(f"capnn: error: {error.name} is not installed: pip install 'capnn[cloud,plots]'", file=sys.stderr)
        return 1
    return run(argv)
