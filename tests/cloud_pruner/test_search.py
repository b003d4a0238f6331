"""The quick search chooses what the plain one chooses, and keeps its promise on the images it searches with."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from cloud_pruner.images import split_per_class
from cloud_pruner.methods import METHODS
from cloud_pruner.search import PathCut, Searcher
from cloud_pruner.variants import Usage
from edge_runtime.flatmodel import read_graph
from edge_runtime.interpreter import LoadedModel
from tests.cloud_pruner.plain_search import Plain
from tests.support.branched_networks import (
    joined,
    joined_alike,
    one_unit,
    padded_shortcut,
    profile_of,
    projection_first,
    read_unequally,
)
from tests.support.digits import CLASSES, PREPROCESSING
from tests.support.reference import masked_network
from tests.support.residual_digits import residual_network, residual_profile

ONE = Usage(np.array([9]), np.array([1.0]))
TWO = Usage(np.array([0, 1]), np.array([0.5, 0.5]))
THREE = Usage(np.array([3, 5, 8]), np.array([0.6, 0.3, 0.1]))
SIX = Usage(np.array([1, 2, 4, 6, 7, 9]), np.full(6, 1 / 6))
USAGES = [ONE, TWO, THREE, SIX]
usages = pytest.mark.parametrize("usage", USAGES, ids=lambda usage: "+".join(map(str, usage.labels.tolist())))


class Network:
    """A profiled network, what searches it, and its images split as the profile splits them, from the pixels."""

    def __init__(self, profile, network):
        self.profile, self.searcher = profile, Searcher(profile)
        trained_on, unseen = network.trained_on, network.unseen
        rows = split_per_class(unseen.labels, {"select": 40, "certify": 20, "report": 20}, CLASSES)
        parts = {name: (unseen, r) for name, r in rows.items()}
        parts["profile"] = trained_on, split_per_class(trained_on.labels, {"profile": 90}, CLASSES)["profile"]
        self.images = {name: (PREPROCESSING.apply(s.pixels[r]), s.labels[r]) for name, (s, r) in parts.items()}

    def plain(self, usage, epsilon, folding):
        mine = {name: np.isin(labels, usage.labels) for name, (_, labels) in self.images.items()}
        images = {name: (inputs[mine[name]], labels[mine[name]]) for name, (inputs, labels) in self.images.items()}
        return Plain(self.profile, images, usage, epsilon, folding)

    def kept(self, result):
        channels = self.profile.base.channels
        kept = {layer.group: list(range(layer.units)) for layer in self.profile.layers}
        return kept | {channels.group_of(cut.tensor): cut.kept.tolist() for cut in result.cuts}

    def size(self, result):
        """Share of the units that are left."""
        return sum(layer.kept for layer in result.layers) / sum(layer.units for layer in result.layers)


@pytest.fixture(scope="module")
def sequential(digits_profile, digits_network):
    return Network(digits_profile, digits_network)


@pytest.fixture(scope="module")
def residual():
    return Network(residual_profile(), residual_network())


@pytest.fixture(params=["sequential", "residual"])
def network(request):
    return request.getfixturevalue(request.param)


class TestLayerByLayer:
    @usages
    @pytest.mark.parametrize("method", ["W", "M", "B", "L1"])
    def test_same_units_as_the_plain_search(self, network, method, usage):
        result = network.searcher.search(usage, METHODS[method], 0.03, folding="none")
        variant = METHODS[method].variant(network.profile, 0.03, lambda *_: None)
        assert network.kept(result) == network.plain(usage, 0.03, "none").by_layers(variant)

    def test_same_units_where_weights_are_too_large_to_be_loaded_twice(self, sequential, monkeypatch):
        monkeypatch.setattr("cloud_pruner.segments._REPEATED", 0)
        stepwise = Searcher(sequential.profile)
        for usage in USAGES:
            cut = stepwise.search(usage, METHODS["W"], 0.03)
            assert sequential.kept(cut) == sequential.kept(sequential.searcher.search(usage, METHODS["W"], 0.03))

    @pytest.mark.parametrize("folding", ["mean", "linear"])
    @pytest.mark.parametrize("method", ["W", "M"])
    @pytest.mark.parametrize("usage", [TWO, THREE], ids=["two", "three"])
    def test_same_units_with_folds(self, network, method, folding, usage):
        result = network.searcher.search(usage, METHODS[method], 0.03, folding=folding)
        variant = METHODS[method].variant(network.profile, 0.03, lambda *_: None)
        assert network.kept(result) == network.plain(usage, 0.03, folding).by_layers(variant)
        assert all(cut.folds for cut in result.cuts)

    def test_the_search_prunes(self, network):
        """Else it would be no wonder that all find the same."""
        for method in ("W", "M", "L1"):
            assert network.size(network.searcher.search(TWO, METHODS[method], 0.03)) < 0.97

    def test_the_path_fixes_one_layer_after_the_other(self, network):
        result = network.searcher.search(THREE, METHODS["M"], 0.05, folding="linear")
        assert len(result.cuts) > 1
        for number, cut in enumerate(result.path, 1):
            assert cut.make() == result.cuts[:number]
        figures = {layer.name: layer.figure for layer in result.layers}
        assert all((figures[layer.name] is None) == (layer.kept == layer.units) for layer in result.layers)


class TestAlongThePath:
    @pytest.mark.parametrize("folding", ["none", "mean", "linear"])
    @pytest.mark.parametrize("usage", [TWO, THREE], ids=["two", "three"])
    def test_same_cut_as_the_plain_search(self, network, usage, folding):
        searcher = network.searcher
        result = searcher.search(usage, METHODS["L"], 0.03, folding=folding)
        path = searcher._path(usage, searcher._fitter(usage), "size")
        number = network.plain(usage, 0.03, folding).along_path(path)
        assert network.kept(result) == {group: kept.tolist() for group, kept in path.kept(number).items()}

    def test_folds_are_those_of_the_plain_search(self, network):
        searcher, plain = network.searcher, network.plain(THREE, 0.03, "linear")
        fitter = searcher._fitter(THREE)
        path = searcher._path(THREE, fitter, "size")
        kept = path.kept(len(path.costs) // 2)
        inputs, _ = network.images["report"]
        base = network.profile.base
        expected = LoadedModel(masked_network(base, plain.folded(kept))).run(inputs)[0]
        actual = LoadedModel(base.emit(fitter.cuts(kept, "linear"))).run(inputs)[0]
        # Coefficients have 16 bits; which way a nearly even one is rounded may differ.
        assert np.abs(actual - expected).max() <= 2e-3 * np.ptp(expected)

    def test_linear_folds_prune_far_more(self, network):
        sizes = {
            folding: network.size(network.searcher.search(TWO, METHODS["L"], 0.03, folding=folding))
            for folding in ("none", "mean", "linear")
        }
        assert sizes["linear"] < 0.75 * sizes["none"]
        assert sizes["linear"] < network.size(network.searcher.search(TWO, METHODS["W"], 0.03))

    def test_the_way_to_the_cut_is_nested_and_ends_there(self, network):
        result = network.searcher.search(THREE, METHODS["L"], 0.03)
        way = [cut.make() for cut in result.path]
        assert 1 < len(way) <= 6
        assert way[-1] == result.cuts
        channels = network.profile.base.channels
        kept = [{channels.group_of(cut.tensor): set(cut.kept.tolist()) for cut in cuts} for cuts in way]
        sizes = [len(network.profile.base.emit(cuts)) for cuts in way]
        assert sizes == sorted(sizes, reverse=True)
        for before, after in pairwise(kept):
            for group, units in after.items():
                assert units <= before.get(group, units)

    def test_certification_starts_where_the_worst_class_loses_least(self, network):
        searcher = network.searcher
        path = searcher._path(THREE, searcher._fitter(THREE), "size")
        kept = path.kept(len(path.costs) - 1)
        unfolded = searcher.fitted(THREE, kept, "none", 0.03)
        assert max(count.loss for count in searcher.count(unfolded, THREE, "select").values()) > 0
        loses, whole, found = PathCut(kept, lambda: unfolded), PathCut({}, tuple), PathCut(kept, lambda: unfolded)
        for way, safest in (
            ([loses, whole, found], 1),
            ([whole, loses, found], 0),
            ([whole, whole, found], 0),  # the milder of two that are alike
            ([found], 0),
            ([], 0),
        ):
            assert searcher.safest(way, THREE) == safest

    def test_no_cut_where_there_is_none(self, sequential, monkeypatch):
        """No class may lose, and every cut is made to lose."""
        monkeypatch.setattr("cloud_pruner.judge.Judge.failing", lambda *_: 0)
        result = sequential.searcher.search(TWO, METHODS["L"], 0.01)
        assert (result.cuts, result.path) == ((), ())
        assert all(layer.kept == layer.units for layer in result.layers)

    @pytest.mark.parametrize("objective", ["macs", "energy"])
    def test_other_objectives_keep_the_bound_too(self, residual, objective):
        result = residual.searcher.search(THREE, METHODS["L"], 0.05, objective=objective)
        assert residual.size(result) < 0.9
        counts = residual.searcher.count(result.cuts, THREE, "select")
        assert all(count.loss <= 0.05 for count in counts.values())


every_way = pytest.mark.parametrize(
    ("method", "folding"), [("W", "none"), ("W", "linear"), ("M", "mean"), ("L", "linear"), ("Guo-Potkonjak", "mean")]
)


@every_way
def test_the_emitted_file_does_what_the_counts_say(network, method, folding):
    result = network.searcher.search(THREE, METHODS[method], 0.05, folding=folding)
    model = LoadedModel(network.profile.base.emit(result.cuts))
    base = LoadedModel(network.profile.base.content)
    for split, images in (("select", 40), ("certify", 20), ("report", 20)):
        inputs, labels = network.images[split]
        for label, count in network.searcher.count(result.cuts, THREE, split).items():
            mine = labels == label
            is_right = model.run(inputs[mine])[0].argmax(axis=1) == label
            was_right = base.run(inputs[mine])[0].argmax(axis=1) == label
            assert (count.images, count.base) == (images, was_right.sum())
            assert (count.newly_wrong, count.newly_right) == (
                (was_right & ~is_right).sum(),
                (~was_right & is_right).sum(),
            )
            assert split != "select" or was_right.sum() - is_right.sum() <= 0.05 * images


@every_way
def test_the_cut_equals_the_masked_and_folded_network_on_real_images(network, method, folding):
    cuts = network.searcher.search(TWO, METHODS[method], 0.05, folding=folding).cuts
    assert cuts
    inputs, _ = network.images["report"]
    base = network.profile.base
    cut = LoadedModel(base.emit(cuts)).run(inputs)[0]
    masked = LoadedModel(masked_network(base, cuts)).run(inputs)[0]
    assert np.abs(cut - masked).max() <= 1e-4 * np.ptp(masked)


@pytest.mark.parametrize("method", ["W", "L"])
def test_no_loss_allowed_means_none_on_the_select_images(network, method):
    usage = Usage(np.arange(10), np.full(10, 0.1))
    result = network.searcher.search(usage, METHODS[method], 1e-6)
    assert all(count.loss <= 0 for count in network.searcher.count(result.cuts, usage, "select").values())


def test_a_class_that_hardly_ever_comes_up_is_kept_in_bounds_as_well(network):
    rare = Usage(np.array([2, 8]), np.array([0.95, 0.05]))
    result = network.searcher.search(rare, METHODS["L"], 0.03)
    assert network.searcher.count(result.cuts, rare, "select")[8].loss <= 0.03
    report = network.searcher.count(result.cuts, rare, "report")
    assert max(count.loss for count in report.values()) <= 0.25


def test_nothing_cut_counts_as_the_base(network):
    for count in network.searcher.count((), THREE, "certify").values():
        assert (count.images, count.newly_wrong, count.newly_right) == (20, 0, 0)


def test_a_search_says_the_same_each_time(network):
    """Nothing is left over from the searches before it."""
    first = Searcher(network.profile).search(THREE, METHODS["L"], 0.03)
    network.searcher.search(TWO, METHODS["L"], 0.1)
    again = network.searcher.search(THREE, METHODS["L"], 0.03)
    base = network.profile.base
    assert base.emit(first.cuts) == base.emit(again.cuts)
    assert [base.emit(cut.make()) for cut in first.path] == [base.emit(cut.make()) for cut in again.path]


@pytest.mark.parametrize(
    "structure", [projection_first, padded_shortcut, joined, joined_alike, read_unequally, one_unit]
)
def test_any_structure_is_searched_and_cut(structure, tmp_path):
    searcher = Searcher(profile_of(structure, tmp_path / "profile"))
    base, pruned = searcher.profile.base, 0
    for method in ("W", "L1", "L"):
        for folding in ("none", "mean", "linear"):
            cuts = searcher.search(TWO, METHODS[method], 0.3, folding=folding).cuts
            assert all(count.loss <= 0.3 for count in searcher.count(cuts, TWO, "select").values())
            pruned += base.graph.parameters - read_graph(base.emit(cuts)).parameters
    assert pruned


class TestProgress:
    @staticmethod
    def seen(network, method):
        seen = []
        network.searcher.search(TWO, METHODS[method], 0.03, progress=lambda *what: seen.append(what))
        return seen

    def test_names_the_layers(self, network):
        seen = self.seen(network, "W")
        names = [layer.name for layer in network.profile.layers]
        assert seen == [*((name, number, len(names)) for number, name in enumerate(names)), ("done", 1, 1)]

    def test_says_which_size_is_tried(self, network):
        *trials, last = self.seen(network, "L")
        assert all(what.startswith("size 0.") for what, _, _ in trials)
        assert [done for _, done, _ in trials] == list(range(len(trials)))
        assert all(done < total for _, done, total in trials)
        assert last == ("done", 1, 1)
