"""What it costs a device to see which classes come up: time beside an inference, and at the end of a period.

`python -m benchmarks.monitor --json`; needs the reference networks (`CAPNN_DATA`). `monitor_over_inference` is the time
that `UsageMonitor.observe` takes, with a journal, over that of an inference of VGG-16 for CIFAR-10 at half width
(float32, one thread). It is the mean of what a device does: one image in five is answered by the base, which counts,
the others by a cut, which do not. The times of both take turns, and the best of each counts. The context has both kinds
apart, and `decide` at the end of a period with all answers that are kept: of users of 5 classes of 10, 100 and 1000.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.command import main
from benchmarks.networks import cifar10_vgg16_half
from cloud_pruner.conversion import convert
from edge_runtime.config import MonitorConfig
from edge_runtime.interpreter import LoadedModel
from edge_runtime.monitor import UsageMonitor
from edge_runtime.observation import Observation
from edge_runtime.usage_change import WINDOW
from edge_runtime.usage_journal import UsageJournal
from edge_runtime.wire import Manifest

if TYPE_CHECKING:
    from numpy.typing import NDArray

AUDIT_EVERY = 5
ROUNDS = 50
CALLS = 20
IN_USE = 5


def measure() -> dict[str, Any]:
    """Return the JSON object: `monitor_over_inference`."""
    with tempfile.TemporaryDirectory() as folder:
        model = _inference(Path(folder))
        journal = UsageJournal(Path(folder) / "usage.journal")
        base = _base(10)
        monitor = UsageMonitor(MonitorConfig(period=10**9), journal)
        monitor.serve(base, None)
        counted, passed = (
            Observation(manifest, 0, 0.9, 0.001, audited=True, probabilities=_answers(10, 1)[0])
            for manifest in (base, replace(base, digest="1" * 64))
        )
        image = np.random.default_rng(0).normal(size=(1, *model.input_shape)).astype(np.float32)
        times = np.empty((ROUNDS, 3))
        for row in times:
            start = time.perf_counter()
            model.run(image)
            row[0] = time.perf_counter() - start
            for place, observation in ((1, counted), (2, passed)):
                start = time.perf_counter()
                for _ in range(CALLS):
                    monitor.observe(observation)
                row[place] = (time.perf_counter() - start) / CALLS
        monitor.close()
    inference_s, counted_s, passed_s = times.min(axis=0).tolist()
    observe_s = (counted_s + (AUDIT_EVERY - 1) * passed_s) / AUDIT_EVERY
    return {
        "ratios": {"monitor_over_inference": observe_s / inference_s},
        "context": {
            "inference_s": inference_s,
            "observe_s": observe_s,
            "observe_counted_s": counted_s,
            "observe_passed_s": passed_s,
            "audit_every": AUDIT_EVERY,
            "decide_s": {str(classes): _decide_s(classes) for classes in (10, 100, 1000)},
        },
    }


def _inference(folder: Path) -> LoadedModel:
    network = cifar10_vgg16_half
    network.build().save(folder / "model.keras")
    convert(folder / "model.keras", folder / "base.tflite", preprocessing=network.PREPROCESSING)
    return LoadedModel((folder / "base.tflite").read_bytes())


def _decide_s(classes: int) -> float:
    """Return the median time of `decide`, a new class having come up in the last third of what is kept."""
    base = _base(classes)
    answers = _answers(classes, WINDOW)
    seconds = []
    for _ in range(5):
        monitor = UsageMonitor(MonitorConfig(period=WINDOW), None)
        usage = {base.classes[label]: 1 / (IN_USE - 1) for label in range(IN_USE - 1)}
        monitor.serve(base, replace(base, digest="1" * 64, usage=usage))
        for answer in answers:
            monitor.observe(Observation(base, 0, 0.9, 0.001, audited=True, probabilities=answer))
        start = time.perf_counter()
        asked = monitor.decide()
        seconds.append(time.perf_counter() - start)
        assert asked is not None
    return statistics.median(seconds)


def _answers(classes: int, images: int) -> NDArray[np.float32]:
    """Return probabilities `(images, classes)` of images of the first classes, the last of them late."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(images, classes))
    late = np.arange(images) >= images * 2 // 3
    logits[np.arange(images), np.where(late, rng.integers(0, IN_USE, images), rng.integers(0, IN_USE - 1, images))] += 8
    values = np.exp(logits)
    shares: NDArray[np.float32] = (values / values.sum(axis=1, keepdims=True)).astype(np.float32)
    return shares


def _base(classes: int) -> Manifest:
    return Manifest(
        digest="0" * 64,
        bytes=1,
        base="0" * 64,
        profile="",
        classes=tuple(f"class {number}" for number in range(classes)),
        preprocessing=cifar10_vgg16_half.PREPROCESSING,
        usage={},
        variant="none",
        epsilon=0.0,
        guarantee="none",
        relative_size=1.0,
        parameters=1,
        per_class={},
        cache_tier="none",
    )


if __name__ == "__main__":
    main(measure)
