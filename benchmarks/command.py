"""What every benchmark's command does: measure, and print one JSON object with `ratios` and `context`."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from typing import TYPE_CHECKING, Any

from benchmarks.data import capnn_data

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["main"]


def main(measure: Callable[[], dict[str, Any]], *, needs_data: bool = True) -> None:
    """Run `measure` and print its result; without the reference data that it needs, say so in the same form."""
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument("--json", action="store_true", help="print on one line")
    arguments = parser.parse_args()
    if needs_data and capnn_data() is None:
        result: dict[str, Any] = {"ratios": {}, "context": {"skipped": "CAPNN_DATA is not set: no reference data here"}}
    else:
        result = measure()
    result["context"]["machine"] = {
        "cpus": os.cpu_count(),
        "machine": platform.machine(),
        "python": platform.python_version(),
    }
    print(json.dumps(result, indent=None if arguments.json else 2))
