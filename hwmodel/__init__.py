"""MACs, memory traffic and energy of a .tflite on a TPU-like accelerator."""

from __future__ import annotations

from hwmodel.accelerator import DAC20, PRESETS, Accelerator
from hwmodel.energy import Energy, Traffic, layer_energy, layer_traffic, streamed_words
from hwmodel.errors import AcceleratorError, HardwareError
from hwmodel.operators import read_workload
from hwmodel.report import Comparison, LayerFigures, Report, compare, estimate, estimate_workload
from hwmodel.workload import Kind, Layer, MatrixProduct, Uncosted, Workload

__all__ = [
    "DAC20",
    "PRESETS",
    "Accelerator",
    "AcceleratorError",
    "Comparison",
    "Energy",
    "HardwareError",
    "Kind",
    "Layer",
    "LayerFigures",
    "MatrixProduct",
    "Report",
    "Traffic",
    "Uncosted",
    "Workload",
    "compare",
    "estimate",
    "estimate_workload",
    "layer_energy",
    "layer_traffic",
    "read_workload",
    "streamed_words",
]
