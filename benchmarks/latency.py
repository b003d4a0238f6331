"""How much faster a cut runs in LiteRT than its base, against how many fewer multiply-accumulates (MACs) it has.

`python -m benchmarks.latency --json`; needs the reference networks (`CAPNN_DATA`): VGG-16 for CIFAR-10 at half width
and ResNet-56, float32, one thread, batch 1. Of every channel group half the units are pruned, at random.

`speedup_over_mac_ratio_*` is 1 where time falls as MACs do. Two things keep it below, and the context says how much:

- *floor*: the time of the network cut down to one unit a group, where hardly a MAC is left: calls of operators, and
  reading the input. `beyond_floor` is the same ratio for the time above it.
- *tiles*: LiteRT's float32 kernels compute output channels in tiles of 16; half of 16 channels is half a tile, and
  costs a whole one. `tiled_mac_ratio` counts MACs with output channels rounded up to tiles, and
  `beyond_floor_and_tiles` is what is left when both are accounted for.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.command import main
from benchmarks.networks import cifar10_resnet56, cifar10_vgg16_half
from cloud_pruner.conversion import convert
from edge_runtime.flatmodel import BaseModel, LayerCut, normalize, read_graph
from edge_runtime.interpreter import LoadedModel
from hwmodel import read_workload

NETWORKS = {"cifar_vgg16": cifar10_vgg16_half, "resnet56": cifar10_resnet56}
KEPT = 0.5
TILE = 16
REPEATS = 200


def measure() -> dict[str, Any]:
    """Return the JSON object: `speedup_over_mac_ratio_*`."""
    rows = {name: _measure(network) for name, network in NETWORKS.items()}
    ratios = {f"speedup_over_mac_ratio_{name}": row["speedup"] / row["mac_ratio"] for name, row in rows.items()}
    return {"ratios": ratios, "context": {"kept": KEPT, "tile": TILE, **rows}}


def _measure(network: Any) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        network.build().save(Path(folder) / "model.keras")
        convert(Path(folder) / "model.keras", Path(folder) / "base.tflite", preprocessing=network.PREPROCESSING)
        base = BaseModel(normalize((Path(folder) / "base.tflite").read_bytes()))
    files = [bytes(base.content), bytes(_cut(base, KEPT)), bytes(_cut(base, 0.0))]
    whole, cut, floor = _seconds(files)
    macs, tiled = ([_macs(content, tile) for content in files[:2]] for tile in (1, TILE))
    mac_ratio, tiled_mac_ratio = macs[0] / macs[1], tiled[0] / tiled[1]
    beyond_floor = (whole - floor) / (cut - floor)
    return {
        "base_s": whole,
        "cut_s": cut,
        "floor_s": floor,
        "speedup": whole / cut,
        "mac_ratio": mac_ratio,
        "tiled_mac_ratio": tiled_mac_ratio,
        "beyond_floor": beyond_floor / mac_ratio,
        "beyond_floor_and_tiles": beyond_floor / tiled_mac_ratio,
    }


def _cut(base: BaseModel, share: float) -> memoryview:
    """Keep `share` of each group's units, at least one; and where an axis would lose all, one of those on it."""
    channels = base.channels
    rng = np.random.default_rng(0)
    keeps = np.ones(channels.units + 1, dtype=bool)  # the last one answers for what always stays
    for number in channels.prunable:
        group = channels.groups[number]
        pruned = rng.choice(group.units, group.units - max(int(group.units * share), 1), replace=False)
        keeps[group.first + pruned] = False
    for axes in channels.axes.values():
        for units in axes.values():
            keeps[units[0]] |= not keeps[units].any()
    return base.emit(
        LayerCut(group.tensors[0], group.units, np.flatnonzero(keeps[group.first : group.first + group.units]))
        for group in (channels.groups[number] for number in channels.prunable)
    )


def _macs(content: bytes, tile: int) -> int:
    """Count MACs with the filters of each layer rounded up to a multiple of `tile`."""
    products = [product for layer in read_workload(read_graph(content)).layers for product in layer.products]
    return sum(p.groups * p.reduction * -(-p.filters // tile) * tile * p.pixels for p in products)


def _seconds(files: list[bytes]) -> list[float]:
    """Return the best time of one run of each model; they take turns, so that all meet the same machine."""
    models = [LoadedModel(content) for content in files]
    image = np.random.default_rng(0).normal(size=(1, *models[0].input_shape)).astype(np.float32)
    times = np.empty((REPEATS, len(models)))
    for row in times:
        for place, model in enumerate(models):
            start = time.perf_counter()
            model.run(image)
            row[place] = time.perf_counter() - start
    best: list[float] = times.min(axis=0).tolist()
    return best


if __name__ == "__main__":
    main(measure)
