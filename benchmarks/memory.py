"""How much memory a service takes to cut a model, beyond what the interpreter alone takes to run it.

`python -m benchmarks.memory --json`; needs the reference data (`CAPNN_DATA`), and Linux. Two fresh processes for each
network: one opens a profile and answers one request (variant L, five classes, guarantee "empirical"), the other has
only the interpreter, with the base model loaded and run on one image. Peaks of resident memory: all imports, and what
was touched of mapped files, are in them. `request_over_interpreter_*` is peak over peak; the context has both and
their difference, `beyond_interpreter_mb`, in megabytes.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.command import main


def measure() -> dict[str, Any]:
    """Return the JSON object: `request_over_interpreter_*`, and the peaks."""
    from benchmarks.profiles import profiled  # noqa: PLC0415 - the measured processes do without
    from benchmarks.search import IMAGES, NETWORKS  # noqa: PLC0415 - likewise
    from cloud_pruner.profiling import ProfileSettings  # noqa: PLC0415 - likewise

    peaks = {}
    for name, network in NETWORKS.items():
        with tempfile.TemporaryDirectory() as folder:
            profiled(network, Path(folder), ProfileSettings(images=dict(IMAGES)))
            peaks[name] = {part: _peak(part, folder) for part in ("interpreter", "request")}
    ratios = {f"request_over_interpreter_{name}": peak["request"] / peak["interpreter"] for name, peak in peaks.items()}
    context = {
        name: {
            "interpreter_mb": peak["interpreter"],
            "request_mb": peak["request"],
            "beyond_interpreter_mb": peak["request"] - peak["interpreter"],
        }
        for name, peak in peaks.items()
    }
    return {"ratios": ratios, "context": context}


def interpreter(folder: str) -> None:
    """Run the base model in `folder` on one image."""
    import numpy as np  # noqa: PLC0415 - so that each process has what it needs and no more

    from edge_runtime.interpreter import LoadedModel  # noqa: PLC0415 - likewise

    model = LoadedModel((Path(folder) / "base.tflite").read_bytes())
    model.run(np.zeros((1, *model.input_shape), np.float32))


def request(folder: str) -> None:
    """Open the profile in `folder` and answer a request."""
    from cloud_pruner.personalize import Personalizer  # noqa: PLC0415 - as above
    from cloud_pruner.profile import Profile  # noqa: PLC0415 - likewise
    from cloud_pruner.requests import PruneRequest  # noqa: PLC0415 - likewise

    profile = Profile.open(Path(folder) / "profile")
    usage = dict.fromkeys(profile.classes[:5], 1.0)
    Personalizer(profile).personalize(PruneRequest(usage, variant="L", guarantee="empirical"))


def _peak(part: str, folder: str) -> float:
    """Return the peak resident memory (MB) of a process that does one of the functions above."""
    # Not getrusage: what it calls the peak counts the memory of the process that started this one.
    code = f"from benchmarks import memory; memory.{part}({folder!r}); print(open('/proc/self/status').read())"
    status = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    peak = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert peak is not None
    return int(peak[1]) * 1024 / 1e6


if __name__ == "__main__":
    main(measure)
