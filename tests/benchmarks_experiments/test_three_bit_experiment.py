"""What 3-bit firing rates take, and that cuts are searched with them as they would be read back."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.experiments import three_bit
from benchmarks.experiments.lab import Lab, Settings
from benchmarks.experiments.three_bit import at_three_bits, overhead_row
from cloud_pruner.profiling import ProfileSettings, build_profile
from tests.benchmarks_experiments.digits_lab import DigitsReference, with_profile


def test_the_papers_overhead_is_3_6_megabytes_and_1_3_per_cent():
    row = overhead_row()
    assert row["units"] == 9728
    assert row["rates_mb"] == pytest.approx(3.648)
    assert row["network_mb"] == pytest.approx(276.7, abs=0.1)
    assert round(100 * row["overhead"], 1) == 1.3


def test_rates_are_those_that_a_profile_with_3_bits_has(digits_network, digits_profile, tmp_path):
    packed = build_profile(
        digits_network.tflite.read_bytes(),
        digits_network.trained_on,
        digits_profile.preprocessing,
        tmp_path / "packed",
        unseen=digits_network.unseen,
        settings=ProfileSettings(depth=None, images={"select": 2, "certify": 1}, three_bit_rates=True),
    )
    for ours, stored, full in zip(
        at_three_bits(digits_profile).layers, packed.layers, digits_profile.layers, strict=True
    ):
        np.testing.assert_array_equal(ours.firing_rates, stored.firing_rates)
        assert not np.array_equal(full.firing_rates, stored.firing_rates)


def test_the_section_compares_both_kinds_of_rates_for_the_same_users(digits_network, tmp_path, monkeypatch):
    monkeypatch.setattr(three_bit, "_NETWORKS", (("vgg16",),))
    monkeypatch.setattr(three_bit, "_USERS", {True: 2})
    work = with_profile(digits_network, tmp_path / "work", ("vgg16",))
    lab = Lab(work, Settings(quick=True), references={"vgg16": DigitsReference("vgg16", digits_network)})
    section = three_bit.run(lab)
    assert all(cell.value(lab.store) is not None for cell in section.cells())
    rows = lab.store.table("three_bit_cuts")
    assert len(rows) == 2 * 2 * 2 * 2  # K, users, methods, kinds of rates
    for full, packed in zip(rows[::2], rows[1::2], strict=True):
        assert (full["rates"], packed["rates"]) == ("32 bits", "3 bits")
        assert (full["classes"], full["method"]) == (packed["classes"], packed["method"])
        assert full["relative_size_more"] == 0
        assert packed["relative_size_more"] == packed["relative_size"] - full["relative_size"]
    (storage,) = lab.store.table("three_bit_storage")
    assert storage["ratio"] == pytest.approx(3 / 32, rel=0.02)
