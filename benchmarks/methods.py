"""How small cuts get: CAP'NN's variants, ours and the baselines, on the trained reference networks.

`python -m benchmarks.methods --json`; needs the reference data (`CAPNN_DATA`), and hours. Sizes are parameters
relative to the base; top-1 is over all outputs on the user's classes, on images that neither profile nor search saw.
"""

from __future__ import annotations

import os
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.command import main
from benchmarks.profiles import profiled
from cloud_pruner.evaluation import evaluate
from cloud_pruner.evaluation_sets import RESTRICTED, EvaluationSettings
from cloud_pruner.evaluation_summary import summarise
from cloud_pruner.methods import METHODS
from cloud_pruner.profiling import ProfileSettings

# Network -> depth, K, and images a class to profile, to select and to report.
NETWORKS: dict[str, tuple[int | None, tuple[int, ...], tuple[int, int, int]]] = {
    "cifar100_vgg_small": (6, (2, 5, 10), (100, 50, 40)),
    "cifar10_mlperf_resnet8": (None, (2, 3, 5), (200, 300, 400)),
    "cifar10_resnet20": (None, (2, 3, 5), (150, 200, 400)),
    "cifar10_resnet56": (None, (2, 3, 5), (100, 100, 400)),  # more to select on would take a day
}
SETS = 20
PAPER = ("B", "W", "M")
OURS = "L"


def measure() -> dict[str, Any]:
    """Return the JSON object: `ratios` are L's mean size over the smallest of B, W and M, for each network and K."""
    ratios: dict[str, float] = {}
    context: dict[str, Any] = {"sets": SETS, "epsilon": 0.03}
    methods = tuple(name for name in METHODS if not name.startswith("M-"))
    for name, (depth, sizes, (profiled_on, select, report)) in NETWORKS.items():
        with tempfile.TemporaryDirectory() as folder:
            images: dict[str, int | None] = {"profile": profiled_on, "select": select, "certify": 10, "report": report}
            made_with = ProfileSettings(depth=depth, images=images, keras=Path(folder) / "model.keras")
            profile = profiled(import_module(f"benchmarks.networks.{name}"), Path(folder), made_with)
            settings = EvaluationSettings((*methods, RESTRICTED), sizes, SETS)
            summaries = summarise(evaluate(profile, settings, jobs=os.cpu_count() or 1))
        means = {(s.k, s.method): mean.mean for s in summaries if (mean := s.means["relative_size"]) is not None}
        for k in sizes:
            ratios[f"l_over_best_of_b_w_m_{name}_k{k}"] = means[k, OURS] / min(means[k, other] for other in PAPER)
        context[name] = [summary.to_fields() for summary in summaries]
    return {"ratios": ratios, "context": context}


if __name__ == "__main__":
    main(measure)
