"""How fast a personalised file is made: by slicing, by rebuilding the network and converting it, and by a plain copy.

`python -m benchmarks.emit --json`; a VGG for 32x32 images with random weights, so it needs no data. The medians of the
two fast ways are taken over alternating runs; rebuild and conversion (with its comparison), seconds long, run once.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.command import main
from cloud_pruner.conversion import convert
from edge_runtime.flatmodel import BaseModel, LayerCut, normalize, read_graph
from edge_runtime.preprocessing import Preprocessing

if TYPE_CHECKING:
    from collections.abc import Sequence

WIDTHS = (32, 64, 128, 128, 256, 256, 256)
DENSE = (512, 512)
KEPT = 0.5
REPEATS = 15


def measure() -> dict[str, Any]:
    """Return the JSON object: `converter_over_emit` and `emit_over_copy`."""
    full, _ = _converted(WIDTHS, DENSE)
    base = BaseModel(normalize(full))
    cuts = [_cut(base, number) for number in base.channels.prunable]
    cut = base.emit(cuts)
    constants = [tensor.data.copy() for tensor in read_graph(cut).tensors if tensor.data is not None]
    emits, copies = [], []
    for _ in range(REPEATS):
        start = time.perf_counter()
        base.emit(cuts)
        emits.append(time.perf_counter() - start)
        start = time.perf_counter()
        b"".join(constant.data for constant in constants)
        copies.append(time.perf_counter() - start)
    halves = ([int(width * KEPT) for width in widths] for widths in (WIDTHS, DENSE))
    _, seconds = _converted(*halves)
    emit, copy = float(np.median(emits)), float(np.median(copies))
    return {
        "ratios": {"converter_over_emit": seconds / emit, "emit_over_copy": emit / copy},
        "context": {
            "emit_s": emit,
            "copy_s": copy,
            "converter_s": seconds,
            "bytes": len(cut),
            "base_bytes": len(base.content),
        },
    }


def _cut(base: BaseModel, number: int) -> LayerCut:
    group = base.channels.groups[number]
    rng = np.random.default_rng(number)
    kept = np.sort(rng.choice(group.units, int(group.units * KEPT), replace=False))
    return LayerCut(group.tensors[0], group.units, kept)


def _converted(widths: Sequence[int], dense: Sequence[int]) -> tuple[bytes, float]:
    """Build the network in Keras and convert it; return the file and the seconds that took."""
    import keras  # noqa: PLC0415 - loading TensorFlow is not what is measured

    layers = keras.layers
    start = time.perf_counter()
    x = image = keras.Input((32, 32, 3))
    for number, width in enumerate(widths):
        x = layers.Conv2D(width, 3, padding="same", activation="relu", bias_initializer="he_normal")(x)
        x = layers.MaxPooling2D()(x) if number in (0, 1, 3, 5) else x
    x = layers.Flatten()(x)
    for units in dense:
        x = layers.Dense(units, activation="relu")(x)
    model = keras.Model(image, layers.Dense(100)(x))
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder) / "model.keras")
        convert(Path(folder) / "model.keras", Path(folder) / "model.tflite", preprocessing=Preprocessing(32, 32))
        return (Path(folder) / "model.tflite").read_bytes(), time.perf_counter() - start


if __name__ == "__main__":
    main(measure, needs_data=False)
