"""`python -m tests.edge_runtime.killing --seconds N`: end a device's process for so long, and say what was found."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from tests.edge_runtime.killing.run import run
from tests.edge_runtime.tiny_models import CLASSES, EAST, WEST, describe, tflite_file


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, metavar="N", help="how long (default 60)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of what power cuts lose (default 0)")
    arguments = parser.parse_args()
    base, west, east = (tflite_file(known) for known in (CLASSES, WEST, EAST))
    models = {
        "base": describe(base),
        "other base": describe(tflite_file(CLASSES, softmax=False)),
        "west": describe(west, base=base, usage=dict.fromkeys(WEST, 0.5)),
        "east": describe(east, base=base, usage=dict.fromkeys(EAST, 0.5)),
    }
    with tempfile.TemporaryDirectory() as folder:
        result = run(Path(folder), models, seconds=arguments.seconds, seed=arguments.seed)
    if result is None:
        sys.exit("there is no C compiler (cc) here")
    print(json.dumps(result, indent=2))
    return 1 if result["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
