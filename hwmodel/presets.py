"""The accelerators that the command line knows. docs/hardware-model.md gives the source of every value."""

from __future__ import annotations

from typing import Final

from hwmodel.accelerator import Accelerator

__all__ = ["DAC20", "EDGE_TPU_LIKE", "PRESETS", "TPU_V1"]

DAC20: Final = Accelerator(
    name="dac20",
    # CAP'NN, DAC 2020, Table I: energy per operation on 16-bit words.
    word="int16",
    accumulator_bits=16,
    add_pj=0.4,
    multiply_pj=1.0,
    max_pool_pj=1.2,
    relu_pj=0.9,
    sram_pj=5.0,
    dram_pj=640.0,
    # Not in the paper: chosen with the traffic equations, and no capacity is stated (docs/decisions/0006).
    dataflow="ws",
    rows=256,
    columns=256,
    keep_activations=True,
    # Not in the paper either, which models its device after the TPU v1: that one's. They decide times, no energy.
    clock_mhz=700.0,
    dram_gb_s=34.0,
)
"""The accelerator of CAP'NN (DAC 2020), Figure 2 and Table I. A reconstruction: its equations are not public."""

TPU_V1: Final = Accelerator(
    name="tpu-v1",
    # Jouppi et al., "In-Datacenter Performance Analysis of a Tensor Processing Unit", ISCA 2017, sections 2 and 4.
    word="int8",
    dataflow="ws",
    rows=256,
    columns=256,
    accumulator_bits=32,
    clock_mhz=700.0,
    dram_gb_s=34.0,  # weight memory, DDR3
    weight_buffer_kib=256.0,  # the weight FIFO: four tiles of 256 x 256 bytes
    activation_buffer_kib=24.0 * 1024,  # the unified buffer
    accumulator_kib=4.0 * 1024,  # 4096 sums of 32 bits for each of 256 columns
    double_buffered=True,
    keep_activations=True,
    # Horowitz, "Computing's Energy Problem", ISSCC 2014, Figure 1.1.9, at 45 nm (the chip is made in 28 nm).
    add_pj=0.1,  # 32 bits
    multiply_pj=0.2,  # 8 bits
    max_pool_pj=0.03,  # an addition of 8 bits
    relu_pj=0.03,  # likewise
    sram_pj=12.5,  # an eighth of 64 bits from 1 MB, 100 pJ
    dram_pj=162.5,  # an eighth of 64 bits, 1300 pJ
)
"""Google's first TPU, by its published figures; energies of a 45 nm process, not measured on the chip."""

EDGE_TPU_LIKE: Final = Accelerator(
    name="edge-tpu-like",
    # Boroumand et al., "Google Neural Network Models for Edge Devices", PACT 2021: array, dataflow, buffers, LPDDR4.
    word="int8",
    dataflow="os",
    rows=64,
    columns=64,
    accumulator_bits=32,
    clock_mhz=480.0,  # with which the array reaches the 4 * 10^12 operations/s that coral.ai states
    dram_gb_s=32.0,
    weight_buffer_kib=4.0 * 1024,
    activation_buffer_kib=2.0 * 1024,
    double_buffered=True,
    keep_activations=True,
    keep_weights=True,  # "parameter data caching" of the Edge TPU compiler, coral.ai
    # As for tpu-v1.
    add_pj=0.1,
    multiply_pj=0.2,
    max_pool_pj=0.03,
    relu_pj=0.03,
    sram_pj=12.5,
    dram_pj=162.5,
)
"""An accelerator of the size of Google's Edge TPU. Like it, not it: Google publishes no block diagram."""

PRESETS: Final = {preset.name: preset for preset in (DAC20, TPU_V1, EDGE_TPU_LIKE)}
"""The accelerators that the command line knows, by name."""
