"""The `dac20` preset on VGG-16, against the figures in docs/decisions/0006-dac20-energy.md."""

from __future__ import annotations

import csv
import os
from dataclasses import replace
from pathlib import Path

import pytest

from hwmodel import (
    DAC20,
    Accelerator,
    Layer,
    MatrixProduct,
    estimate_workload,
    layer_energy,
    layer_traffic,
    streamed_words,
)
from tests.hwmodel.networks import vgg16


def shares(accelerator: Accelerator) -> tuple[float, float, float]:
    energy = estimate_workload(vgg16(), accelerator).energy
    dram, macs, sram = (round(100 * part / energy.total, 1) for part in (energy.dram, energy.macs, energy.sram))
    return dram, macs, sram


def test_vgg16_has_its_parameters_and_macs() -> None:
    report = estimate_workload(vgg16())
    assert report.weights == 138_357_544
    assert report.macs == 15_470_264_320


def test_vgg16_takes_112_75_millijoules() -> None:
    assert estimate_workload(vgg16()).energy.millijoules == pytest.approx(112.75, rel=2e-4)


def test_memory_dominates_the_energy_of_vgg16() -> None:
    assert shares(DAC20) == (78.5, 19.2, 2.2)


@pytest.mark.parametrize("side", [64, 128, 512, 1024])
def test_other_arrays_give_other_shares(side: int) -> None:
    assert shares(replace(DAC20, rows=side, columns=side)) != (78.5, 19.2, 2.2)


def test_the_components_add_up_to_the_total() -> None:
    report = estimate_workload(vgg16())
    energy = report.energy
    parts = (energy.dram, energy.sram, energy.macs, energy.pooling, energy.activation, energy.arithmetic)
    assert energy.total == pytest.approx(sum(parts))
    assert energy.total == pytest.approx(sum(figures.energy.total for figures in report.layers))
    assert energy.millijoules == pytest.approx(energy.total / 1e9)


def test_a_small_dense_layer_by_hand() -> None:
    layer = Layer("fc", "FULLY_CONNECTED", "dense", 3, 2, 3 * 2 + 2, MatrixProduct(3, 2, 1), rectified=2)
    traffic, energy = layer_traffic(layer, DAC20), layer_energy(layer, DAC20)
    assert traffic.dram_words == 8
    assert traffic.sram_words == 2 * 8 + 3 + 2 * 2
    assert energy.dram == 8 * 640
    assert energy.sram == 23 * 5
    assert energy.macs == pytest.approx(6 * 1.4)
    assert energy.activation == pytest.approx(2 * 0.9)


def test_inputs_stream_again_for_each_block_of_columns_and_sums_for_each_block_of_rows() -> None:
    small = replace(DAC20, rows=4, columns=2)
    assert streamed_words(MatrixProduct(reduction=9, filters=5, pixels=10), small) == (9 * 10 * 3, 5 * 10 * 3)
    assert streamed_words(MatrixProduct(reduction=8, filters=4, pixels=10), small) == (8 * 10 * 2, 4 * 10 * 2)


def test_each_group_streams_by_itself() -> None:
    small = replace(DAC20, rows=4, columns=2)
    alone = streamed_words(MatrixProduct(9, 1, 10), small)
    assert streamed_words(MatrixProduct(9, 1, 10, groups=6), small) == (6 * alone[0], 6 * alone[1])


@pytest.mark.parametrize(
    ("run", "side"),
    [("vgg16_pad__tpu256_ws_calc__compute", 256), ("alexnet_pad__a32_ws_calc__compute", 32)],
)
def test_streamed_words_are_those_of_scale_sim(run: str, side: int) -> None:
    root = os.environ.get("CAPNN_DATA")
    if root is None:
        pytest.skip("CAPNN_DATA does not name the reference data")
    path = Path(root) / "reference" / "scalesim" / "out" / f"{run}.csv"
    if not path.exists():
        pytest.skip(f"the reference data has no {path.name}")
    array = replace(DAC20, rows=side, columns=side)
    with path.open(newline="") as lines:
        rows = [row for row in csv.DictReader(lines) if row["sram_if_rd"]]
    assert len(rows) >= 8
    for row in rows:
        product = MatrixProduct(int(row["Sr"]), int(row["Sc"]), int(row["T"]))
        assert streamed_words(product, array) == (int(row["sram_if_rd"]), int(row["sram_of_wr"])), row["layer"]
        assert product.macs == int(row["macs"]), row["layer"]
