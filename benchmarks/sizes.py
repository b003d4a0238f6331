"""How small cuts get: variants W and L on the reference network for CIFAR-100, on random class sets.

`python -m benchmarks.sizes --json`; needs the reference data (`CAPNN_DATA`). Sizes are parameters relative to the base;
accuracy is top-1 over all outputs on the user's classes, on images that neither profile nor search saw.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.command import main
from benchmarks.networks import cifar100_vgg_small as network
from cloud_pruner.conversion import convert
from cloud_pruner.personalize import Personalizer
from cloud_pruner.profiling import build_profile
from cloud_pruner.requests import PruneRequest
from cloud_pruner.variants import VARIANTS

SETS = 20
SIZES = (2, 5, 10)


def measure() -> dict[str, Any]:
    """Return the JSON object: `ratios` are L's mean size and time over W's."""
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model.keras"
        network.build().save(model)
        unseen = network.unseen_images()
        convert(model, Path(folder) / "base.tflite", images=unseen, preprocessing=network.PREPROCESSING)
        content = (Path(folder) / "base.tflite").read_bytes()
        profile = build_profile(
            content, network.train_images(), network.PREPROCESSING, Path(folder) / "profile", unseen=unseen
        )
        personalizer = Personalizer(profile)
        rows = [_row(personalizer, k, variant) for k in SIZES for variant in VARIANTS]
    means = {(row["k"], row["variant"]): row for row in rows}
    ratios = {}
    for k in SIZES:
        ratios[f"size_l_over_w_k{k}"] = means[k, "L"]["relative_size"] / means[k, "W"]["relative_size"]
        ratios[f"seconds_l_over_w_k{k}"] = means[k, "L"]["seconds"] / means[k, "W"]["seconds"]
    return {"ratios": ratios, "context": {"network": "cifar100_vgg_small", "sets": SETS, "epsilon": 0.03, "rows": rows}}


def _row(personalizer: Personalizer, k: int, variant: str) -> dict[str, Any]:
    rng = np.random.default_rng(k)  # the same class sets for each variant
    classes = personalizer.profile.classes
    figures = []
    for number in range(SETS):
        names = [classes[label] for label in rng.choice(len(classes), k, replace=False)]
        weights = np.ones(k) if number % 2 else rng.dirichlet(np.ones(k))
        answer = personalizer.personalize(PruneRequest(dict(zip(names, weights.tolist(), strict=True)), variant))
        gains = [f.accuracy - f.base_accuracy for f in answer.held_out.values()]
        figures.append(
            (
                answer.manifest.relative_size,
                float(np.mean(gains)),
                float(np.mean([gain < -0.03 for gain in gains])),
                answer.seconds,
            )
        )
    size, gain, beyond, seconds = np.mean(figures, axis=0).tolist()
    spread = float(np.std([row[0] for row in figures], ddof=1))
    return {
        "k": k,
        "variant": variant,
        "relative_size": size,
        "relative_size_std": spread,
        "gain": gain,
        "share_beyond_epsilon": beyond,
        "seconds": seconds,
    }


if __name__ == "__main__":
    main(measure)
