"""The orders of other methods, against loops written from their docstrings."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from cloud_pruner.baselines import (
    BASELINES,
    activation_rank,
    average_firing_rate,
    contribution,
    filter_norm,
    random_score,
)
from cloud_pruner.variants import Usage
from edge_runtime.flatmodel import real_values
from tests.support.shortcut_network import FLATTENED, STREAM, shortcut_profile

USAGE = Usage(np.array([1, 4, 8]), np.array([0.5, 0.125, 0.375]))


@pytest.fixture(scope="module")
def with_shortcuts(tmp_path_factory):
    return shortcut_profile(tmp_path_factory.mktemp("profiles") / "shortcuts")


def weights_of(profile, kind):
    """Weights of the layers of a kind, in order of computation."""
    graph = profile.base.graph
    return [real_values(graph.tensors[o.inputs[1]]) for o in graph.operators if o.kind == kind]


@pytest.mark.parametrize("baseline", BASELINES.values(), ids=BASELINES)
def test_the_lowest_scores_go_first(digits_profile, baseline):
    for layer in digits_profile.layers:
        scores = baseline.score(digits_profile, layer, USAGE)
        assert scores.shape == (layer.units,)
        assert np.isfinite(scores).all()
        cuts = list(baseline.candidates(digits_profile, layer, USAGE))
        assert len(cuts) >= 15
        for cut in cuts:
            pruned = np.setdiff1d(np.arange(layer.units), cut.kept)
            assert len(pruned) == int(cut.figure * layer.units + 1e-9)
            assert scores[pruned].max() <= scores[cut.kept].min()
        for daring, careful in pairwise(cuts):
            assert set(daring.kept.tolist()) < set(careful.kept.tolist())


def test_chance_is_the_same_each_time_and_another_for_each_layer(digits_profile):
    layer = digits_profile.layers[0]
    first = random_score(digits_profile, layer, USAGE)
    np.testing.assert_array_equal(first, random_score(digits_profile, layer, USAGE))
    assert (first != random_score(digits_profile, replace(layer, name="another"), USAGE)).any()


def test_filter_norms_are_those_of_a_unit_s_own_weights(digits_profile):
    filters = [*weights_of(digits_profile, "CONV_2D"), *weights_of(digits_profile, "FULLY_CONNECTED")]
    for layer, weights in zip(digits_profile.layers, filters, strict=False):
        expected = [np.abs(weights[n]).sum() for n in range(layer.units)]
        np.testing.assert_allclose(filter_norm(digits_profile, layer, USAGE), expected)


def test_filter_norms_of_a_stream_are_those_of_both_layers_that_write_it(with_shortcuts):
    first, _, second, _ = weights_of(with_shortcuts, "CONV_2D")
    (stream,) = (layer for layer in with_shortcuts.layers if layer.units == STREAM)
    expected = [np.abs(first[n]).sum() + np.abs(second[n]).sum() for n in range(STREAM)]
    np.testing.assert_allclose(filter_norm(with_shortcuts, stream, USAGE), expected)


def test_average_firing_rate_is_no_user_s(digits_profile):
    for layer in digits_profile.layers:
        expected = [sum(float(rate) for rate in layer.firing_rates[n]) / 10 for n in range(layer.units)]
        np.testing.assert_allclose(average_firing_rate(digits_profile, layer, USAGE), expected)


def test_activation_ranks_are_unions_of_each_class_s_strongest_units(digits_profile):
    for layer in digits_profile.layers:
        scores = activation_rank(digits_profile, layer, USAGE)
        for share in (0.1, 0.5, 0.9):
            needed = set()
            for label in USAGE.labels.tolist():
                means = [float(mean) for mean in layer.mean_activations[:, label]]
                carried = 0.0
                for n in sorted(range(layer.units), key=lambda n, means=means: -means[n]):
                    if carried > share * sum(means):
                        break
                    needed.add(n)
                    carried += means[n]
            assert set(np.flatnonzero(scores >= -share - 1e-12).tolist()) == needed


def test_nobody_needs_a_unit_that_is_idle_by_activation_rank(digits_profile):
    layer = digits_profile.layers[-1]
    means = np.array(layer.mean_activations)
    means[[3, 7]] = 0
    scores = activation_rank(digits_profile, replace(layer, mean_activations=means), USAGE)
    np.testing.assert_allclose(scores[[3, 7]], -1)
    means[:, USAGE.labels] = 0
    scores = activation_rank(digits_profile, replace(layer, mean_activations=means), USAGE)
    np.testing.assert_array_equal(scores, -1)


def test_contribution_counts_a_flattened_map_at_every_position(digits_profile):
    dense, _ = weights_of(digits_profile, "FULLY_CONNECTED")
    layer = digits_profile.layers[2]
    assert dense.shape == (48, 4 * layer.units)
    for n, score in enumerate(contribution(digits_profile, layer, USAGE)):
        mean = sum(w * layer.mean_activations[n, k] for k, w in zip(USAGE.labels, USAGE.weights, strict=True))
        reading = sum(np.abs(dense[:, p * layer.units + n]).sum() for p in range(4))
        np.testing.assert_allclose(score, mean * reading, rtol=1e-6)


def test_contribution_counts_every_layer_that_reads_the_stream(with_shortcuts):
    _, inner, _, last = weights_of(with_shortcuts, "CONV_2D")
    (dense,) = weights_of(with_shortcuts, "FULLY_CONNECTED")
    (stream,) = (layer for layer in with_shortcuts.layers if layer.units == STREAM)
    for n, score in enumerate(contribution(with_shortcuts, stream, USAGE)):
        mean = sum(w * stream.mean_activations[n, k] for k, w in zip(USAGE.labels, USAGE.weights, strict=True))
        reading = sum(np.abs(read).sum() for read in (inner[..., n], last[..., n], dense[:, 4 * FLATTENED + n]))
        np.testing.assert_allclose(score, mean * reading, rtol=1e-6)


def test_only_guo_and_potkonjak_leave_a_mean_behind():
    assert {name: baseline.folding for name, baseline in BASELINES.items()} == {
        "random": "none",
        "L1": "none",
        "APoZ": "none",
        "OCAP": "none",
        "Guo-Potkonjak": "mean",
    }
