from __future__ import annotations

import json

import pytest

from edge_runtime.errors import ModelFileError
from edge_runtime.flatmodel import read_graph
from hwmodel import Workload, compare, estimate, estimate_workload
from tests.hwmodel.networks import vgg16


def test_content_and_graph_give_the_same_report(small: bytes) -> None:
    assert estimate(small) == estimate(read_graph(small))


def test_the_dictionary_survives_json_and_its_layers_add_up(small: bytes) -> None:
    report = estimate(small, name="small.tflite")
    fields = json.loads(json.dumps(report.to_dict()))
    assert fields["model"] == "small.tflite"
    assert fields["accelerator"]["name"] == "dac20"
    for figure in ("macs", "weights", "dram_words", "sram_words"):
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
    report = estimate_workload(vgg16())
    ratios = compare(report, report).ratios
    assert ratios.pop("energy.arithmetic") is None
    assert set(ratios.values()) == {1.0}


def test_a_workload_of_nothing_costs_nothing() -> None:
    report = estimate_workload(Workload(()))
    assert report.energy.total == 0
    assert report.macs == 0


def test_a_file_that_is_no_model_is_named() -> None:
    with pytest.raises(ModelFileError, match=r"^photo\.jpg: not a \.tflite file"):
        estimate(b"\xff\xd8 not a model", name="photo.jpg")
