from __future__ import annotations

import json
from dataclasses import replace

import pytest

from benchmarks.networks.shapes_only import vgg16_workload
from edge_runtime.errors import ModelFileError
from edge_runtime.flatmodel import read_graph
from hwmodel import (
    DAC20,
    EDGE_TPU_LIKE,
    HardwareError,
    Workload,
    compare,
    convolution,
    dense,
    estimate,
    estimate_workload,
)


def test_content_and_graph_give_the_same_report(small: bytes) -> None:
    assert estimate(small) == estimate(read_graph(small))


def test_the_dictionary_survives_json_and_its_layers_add_up(small: bytes) -> None:
    report = estimate(small, name="small.tflite")
    fields = json.loads(json.dumps(report.to_dict()))
    assert fields["model"] == "small.tflite"
    assert fields["accelerator"]["name"] == "dac20"
    for figure in ("macs", "weights", "cycles", "array_cycles", "dram_words", "sram_words"):
        assert fields["total"][figure] == sum(layer[figure] for layer in fields["layers"]) > 0
    energies = [layer["energy_pj"]["total"] for layer in fields["layers"]]
    assert fields["total"]["energy_pj"]["total"] == pytest.approx(sum(energies))
    assert fields["total"]["energy_mj"] == pytest.approx(sum(energies) * 1e-9)


def test_ratios_of_a_cut(small: bytes, small_cut: bytes) -> None:
    base, cut = estimate(small), estimate(small_cut)
    ratios = compare(base, cut).ratios
    assert ratios["macs"] == cut.macs / base.macs
    assert ratios["weights"] == cut.weights / base.weights
    assert ratios["energy"] == cut.energy.total / base.energy.total
    assert ratios["energy.pooling"] == pytest.approx(0.5)


def test_a_model_against_itself_is_one_and_what_it_has_not_is_none() -> None:
    report = estimate_workload(vgg16_workload())
    ratios = compare(report, report).ratios
    assert ratios.pop("energy.arithmetic") is None  # VGG-16 without its softmax has none
    assert set(ratios.values()) == {1.0}


def test_a_workload_of_nothing_costs_nothing() -> None:
    report = estimate_workload(Workload(()))
    assert report.energy.total == 0
    assert report.macs == 0


def test_a_file_that_is_no_model_is_named() -> None:
    with pytest.raises(ModelFileError, match=r"^photo\.jpg: not a \.tflite file"):
        estimate(b"\xff\xd8 not a model", name="photo.jpg")


def test_cycles_and_use_of_vgg16_are_those_of_scale_sim() -> None:
    report = estimate_workload(vgg16_workload())
    assert report.array_cycles == 2_091_486
    assert report.utilisation == pytest.approx(0.113, abs=5e-4)
    pools = sum(figures.vector_cycles for figures in report.layers)
    assert report.cycles == report.array_cycles + pools > report.array_cycles


def test_a_batch_1_dense_layer_that_dominates_the_cycles_is_warned_of() -> None:
    (warning,) = estimate_workload(vgg16_workload()).warnings
    assert warning.startswith("dense layers at batch 1 take 69% of the cycles (most: fc6)")
    assert estimate_workload(vgg16_workload(), batch=64).warnings == ()
    assert estimate_workload(Workload((convolution("c", (8, 8, 3), 4),))).warnings == ()


def test_time_follows_the_clock_where_nothing_waits() -> None:
    layer = Workload((convolution("c", (64, 64, 16), 16),))
    slow, fast = (estimate_workload(layer, replace(DAC20, clock_mhz=mhz, dram_gb_s=1e6)) for mhz in (100, 200))
    assert slow.time_s == pytest.approx(2 * fast.time_s) == pytest.approx(slow.cycles / 100e6)
    assert estimate_workload(layer, replace(DAC20, clock_mhz=None)).time_s is None


def test_shapes_give_what_a_smaller_file_would_cost(small: bytes, small_cut: bytes) -> None:
    """The energy of a cut as a function of its widths, in one call and without making its file."""
    graph, cut = read_graph(small), read_graph(small_cut)
    shapes = {tensor.index: other.shape for tensor, other in zip(graph.tensors, cut.tensors, strict=True)}
    for accelerator in (DAC20, EDGE_TPU_LIKE):
        assumed, made = estimate(graph, accelerator, shapes=shapes), estimate(cut, accelerator)
        assert assumed.totals == made.totals
        assert [one.energy for one in assumed.layers] == [one.energy for one in made.layers]


def test_impossible_requests_say_what_they_lack(small: bytes) -> None:
    with pytest.raises(HardwareError, match="batch is 0: expected 1 or more"):
        estimate(small, batch=0)
    with pytest.raises(HardwareError, match="shapes has tensor 999: the model has"):
        estimate(small, shapes={999: (1,)})
    with pytest.raises(HardwareError, match="c: a kernel of .* has no output on an image"):
        convolution("c", (2, 2, 3), 4, same=False)
    with pytest.raises(HardwareError, match="c: 2 groups do not divide 3 channels into 4 filters"):
        convolution("c", (8, 8, 3), 4, groups=2)
    with pytest.raises(HardwareError, match="d: a dense layer of 0 units on 8 inputs does not exist"):
        dense("d", 8, 0)


def test_layers_by_shape_are_those_of_the_file(small: bytes) -> None:
    stem, depthwise, *_, grouped, _, head, _ = (figures.layer for figures in estimate(small).layers)
    by_shape = (
        convolution("stem", (16, 16, 3), 8, relu=True),
        convolution("depthwise", (16, 16, 8), 8, groups=8),
        convolution("grouped", (8, 8, 8), 12, stride=2, groups=4, same=False),
        dense("head", 12, 5),
    )
    for read, built in zip((stem, depthwise, grouped, head), by_shape, strict=True):
        assert replace(read, name=built.name, sources=None) == built
