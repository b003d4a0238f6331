"""What networks and cuts take on accelerators, as the section shows it."""

from __future__ import annotations

import pytest

from benchmarks.experiments import hardware
from benchmarks.experiments.imagenet_costs import full_rows, size_rows
from benchmarks.experiments.lab import Lab, Settings
from benchmarks.experiments.scalesim import RUNS, compared_layers
from benchmarks.experiments.section import Table
from benchmarks.networks.shapes_only import vgg16_workload
from hwmodel import estimate_workload
from tests.benchmarks_experiments.digits_lab import DigitsReference, with_profile


def test_full_networks_by_shape_take_what_the_reconstruction_aims_at():
    dac20, tpu, edge = full_rows("VGG-16")
    assert [row["preset"] for row in (dac20, tpu, edge)] == ["dac20", "tpu-v1", "edge-tpu-like"]
    assert dac20["energy_mj"] == pytest.approx(112.75, rel=2e-4)
    assert [round(100 * dac20[f"{part}_share"], 1) for part in ("dram", "macs", "sram")] == [78.5, 19.2, 2.2]
    assert sum(dac20[f"{part}_share"] for part in ("dram", "macs", "sram", "other")) == pytest.approx(1)
    assert dac20["parameters"] == 138_357_544
    # Its weights do not fit the chip, so that they are fetched.
    assert edge["dram_words"] > edge["parameters"]


def test_both_descriptions_of_vgg16_are_of_one_network():
    (dac20, *_) = full_rows("VGG-16")
    report = estimate_workload(vgg16_workload())
    assert (report.weights, report.macs) == (dac20["parameters"], dac20["macs"])
    assert report.energy.millijoules == pytest.approx(dac20["energy_mj"])


def test_relative_energies_at_the_papers_sizes():
    energies = {row["wanted_size"]: row["relative_energy"] for row in size_rows()}
    assert energies == {
        size: pytest.approx(value, abs=1e-3) for size, value in {0.29: 0.420, 0.3: 0.429, 0.48: 0.576}.items()
    }


@pytest.mark.parametrize("run", RUNS)
def test_scalesims_layers_agree(capnn_data, run):
    rows = compared_layers(capnn_data, run)
    assert len(rows) >= 7
    assert all(row["cycles_equal"] and row["sram_equal"] for row in rows)
    if run.endswith("full"):
        assert all(row["dram_weights_equal"] for row in rows)
        assert max(row["dram_inputs_off"] for row in rows) < 0.005


def test_a_wrong_count_of_scalesims_is_seen(tmp_path):
    """A layer of 2 x 2 weights' worth, once with its cycles and once with one more."""
    folder = tmp_path / "reference" / "scalesim"
    (folder / "topo").mkdir(parents=True)
    (folder / "out").mkdir()
    (folder / "topo" / "vgg16_pad.csv").write_text("name,h,w,kh,kw,c,f,s,\na,12,10,3,3,5,7,1,\n")
    names = "layer,dataflow,R,C,status,total_cycles,sram_if_rd,sram_w_rd,sram_of_wr\n"
    for cycles, is_equal in ((2208, True), (2209, False)):
        (folder / "out" / "vgg16_pad__tpu256_ws_calc__compute.csv").write_text(
            f"{names}a,ws,4,6,ok,{cycles},7200,315,6720\n"
        )
        (row,) = compared_layers(tmp_path, "vgg16_pad__tpu256_ws_calc__compute")
        assert (row["cycles_equal"], row["sram_equal"], row["dram_weights_equal"]) == (is_equal, True, None)


def test_the_section_shows_cuts_on_each_accelerator_and_every_number_is_of_some_row(
    digits_network, tmp_path, monkeypatch
):
    monkeypatch.delenv("CAPNN_DATA", raising=False)
    monkeypatch.setattr(hardware, "_NETWORKS", (("vgg16",),))
    monkeypatch.setattr(hardware, "BY_SHAPE", ("VGG-16",))
    work = with_profile(digits_network, tmp_path / "work", ("vgg16",))
    lab = Lab(work, Settings(quick=True), references={"vgg16": DigitsReference("vgg16", digits_network)})
    section = hardware.run(lab)
    cuts = next(part for part in section.parts if isinstance(part, Table) and "Cuts for 2" in part.caption)
    assert [line[0] for line in cuts.lines] == [
        f"digits network: {method}, {preset}" for method in "ML" for preset in ("dac20", "tpu-v1", "edge-tpu-like")
    ]
    nothing = {cell for cell in section.cells() if cell.value(lab.store) is None}
    assert {cell.column for cell in nothing} <= {"relative_dram"}  # the whole network stays on the chip
    rows = lab.store.table("hardware_cuts")
    assert all(0 < row["relative_energy"] < 1 for row in rows if row["method"] == "L")
    assert any("SCALE-Sim's runs are not here" in text for text in section.differences)
