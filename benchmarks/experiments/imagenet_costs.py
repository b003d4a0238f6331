"""What VGG-16 and ResNet-152 for ImageNet take, by their shapes alone, and VGG-16 cut to the paper's sizes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from benchmarks.networks.shapes_only import resnet152, vgg16
from hwmodel import PRESETS, Workload, convolution, dense, estimate, estimate_workload, max_pooling

if TYPE_CHECKING:
    from benchmarks.experiments.store import Row
    from hwmodel import Accelerator, Layer, Report

__all__ = ["BY_SHAPE", "PAPER_ENERGY", "full_rows", "size_rows", "vgg16_workload"]

BY_SHAPE: Final = {"VGG-16": vgg16, "ResNet-152": resnet152}
"""Network -> what makes its file without weights."""

PAPER_ENERGY: Final = {0.29: "0.42", 0.30: "0.42", 0.48: "0.56"}
"""Relative size -> relative energy, by Table I and section V.A of CAP'NN: K = 5 by M and by W, and K = 10."""

_BLOCKS: Final = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
_PRUNED: Final = ("conv5_1", "conv5_2", "conv5_3", "fc6", "fc7")


def full_rows(name: str) -> list[Row]:
    """Return a row for each accelerator: what a network for ImageNet takes, by shape."""
    content = BY_SHAPE[name]()
    return [{"network": name, "preset": preset.name, **_figures(content, preset)} for preset in PRESETS.values()]


def _figures(content: bytes, accelerator: Accelerator) -> Row:
    report = estimate(content, accelerator)
    energy = report.energy
    assert report.time_s is not None  # all presets state a clock
    return {
        "parameters": report.weights,
        "macs": report.macs,
        "cycles": report.cycles,
        "utilisation": report.utilisation,
        "time_ms": 1e3 * report.time_s,
        "dram_words": report.traffic.dram_words,
        "sram_words": report.traffic.sram_words,
        "energy_mj": energy.millijoules,
        "dram_share": energy.dram / energy.total,
        "sram_share": energy.sram / energy.total,
        "macs_share": energy.macs / energy.total,
        "other_share": (energy.pooling + energy.activation + energy.arithmetic) / energy.total,
    }


def vgg16_workload(kept: float) -> Workload:
    """Return VGG-16 with a share of the units of the layers that CAP'NN prunes; all outputs stay."""
    layers: list[Layer] = []
    side, channels = 224, 3

    def units(name: str, count: int) -> int:
        return round(kept * count) if name in _PRUNED else count

    for block, widths in enumerate(_BLOCKS, 1):
        for step, width in enumerate(widths, 1):
            name = f"conv{block}_{step}"
            layers.append(convolution(name, (side, side, channels), units(name, width), relu=True))
            channels = units(name, width)
        layers.append(max_pooling(f"pool{block}", (side, side, channels)))
        side //= 2
    inputs = side * side * channels
    for name, count in (("fc6", 4096), ("fc7", 4096), ("fc8", 1000)):
        layers.append(dense(name, inputs, units(name, count), relu=name != "fc8"))
        inputs = units(name, count)
    return Workload(tuple(layers))


def size_rows() -> list[Row]:
    """Return a row for each relative size of the paper: the energy of VGG-16 cut to it, its last layers alike."""
    base = estimate_workload(vgg16_workload(1.0))
    rows: list[Row] = []
    for size in PAPER_ENERGY:
        cut = _at_size(size, base)
        rows.append(
            {
                "wanted_size": size,
                "relative_size": cut.weights / base.weights,
                "relative_energy": cut.energy.total / base.energy.total,
                "relative_macs": cut.macs / base.macs,
            }
        )
    return rows


def _at_size(size: float, base: Report) -> Report:
    low, high = 0.0, 1.0
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (middle, high) if _cut(middle).weights < size * base.weights else (low, middle)
    return _cut(high)


def _cut(kept: float) -> Report:
    return estimate_workload(vgg16_workload(kept))
