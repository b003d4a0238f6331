"""The bound on lost accuracy: what the simulation says of both rules, and what the section shows."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from benchmarks.experiments import guarantee
from benchmarks.experiments.guarantee import simulate, simulate_hardest
from benchmarks.experiments.lab import Lab, Settings
from benchmarks.experiments.section import Table
from benchmarks.experiments.simulated_cuts import SimulatedUser, shipped_certified, shipped_empirical
from tests.benchmarks_experiments.digits_lab import DigitsReference, with_profile


def test_measured_losses_harm_many_users_and_certified_ones_none_or_few():
    empirical, certified = simulate(1, 200, 60, seed=0)
    assert (empirical["mode"], certified["mode"]) == ("empirical", "certified")
    assert empirical["harmed_share"] > 0.3
    assert certified["harmed_share"] <= 0.1
    assert certified["served_share"] > 0.3
    assert empirical["low"] < empirical["harmed_share"] < empirical["high"]
    assert simulate(1, 200, 60, seed=0) == [empirical, certified]


def test_too_few_images_certify_nothing():
    _, certified = simulate(1, 50, 10, seed=0)
    assert (certified["harmed"], certified["served_share"]) == (0, 0.0)


def test_a_simulated_user_loses_what_it_says():
    user = SimulatedUser(np.random.default_rng(3), 2, 40_000, 0.03, repairs=True)
    for label, counts in user.count(40, "certify").items():
        assert counts.loss == pytest.approx(user.losses[40, label], abs=0.006)
        assert counts.newly_right > 0
    assert user.is_harmed_by(40)
    assert not user.is_harmed_by(0)
    # So many images tell the truth: both rules stop before the bound is broken, or a hair behind it.
    for shipped in (shipped_empirical(user), shipped_certified(user, "clopper-pearson", 0.1)):
        assert 0 < shipped < 40
        assert user.losses[shipped].max() < 0.036


def test_certified_cuts_are_judged_on_images_that_the_search_did_not_see():
    user = SimulatedUser(np.random.default_rng(1), 1, 3000, 0.03, repairs=False)
    seen = user._images["select"]
    # On these images no cut changes any answer: a search takes the last one.
    user._images["select"] = dataclasses.replace(seen, fragility=np.ones_like(seen.fragility))
    assert shipped_empirical(user) == 40
    assert user.is_harmed_by(40)
    assert not user.is_harmed_by(shipped_certified(user, "clopper-pearson", 0.1))


def test_the_hardest_users_are_harmed_no_more_often_than_promised():
    rows = simulate_hardest(500, 400, seed=0)
    assert [row["test"] for row in rows] == ["binomial", "betting", "clopper-pearson"]
    assert all(row["low"] <= 0.1 for row in rows)
    assert rows[0]["harmed"] > 10  # the promise is not vacuous


@pytest.fixture
def section(digits_network, tmp_path, monkeypatch):
    """Return the section on a small network, with few users; and its lab."""
    settings = {
        "_SIMULATED": {True: 4}, "_IMAGES": (50, 100), "_SIZES": (1, 2), "_HARDEST": {True: 20},
        "_HARDEST_IMAGES": (100,), "_EPSILON": 0.4, "_REAL_SIZES": {True: (2,)}, "_USERS": {True: 2},
        "_NETWORKS": (("vgg16",),),
    }  # fmt: skip
    for name, value in settings.items():
        monkeypatch.setattr(guarantee, name, value)
    work = with_profile(digits_network, tmp_path / "work", ("vgg16",))
    lab = Lab(work, Settings(quick=True), references={"vgg16": DigitsReference("vgg16", digits_network)})
    return guarantee.run(lab), lab


def test_the_section_shows_real_cuts_both_ways_and_every_number_is_of_some_row(section):
    shown, lab = section
    assert all(cell.value(lab.store) is not None for cell in shown.cells() if cell.table != "guarantee_tests")
    real = [part for part in shown.parts if isinstance(part, Table)][-1]
    empirical, certified = real.lines
    assert (empirical[0], certified[0]) == ("2, empirical", "2, certified")
    assert empirical[1].value(lab.store) <= certified[1].value(lab.store)
    cuts = lab.store.table("cuts")
    assert {row["guarantee"] for row in cuts} == {"empirical", "certified"}
    (plot,) = shown.plots()
    assert plot.png.startswith(b"\x89PNG")
    assert any("Certified" in text for text in shown.differences)


def test_the_tests_take_what_the_documentation_says(tmp_path):
    lab = Lab(tmp_path / "work", references={})
    needed, *lines = guarantee._tests_table(lab).lines
    for line in (needed, *lines):
        assert line[1].text(lab.store) == line[-1]
    assert [line[-1] for line in (needed, *lines)] == ["76", "0", "2", "4", "9", "22"]
