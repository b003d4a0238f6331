"""How long clients wait for an answer while models are swapped, against how long they wait otherwise.

`python -m benchmarks.swap --json`; needs the reference networks (`CAPNN_DATA`): VGG-16 for CIFAR-10 at half width,
float32, and two cuts of it with 60 % and 50 % of their units. Two clients classify images without a pause, on one
`EdgeClassifier`, while a third thread does all that an update does once its file has come: it tries the file in a child
process, loads it, stores it, and swaps it in. Then it waits as long as the images before took.

`p99_during_over_before` is the 99th percentile of the latency of the images that a client waited for while an update
was under way, over that of the images before and between updates.
"""

from __future__ import annotations

import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.command import main
from benchmarks.networks import cifar10_vgg16_half as network
from cloud_pruner.conversion import convert
from edge_runtime.classifier import EdgeClassifier
from edge_runtime.digests import digest_of
from edge_runtime.flatmodel import BaseModel, LayerCut, normalize
from edge_runtime.self_test import expected_answer, self_test_images
from edge_runtime.serving import Models, ServingModel
from edge_runtime.slots import BASE, ModelSlots, StoredModel
from edge_runtime.trial import try_model
from edge_runtime.wire import Manifest, SelfTest

if TYPE_CHECKING:
    from numpy.typing import NDArray

CLIENTS = 2
SWAPS = 20
PAUSE_S = 1.0
KEPT = (0.6, 0.5)


def measure() -> dict[str, Any]:
    """Return the JSON object: `p99_during_over_before`, of the latency of single images."""
    base, *cuts = _models()
    with tempfile.TemporaryDirectory() as folder:
        slots = ModelSlots(Path(folder))
        slots.install_base(base)
        classifier = EdgeClassifier(Models(ServingModel(base, BASE)))
        clients = [_Client(classifier, network.unseen_images().pixels[:100]) for _ in range(CLIENTS)]
        for client in clients:
            client.start()
        time.sleep(PAUSE_S)
        updates = [_update(slots, classifier, cuts[number % 2], "ab"[number % 2]) for number in range(SWAPS)]
        for client in clients:
            client.stop()
    times = np.concatenate([np.array(client.times) for client in clients])
    latencies = times[:, 1] - times[:, 0]
    during = np.zeros(len(times), dtype=bool)
    for begun, *_, ended in updates:
        during |= (times[:, 1] > begun) & (times[:, 0] < ended)
    steps = np.median(np.diff(np.array(updates), axis=1), axis=0)
    before, while_swapping = latencies[~during], latencies[during]
    return {
        "ratios": {"p99_during_over_before": float(np.quantile(while_swapping, 0.99) / np.quantile(before, 0.99))},
        "context": {
            "clients": CLIENTS,
            "swaps": SWAPS,
            "before_s": _quantiles(before),
            "during_s": _quantiles(while_swapping),
            "update_s": dict(zip(("trial", "load", "store and swap"), steps.tolist(), strict=True)),
            "model_bytes": base.manifest.bytes,
        },
    }


def _quantiles(latencies: NDArray[np.float64]) -> dict[str, float]:
    shares = {"median": 0.5, "p99": 0.99, "largest": 1.0}
    return {"images": len(latencies), **{name: float(np.quantile(latencies, q)) for name, q in shares.items()}}


class _Client(threading.Thread):
    """Classifies images one after the other; `times` are when each was asked about and answered."""

    def __init__(self, classifier: EdgeClassifier, images: NDArray[np.uint8]) -> None:
        super().__init__(daemon=True)
        self.times: list[tuple[float, float]] = []
        self._classifier = classifier
        self._images = images
        self._stopping = threading.Event()

    def run(self) -> None:
        while not self._stopping.is_set():
            for image in self._images:
                begun = time.perf_counter()
                self._classifier.classify_pixels(image)
                self.times.append((begun, time.perf_counter()))

    def stop(self) -> None:
        self._stopping.set()
        self.join()


def _update(
    slots: ModelSlots, classifier: EdgeClassifier, stored: StoredModel, slot: str
) -> tuple[float, float, float, float]:
    """Do what an update does, then pause; return when it began, and when each of its steps was over."""
    begun = time.perf_counter()
    try_model(stored.content, stored.manifest, threads=1)
    tried = time.perf_counter()
    model = ServingModel(stored, slot)
    loaded = time.perf_counter()
    slots.install_cut(stored, slot)
    classifier.swap(cut=model)
    swapped = time.perf_counter()
    time.sleep(PAUSE_S)
    return begun, tried, loaded, swapped


def _models() -> list[StoredModel]:
    """Return the network, and a cut of it for each of `KEPT`."""
    with tempfile.TemporaryDirectory() as folder:
        network.build().save(Path(folder) / "model.keras")
        convert(Path(folder) / "model.keras", Path(folder) / "base.tflite", preprocessing=network.PREPROCESSING)
        base = BaseModel(normalize((Path(folder) / "base.tflite").read_bytes()))
    groups = [base.channels.groups[number] for number in base.channels.prunable]
    cuts = [
        base.emit(LayerCut(g.tensors[0], g.units, np.arange(max(1, int(g.units * kept)))) for g in groups)
        for kept in KEPT
    ]
    return [_described(bytes(content), bytes(base.content)) for content in (base.content, *cuts)]


def _described(content: bytes, base: bytes) -> StoredModel:
    """Return the model with a manifest, and a self-test of eight images."""
    outputs = 10
    manifest = Manifest(
        digest=digest_of(content),
        bytes=len(content),
        base=digest_of(base),
        profile="0" * 64,
        classes=tuple(map(str, range(outputs))),
        preprocessing=network.PREPROCESSING,
        usage={},
        variant="W",
        epsilon=0.03,
        guarantee="none",
        relative_size=len(content) / len(base),
        parameters=len(content) // 4,
        per_class={},
        cache_tier="search",
    )
    model = ServingModel(StoredModel(manifest, content))
    images = self_test_images(0, 8, network.PREPROCESSING.shape)
    expected = tuple(expected_answer(model.probabilities(image)) for image in images)
    fields = {**manifest.to_fields(), "self_test": SelfTest(0, expected, 1e-3).to_fields()}
    return StoredModel(Manifest.from_fields(fields), content)


if __name__ == "__main__":
    main(measure)
