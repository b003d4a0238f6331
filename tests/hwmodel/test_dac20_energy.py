"""The `dac20` preset on VGG-16, against the paper and docs/decisions/0006-dac20-energy.md."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.networks.shapes_only import vgg16_workload
from hwmodel import DAC20, dense, estimate_workload, layer_figures, max_pooling


def shares(accelerator):
    energy = estimate_workload(vgg16_workload(), accelerator).energy
    return tuple(round(100 * part / energy.total, 1) for part in (energy.dram, energy.macs, energy.sram))


def at_size(size):
    """VGG-16 with its last hidden layers cut alike, so that `size` of its parameters are left."""
    full = estimate_workload(vgg16_workload()).weights
    low, high = 0.0, 1.0
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (
            (middle, high) if estimate_workload(vgg16_workload(kept=middle)).weights < size * full else (low, middle)
        )
    return vgg16_workload(kept=high)


def test_vgg16_has_its_parameters_and_macs():
    report = estimate_workload(vgg16_workload())
    assert report.weights == 138_357_544
    assert report.macs == 15_470_264_320


def test_vgg16_takes_112_75_millijoules():
    assert estimate_workload(vgg16_workload()).energy.millijoules == pytest.approx(112.75, rel=2e-4)


@pytest.mark.parametrize(("size", "paper", "ours"), [(0.29, 0.42, 0.420), (0.30, 0.42, 0.429), (0.48, 0.56, 0.576)])
def test_relative_energy_of_table_1(size, paper, ours):
    """Sizes of CAP'NN-M: 0.29 and (CAP'NN-W) 0.30 for K=5, 0.48 for K=10. How the cut spreads over layers is ours."""
    cut, base = estimate_workload(at_size(size)), estimate_workload(vgg16_workload())
    assert cut.weights / base.weights == pytest.approx(size, abs=1e-3)
    relative = cut.energy.total / base.energy.total
    assert relative == pytest.approx(paper, rel=0.03)
    assert relative == pytest.approx(ours, abs=1e-3)


def test_memory_dominates_the_energy_of_vgg16():
    assert shares(DAC20) == (78.5, 19.2, 2.2)


@pytest.mark.parametrize("side", [64, 128, 512, 1024])
def test_other_arrays_give_other_shares(side):
    assert shares(replace(DAC20, rows=side, columns=side)) != (78.5, 19.2, 2.2)


def test_the_components_add_up_to_the_total():
    report = estimate_workload(vgg16_workload())
    energy = report.energy
    parts = (energy.dram, energy.sram, energy.macs, energy.pooling, energy.activation, energy.arithmetic)
    assert energy.total == pytest.approx(sum(parts))
    assert energy.total == pytest.approx(sum(figures.energy.total for figures in report.layers))
    assert energy.millijoules == pytest.approx(energy.total / 1e9)


def test_a_small_dense_layer_by_hand():
    figures = layer_figures(dense("fc", 3, 2, relu=True), DAC20)
    assert figures.traffic.dram_words == 8
    assert figures.traffic.sram_words == 2 * 8 + 3 + 2 * 2
    assert figures.energy.dram == 8 * 640
    assert figures.energy.sram == 23 * 5
    assert figures.energy.macs == pytest.approx(6 * 1.4)
    assert figures.energy.activation == pytest.approx(2 * 0.9)


def test_pooling_takes_comparisons_and_no_memory():
    figures = layer_figures(max_pooling("pool", (4, 4, 3)), DAC20)
    assert figures.energy.pooling == figures.energy.total == pytest.approx(4 * 3 * 3 * 1.2)


def test_activations_stay_on_the_chip_and_each_weight_is_read_once():
    traffic = estimate_workload(vgg16_workload()).traffic
    assert (traffic.dram_inputs, traffic.dram_outputs) == (0, 0)
    assert traffic.dram_weights + traffic.dram_biases == 138_357_544
