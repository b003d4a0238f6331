"""Outputs are moved against each other so that no class pays for the others, by offsets of the last layer's fold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud_pruner import search as search_module
from cloud_pruner.balancing import OutputLayer, balance
from cloud_pruner.methods import METHODS
from cloud_pruner.search import Searcher
from cloud_pruner.variants import Usage
from edge_runtime.interpreter import LoadedModel
from tests.support.residual_digits import residual_network, residual_profile

THREE = Usage(np.array([3, 5, 8]), np.array([0.6, 0.3, 0.1]))


@pytest.fixture(scope="module")
def residual():
    residual_network()
    return residual_profile()


@pytest.fixture(params=["sequential", "residual"])
def profile(request, digits_profile):
    return digits_profile if request.param == "sequential" else request.getfixturevalue("residual")


def half_cut(profile, usage):
    """Return cuts that keep every second unit, with folds for the user."""
    kept = {layer.group: np.arange(0, layer.units, 2) for layer in profile.layers}
    return Searcher(profile)._fitter(usage).cuts(kept, "linear")


class TestBalance:
    def test_a_class_that_another_eclipses_is_raised(self):
        """Class 2 comes out 1 too low beside class 1, which has 4 to spare; class 0 is not the user's."""
        logits = np.array([[0.0, 5.0, 0.0]] * 4 + [[0.0, 2.0, 1.0]] * 4)
        labels = np.array([1] * 4 + [2] * 4, np.int32)
        found = balance(logits, labels, {1: 4, 2: 4})
        assert found.worst <= 0
        assert 1 < found.constants[2] - found.constants[1] < 5
        assert (found.constants[0], found.constants.sum()) == (0, pytest.approx(0))
        assert ((logits + found.constants).argmax(axis=1) == labels).all()

    def test_what_needs_nothing_gets_nothing(self):
        found = balance(np.eye(3), np.arange(3, dtype=np.int32), {0: 1, 1: 1, 2: 1})
        assert not found.constants.any()
        assert found.lacking == {0: 0, 1: 0, 2: 0}

    def test_what_no_constants_can_do_is_said(self):
        """Images of both classes give the same outputs: one class at most can have all its answers."""
        found = balance(np.zeros((20, 3)), np.repeat([0, 1], 10).astype(np.int32), {0: 10, 1: 6})
        assert found.lacking == {0: 0, 1: 0.6}

    @settings(max_examples=100, deadline=None)
    @given(st.integers(0, 2**32 - 1), st.floats(0.2, 1.0))
    def test_constants_are_never_worse_than_none(self, seed, share):
        rng = np.random.default_rng(seed)
        labels = np.repeat([1, 2, 4], 12).astype(np.int32)
        logits = rng.normal(size=(36, 6)) + 2 * np.eye(6)[labels] + rng.normal(size=6)
        needed = dict.fromkeys((1, 2, 4), round(12 * share))
        found = balance(logits, labels, needed)

        def worst(constants):
            right = (logits + constants).argmax(axis=1) == labels
            return max((needed[c] - right[labels == c].sum()) / 12 for c in needed)

        assert found.worst == pytest.approx(worst(found.constants))
        assert found.worst <= worst(np.zeros(6))
        assert found.constants[[0, 3, 5]].tolist() == [0, 0, 0]


class TestOutputLayer:
    def test_constants_come_out_where_they_are_wanted(self, profile):
        layer = OutputLayer(profile.base, list(profile.groups.values()))
        cuts = half_cut(profile, THREE)
        constants = np.zeros(len(profile.classes))
        constants[THREE.labels] = 1.5, -2.0, 0.5
        raised = layer.raised(cuts, constants, THREE.labels.tolist())
        inputs = profile.splits["report"].activations
        before, after = (
            Searcher(profile)._logits(LoadedModel(profile.suffix.emit(each)).run(inputs)[0]).astype(np.float64)
            for each in (cuts, raised)
        )
        mine, other = THREE.labels, int(np.setdiff1d(np.arange(len(constants)), THREE.labels)[0])
        moved = (after - after[:, [other]]) - (before - before[:, [other]])  # but for a constant of each image
        sure = (before - before.max(axis=1, keepdims=True)).min(axis=1) > -12  # less is rounded to nothing
        assert sure.sum() > 10
        np.testing.assert_allclose(moved[sure][:, mine], np.tile(constants[mine], (sure.sum(), 1)), atol=0.05)

    def test_nothing_but_the_last_fold_changes(self, profile):
        cuts = half_cut(profile, THREE)
        constants = np.zeros(len(profile.classes))
        constants[THREE.labels] = 1, 0, -1
        layer = OutputLayer(profile.base, list(profile.groups.values()))
        raised = layer.raised(cuts, constants, THREE.labels.tolist())
        changed = [
            (one.weight, one.coefficients is other.coefficients)
            for cut, its in zip(cuts, raised, strict=True)
            for one, other in zip(cut.folds, its.folds, strict=True)
            if one is not other
        ]
        assert [weight for weight, _ in changed] == [layer.reader.weight]
        assert all(np.array_equal(cut.kept, its.kept) for cut, its in zip(cuts, raised, strict=True))

    def test_cuts_without_a_linear_fold_of_it_take_up_no_constants(self, profile):
        layer = OutputLayer(profile.base, list(profile.groups.values()))
        cuts = tuple(replace(cut, folds=()) for cut in half_cut(profile, THREE))
        assert layer.raised(cuts, np.ones(len(profile.classes)), [3]) is None

    def test_a_last_layer_that_reads_no_prunable_group_takes_up_none(self, profile):
        layer = OutputLayer(profile.base, [])
        assert layer.reader is None
        assert layer.raised(half_cut(profile, THREE), np.ones(len(profile.classes)), [3]) is None


def test_balanced_cuts_are_smaller(residual, monkeypatch):
    """The same search, with and without: for several users together, since one may have nothing to balance."""
    users = [
        Usage(np.array(classes), np.full(5, 1 / 5)) for classes in ([0, 2, 4, 6, 8], [1, 3, 5, 7, 9], [0, 1, 2, 3, 4])
    ]

    def sizes():
        searcher = Searcher(residual)
        return [len(residual.base.emit(searcher.search(user, METHODS["L"], 0.1).cuts)) for user in users]

    balanced = sizes()
    monkeypatch.setattr(search_module.OutputLayer, "raised", lambda *_: None)
    plain = sizes()
    assert all(smaller <= larger for smaller, larger in zip(balanced, plain, strict=True))
    assert sum(balanced) < 0.97 * sum(plain)
