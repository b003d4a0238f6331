"""Cycles, memory traffic and energy of a .tflite on a TPU-like accelerator."""

from __future__ import annotations

from hwmodel.accelerator import Accelerator, Dataflow, Word
from hwmodel.accelerator_file import read_accelerator
from hwmodel.cost import LayerFigures, layer_figures
from hwmodel.dataflow import ArrayAccesses, array_accesses, array_cycles
from hwmodel.energy import Energy, Traffic
from hwmodel.errors import AcceleratorError, HardwareError, MissingExtraError
from hwmodel.operators import read_workload
from hwmodel.presets import DAC20, EDGE_TPU_LIKE, PRESETS, TPU_V1
from hwmodel.report import Comparison, Report, compare, estimate, estimate_workload
from hwmodel.shapes import convolution, dense, max_pooling
from hwmodel.sweep import Sweep
from hwmodel.window import Window
from hwmodel.workload import Kind, Layer, MatrixProduct, Uncosted, Workload

__all__ = [
    "DAC20",
    "EDGE_TPU_LIKE",
    "PRESETS",
    "TPU_V1",
    "Accelerator",
    "AcceleratorError",
    "ArrayAccesses",
    "Comparison",
    "Dataflow",
    "Energy",
    "HardwareError",
    "Kind",
    "Layer",
    "LayerFigures",
    "MatrixProduct",
    "MissingExtraError",
    "Report",
    "Sweep",
    "Traffic",
    "Uncosted",
    "Window",
    "Word",
    "Workload",
    "array_accesses",
    "array_cycles",
    "compare",
    "convolution",
    "dense",
    "estimate",
    "estimate_workload",
    "layer_figures",
    "max_pooling",
    "read_accelerator",
    "read_workload",
]
