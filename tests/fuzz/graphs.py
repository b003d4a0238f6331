"""Cuts thousands of random networks and compares each cut with the masked whole: `make fuzz`.

The tests do the same with a few seeds of each kind (`tests/edge_runtime/test_random_graphs.py`). A failure is printed
with its seed, and its files are saved; `--kind KIND --seed SEED --count 1` repeats it.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from pathlib import Path

import numpy as np

from edge_runtime.flatmodel import BaseModel, PruningPlan, normalize
from tests.support.graph_checks import (
    check_cut,
    check_cutting_again,
    check_normalizing,
    check_parts,
    check_plan,
    random_images,
)
from tests.support.random_cuts import random_cuts
from tests.support.random_graphs import draw_graph
from tests.support.reference import masked_network
from tests.support.tflite_kinds import KINDS

CUTS = 4


def check_seed(kind, seed, keep):
    """Check `CUTS` cuts of one network, and cut each cut again; `keep` notes what is at hand when something fails."""
    keep.clear()
    keep["network.tflite"] = content = draw_graph(kind, seed).content
    rng = np.random.default_rng([seed, CUTS])
    keep["base.tflite"] = normalize(content)
    base = BaseModel(keep["base.tflite"])
    images = random_images(base, rng)
    check_normalizing(kind, content, images)
    for _ in range(CUTS):
        cuts = random_cuts(base, rng)
        keep["cut.plan"] = PruningPlan(base.digest, tuple(cuts)).to_bytes()
        keep["masked.tflite"] = masked_network(base, cuts)
        keep["cut.tflite"] = base.emit(cuts)
        check_cut(kind, base, cuts, images)
        check_plan(base, cuts)
        check_cutting_again(kind, base, cuts, images, rng)
    check_parts(kind, base, random_cuts(base, rng, folds=["none"]), images, rng)


def save(folder, kind, seed, keep):
    """Write what was at hand when `seed` failed, with the error; return the folder."""
    place = folder / f"{kind}-{seed}"
    place.mkdir(parents=True, exist_ok=True)
    for name, content in keep.items():
        (place / name).write_bytes(content)
    (place / "error.txt").write_text(traceback.format_exc())
    return place


def main():
    """Run until the count or the time is over, or Ctrl-C; exit with 1 if anything failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, help="networks of each kind (default: until the time is over)")
    parser.add_argument("--minutes", type=float, help="stop after this long (default: 10, or none with --count)")
    parser.add_argument("--seed", type=int, help="the first seed (default: drawn, and printed)")
    parser.add_argument("--kind", choices=KINDS, action="append", help="only this kind; may be given again")
    parser.add_argument("--output", type=Path, default=Path("fuzz-failures"), help="where failures are saved")
    arguments = parser.parse_args()
    first = int(np.random.default_rng().integers(2**31)) if arguments.seed is None else arguments.seed
    minutes = 10.0 if arguments.minutes is None and arguments.count is None else arguments.minutes
    print(f"first seed {first}", file=sys.stderr)
    started, done, failed, keep = time.monotonic(), 0, 0, {}
    jobs = (
        (kind, first + offset)
        for offset in (range(arguments.count) if arguments.count is not None else range(sys.maxsize))
        for kind in arguments.kind or KINDS
    )
    try:
        for kind, seed in jobs:
            if minutes is not None and time.monotonic() - started > 60 * minutes:
                break
            try:
                check_seed(kind, seed, keep)
            except Exception as error:  # noqa: BLE001 - whatever goes wrong is what this looks for
                failed += 1
                place = save(arguments.output, kind, seed, keep)
                message = (str(error).strip() or "no message").splitlines()[0]
                print(f"\n{kind} {seed}: {type(error).__name__}: {message} (saved in {place})", file=sys.stderr)
            done += 1
            if sys.stderr.isatty() or done % 100 == 0:
                end = "\r" if sys.stderr.isatty() else "\n"
                print(f"{done} networks, {failed} failed, seed {seed}", end=end, file=sys.stderr, flush=True)
    except KeyboardInterrupt:
        pass
    seconds = time.monotonic() - started
    print(f"\n{done} networks, {done * 2 * CUTS} cuts, {failed} failed, {seconds:.0f} s", file=sys.stderr)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
