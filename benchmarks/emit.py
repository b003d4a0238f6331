"""How fast a personalised file is made: by slicing, by rebuilding the network and converting it, and by a plain copy.

`python -m benchmarks.emit --json`; networks with random weights, so it needs no data: VGG-16 for CIFAR-10 (4096-4096
head, as in the paper's study) and VGG-16 at 224x224. Of every hidden layer half the units are pruned, at random. The
plain copy takes as many bytes as the cut has, in one piece, from the same base into fresh memory: what no way of making
the file can beat. Both are measured in alternation; the medians count. Rebuilding and converting, seconds long, runs
once, and only for CIFAR.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.command import main
from cloud_pruner.conversion import convert
from edge_runtime.flatmodel import BaseModel, LayerCut, normalize
from edge_runtime.flatmodel.gather import is_compiled
from edge_runtime.preprocessing import Preprocessing

if TYPE_CHECKING:
    from collections.abc import Sequence

FEATURES = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0)  # 0: pooling
DENSE = (4096, 4096)
KEPT = 0.5
REPEATS = 25


def measure() -> dict[str, Any]:
    """Return the JSON object: `converter_over_emit_*` and `emit_over_copy_*`."""
    full, _ = _converted(32, 10, FEATURES, DENSE)
    cifar = _emit_and_copy(full)
    halves = ([int(width * KEPT) for width in widths] for widths in (FEATURES, DENSE))
    _, converter = _converted(32, 10, *halves)
    full, _ = _converted(224, 1000, FEATURES, DENSE)
    imagenet = _emit_and_copy(full)
    return {
        "ratios": {
            "converter_over_emit_cifar_vgg16": converter / cifar["emit_s"],
            "emit_over_copy_cifar_vgg16": cifar["emit_s"] / cifar["copy_s"],
            "emit_over_copy_vgg16": imagenet["emit_s"] / imagenet["copy_s"],
        },
        "context": {
            "compiled_gather": is_compiled(),
            "converter_s": converter,
            "cifar_vgg16": cifar,
            "vgg16": imagenet,
        },
    }


def _emit_and_copy(full: bytes) -> dict[str, float]:
    """Measure with the base as a service holds it."""
    with tempfile.NamedTemporaryFile(suffix=".tflite") as file:
        file.write(normalize(full))
        file.flush()
        base = BaseModel.load(file.name)
    cuts = [_cut(base, number) for number in base.channels.prunable]
    content = np.frombuffer(base.content, np.uint8)
    size = len(base.emit(cuts))
    emits, copies = [], []
    for _ in range(REPEATS):
        start = time.perf_counter()
        cut = base.emit(cuts)
        emits.append(time.perf_counter() - start)
        del cut  # giving the memory back is no part of making the file, nor of copying it
        start = time.perf_counter()
        copy = np.empty(size, np.uint8)
        copy[:] = content[-size:]
        copies.append(time.perf_counter() - start)
        del copy
    return {
        "emit_s": float(np.median(emits)),
        "copy_s": float(np.median(copies)),
        "bytes": size,
        "base_bytes": len(content),
    }


def _cut(base: BaseModel, number: int) -> LayerCut:
    group = base.channels.groups[number]
    rng = np.random.default_rng(number)
    kept = np.sort(rng.choice(group.units, int(group.units * KEPT), replace=False))
    return LayerCut(group.tensors[0], group.units, kept)


def _converted(side: int, classes: int, features: Sequence[int], dense: Sequence[int]) -> tuple[bytes, float]:
    """Build the network in Keras and convert it; return the file and the seconds that took."""
    import keras  # noqa: PLC0415 - loading TensorFlow is not what is measured

    layers = keras.layers
    start = time.perf_counter()
    x = image = keras.Input((side, side, 3))
    for width in features:
        if width:
            x = layers.Conv2D(width, 3, padding="same", activation="relu", bias_initializer="he_normal")(x)
        else:
            x = layers.MaxPooling2D()(x)
    x = layers.Flatten()(x)
    for units in dense:
        x = layers.Dense(units, activation="relu")(x)
    model = keras.Model(image, layers.Dense(classes)(x))
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder) / "model.keras")
        convert(Path(folder) / "model.keras", Path(folder) / "model.tflite", preprocessing=Preprocessing(side, side))
        return (Path(folder) / "model.tflite").read_bytes(), time.perf_counter() - start


if __name__ == "__main__":
    main(measure, needs_data=False)
