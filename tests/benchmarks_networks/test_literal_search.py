"""The paper's algorithm, literally in Keras, chooses the units that ours does, and its network computes the same."""

from __future__ import annotations

import numpy as np
import pytest

from cloud_pruner.images import split_per_class
from cloud_pruner.requests import checked_usage
from cloud_pruner.search import Searcher
from edge_runtime.flatmodel import read_graph
from edge_runtime.interpreter import LoadedModel
from tests.support.digits import CLASSES, PREPROCESSING

REQUESTS = [
    {"zero": 1.0, "one": 1.0},
    {"three": 0.6, "five": 0.3, "eight": 0.1},
    {"two": 1.0, "four": 1.0, "six": 1.0, "seven": 1.0, "nine": 1.0},
]
EPSILON = 0.03


@pytest.fixture
def network(digits_network):
    from cloud_pruner.keras_source import load_network

    return load_network(digits_network.keras)


@pytest.fixture(scope="module")
def images(digits_network):
    """Split -> (inputs, labels) as the profile split them, straight from the pixels."""
    unseen = digits_network.unseen
    rows = split_per_class(unseen.labels, {"select": 40, "certify": 20, "report": 20}, CLASSES)
    return {name: (PREPROCESSING.apply(unseen.pixels[r]), unseen.labels[r]) for name, r in rows.items()}


def search_literally(network, images, rates, usage):
    from benchmarks.literal_search import count_right, literal_search

    inputs, labels = (part[np.isin(images["select"][1], usage.labels)] for part in images["select"])
    base_right = count_right(network, inputs, labels, usage)
    return literal_search(network, inputs, labels, rates, usage, EPSILON, base_right), base_right


@pytest.mark.parametrize("request_", REQUESTS, ids="+".join)
def test_same_units_as_our_search_and_the_same_outputs(network, images, digits_profile, request_):
    from benchmarks import search
    from benchmarks.literal_search import count_right, rebuild

    usage = checked_usage(request_, CLASSES)
    rates = [layer.firing_rates for layer in digits_profile.layers]
    literal, base_right = search_literally(network, images, rates, usage)
    ours = search._ours(Searcher(digits_profile), usage)
    assert search.EPSILON == EPSILON
    assert [mask.tolist() for mask in literal.masks] == [mask.tolist() for mask in ours.masks]
    assert not all(mask.all() for mask in literal.masks)
    smaller = rebuild(network, literal.masks)
    # Of the four values that batch normalisation has for a unit of the second layer, the .tflite has one, the bias.
    folded = 3 * int(literal.masks[1].sum())
    assert smaller.count_params() - folded == read_graph(ours.content).parameters
    inputs, _ = images["certify"]
    masked, rebuilt = network.predict(inputs, verbose=0), smaller.predict(inputs, verbose=0)
    np.testing.assert_allclose(rebuilt, masked, atol=1e-5 * np.ptp(masked))
    np.testing.assert_allclose(LoadedModel(ours.content).run(inputs)[0], rebuilt, atol=1e-5 * np.ptp(masked))
    assert np.all(base_right - count_right(smaller, *images["select"], usage) <= EPSILON * 40)


@pytest.mark.parametrize("firing", [0, 1])
def test_a_layer_that_cannot_be_cut_stays_whole(network, images, digits_profile, firing):
    """With no unit that fires nothing may be tried; with a single one every threshold is, in vain."""
    before = network.get_weights()
    rates = [np.zeros_like(layer.firing_rates) for layer in digits_profile.layers]
    for layer in rates:
        layer[:firing] = 1.0
    result, _ = search_literally(network, images, rates, checked_usage(REQUESTS[0], CLASSES))
    assert all(mask.all() for mask in result.masks)
    assert set(result.thresholds) == {None}
    assert result.evaluations == firing * 17 * len(rates)
    assert all(map(np.array_equal, network.get_weights(), before))


def test_other_networks_are_refused(network):
    import keras

    from benchmarks.literal_search import rebuild

    with pytest.raises(TypeError, match="only a keras.Sequential is searched"):
        rebuild(keras.Model(network.inputs, network.outputs), [np.ones(48, dtype=bool)])
    depthwise = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.DepthwiseConv2D(3), keras.layers.Flatten()])
    with pytest.raises(TypeError, match="is a DepthwiseConv2D: expected Conv2D"):
        rebuild(depthwise, [])
