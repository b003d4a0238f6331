"""What a batch takes for a fleet of 100,000 devices with the small VGG for CIFAR-100, and what workers and Ray gain.

`python -m benchmarks.batch --json`; needs the reference data (`CAPNN_DATA`), and a quarter of an hour on two free
cores. The fleet: 300 sets of 2 to 5 classes, drawn by Zipf's law with exponent 1.0 (`cloud_pruner.cache_study.trace`);
each device has one of them, the popular ones more often by the same law, and weights of its own. Variant L, certified
(epsilon 10 %, since there are but 50 certify images a class). The command itself is run, in processes of its own:

1. the whole fleet, on two workers; then once more, with nothing left to search;
2. the same, its driver killed when half is searched, and started again: the digest must be that of 1;
3. a slice of 40 sets, on one and two workers of each engine.

Ratios: `shared` is the share of requests that take the cut of another; `local_speedup` and `ray_speedup` are searches
a second on two workers over those on one, from the first answer on; `ray_over_local` compares two workers of each;
`half_lost` is the share of searches that a kill at half way costs.
"""

from __future__ import annotations

import importlib
import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.command import main
from benchmarks.profiles import profiled
from cache import SqliteStore
from cloud_pruner.cache_study.trace import TraceSettings, make_trace
from cloud_pruner.profiling import ProfileSettings

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cloud_pruner.profile import Profile

NETWORK = "cifar100_vgg_small"
DEVICES = 100_000
SETS = 300
SLICE = 40
WORKERS = 2
IMAGES = {"select": 50, "certify": 50}
EPSILON = 0.1
ZIPF = 1.0
SEED = 0


def measure() -> dict[str, Any]:
    """Return the JSON object."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        settings = ProfileSettings(images=dict(IMAGES))
        profile = profiled(importlib.import_module(f"benchmarks.networks.{NETWORK}"), folder, settings)
        sets = class_sets(profile.classes)
        write_requests(folder / "fleet.jsonl", fleet(sets))
        write_requests(folder / "slice.jsonl", ({"device": f"d-{n}", "usage": s} for n, s in enumerate(sets[:SLICE])))
        return _measured(profile, folder)


def class_sets(classes: Sequence[str]) -> list[dict[str, float]]:
    """Draw `SETS` different sets of classes, each with equal weights."""
    trace = make_trace(TraceSettings(len(classes), ZIPF, "steady", 20 * SETS, weighted=False, seed=SEED))
    rows = trace.classes[np.unique(trace.sets, return_index=True)[1][:SETS]].tolist()
    return [{classes[label]: 1.0 for label in row if label >= 0} for row in rows]


def fleet(sets: Sequence[dict[str, float]]) -> Iterable[dict[str, Any]]:
    """Yield the requests of the devices."""
    rng = np.random.default_rng(SEED)
    popularity = 1.0 / np.arange(1, len(sets) + 1) ** ZIPF
    for number, chosen in enumerate(rng.choice(len(sets), DEVICES, p=popularity / popularity.sum()).tolist()):
        weights = rng.dirichlet(np.ones(len(sets[chosen]))).round(3) + 0.001
        yield {"device": f"d-{number}", "usage": dict(zip(sets[chosen], weights.tolist(), strict=True))}


def write_requests(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write JSON lines."""
    with path.open("w", encoding="utf-8") as file:
        file.writelines(f"{json.dumps(row)}\n" for row in rows)


def _measured(profile: Profile, folder: Path) -> dict[str, Any]:
    whole = _Batch(profile, folder / "fleet.jsonl", folder / "whole", "local", WORKERS)
    first, again = whole.run(), whole.run()
    broken = _Batch(profile, folder / "fleet.jsonl", folder / "broken", "local", WORKERS)
    killed_at = broken.kill_at(SETS // 2)
    resumed = broken.run()
    slices = {
        f"{engine} {workers}": _Batch(
            profile, folder / "slice.jsonl", folder / f"{engine}{workers}", engine, workers
        ).run()
        for engine in ("local", "ray")
        for workers in (1, WORKERS)
    }
    rate = {name: result["rate"] for name, result in slices.items()}
    searched = killed_at + resumed["searched"]
    return {
        "ratios": {
            "shared": first["shared"],
            "local_speedup": rate[f"local {WORKERS}"] / rate["local 1"],
            "ray_speedup": rate[f"ray {WORKERS}"] / rate["ray 1"],
            "ray_over_local": rate[f"ray {WORKERS}"] / rate[f"local {WORKERS}"],
            "half_lost": searched / first["searched"] - 1.0,
        },
        "context": {
            "whole": first,
            "nothing_left": again,
            "killed_at": killed_at,
            "resumed": resumed,
            "slices": slices,
            "digests_agree": first["digest"] == again["digest"] == resumed["digest"]
            and len({result["digest"] for result in slices.values()}) == 1,
        },
    }


class _Batch:
    """The command, on one folder."""

    def __init__(self, profile: Profile, requests: Path, output: Path, engine: str, workers: int) -> None:
        program = "import sys; from cloud_pruner.cli import main; sys.exit(main())"
        options = ["-o", str(output), "--engine", engine, "--jobs", str(workers), "--epsilon", str(EPSILON), "--json"]
        self._command = [sys.executable, "-c", program, "batch", str(profile.folder), str(requests), *options]
        self._output = output

    def run(self) -> dict[str, Any]:
        """Run it to its end; return its summary, and answers a second from the first that was kept to the last."""
        print(f"{self._output.name}: begins", file=sys.stderr)
        printed = subprocess.run(self._command, stdout=subprocess.PIPE, check=True).stdout
        with SqliteStore(self._output / "plans.sqlite") as store:
            times = sorted(entry.created for entry in store.entries())
        return {**json.loads(printed), "rate": (len(times) - 1) / (times[-1] - times[0])}

    def kill_at(self, answers: int) -> int:
        """Kill its driver when so many answers are kept; return how many were."""
        print(f"{self._output.name}: begins, to be killed", file=sys.stderr)
        with subprocess.Popen(self._command, stdout=subprocess.DEVNULL) as process:
            while self._kept() < answers and process.poll() is None:
                time.sleep(0.2)
            process.send_signal(signal.SIGKILL)
        return self._kept()

    def _kept(self) -> int:
        path = self._output / "plans.sqlite"
        if not path.exists():
            return 0
        with SqliteStore(path, patient=True) as store:
            return len(store)


if __name__ == "__main__":
    main(measure)
