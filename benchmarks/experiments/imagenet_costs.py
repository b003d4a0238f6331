"""What VGG-16 and ResNet-152 for ImageNet take, by their shapes alone, and VGG-16 cut to the paper's sizes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from benchmarks.networks.shapes_only import resnet152, vgg16, vgg16_workload
from hwmodel import PRESETS, estimate, estimate_workload

if TYPE_CHECKING:
    from benchmarks.experiments.store import Row
    from hwmodel import Accelerator, Report

__all__ = ["BY_SHAPE", "PAPER_ENERGY", "full_rows", "size_rows"]

BY_SHAPE: Final = {"VGG-16": vgg16, "ResNet-152": resnet152}
"""Network -> what makes its file without weights."""

PAPER_ENERGY: Final = {0.29: "0.42", 0.30: "0.42", 0.48: "0.56"}
"""Relative size -> relative energy, by Table I and section V.A of CAP'NN: K = 5 by M and by W, and K = 10."""


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


def size_rows() -> list[Row]:
    """Return a row for each relative size of the paper: the energy of VGG-16 cut to it, its last layers alike."""
    base = estimate_workload(vgg16_workload())
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
    return estimate_workload(vgg16_workload(kept=kept))
