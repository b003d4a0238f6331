"""ThiNet and channel pruning: choices that can be checked by hand, and surgery against the network with zeros."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.class_unaware.chain import chain, parameters_with, windows, with_channels
from benchmarks.class_unaware.prune import kept_counts, prune_channels
from benchmarks.class_unaware.reconstruction import WindowMoments, lasso_channels, refitted
from benchmarks.class_unaware.thinet import greedy_channels, rescaling
from cloud_pruner.errors import ConversionError


def test_thinet_drops_channels_whose_sum_matters_least():
    # Two samples of four channels. Channel 2 alone matters least (2 of 9, 9.01, 2, 4). Together with it, 1 sums to
    # (-2, 1.1), of square 5.21; 0 to (4, 1), 17; 3 to (1, 3), 10: 1 goes next, though 3 is smaller by itself.
    contributions = np.array([[3.0, -3.0, 1.0, 0.0], [0.0, 0.1, 1.0, 2.0]])
    assert greedy_channels(contributions, 3).tolist() == [0, 1, 3]
    assert greedy_channels(contributions, 2).tolist() == [0, 3]
    # Then 0, for (1, 1.1), of square 2.21, against (-2, 3.1), 13.61, with 3.
    assert greedy_channels(contributions, 1).tolist() == [3]


def test_thinet_scales_what_stays_to_give_the_samples_again():
    # The samples are 1 and 3.1. Channel 0 alone gives the first, with 1/3, and 3 the second, with 1.55.
    contributions = np.array([[3.0, -3.0, 1.0, 0.0], [0.0, 0.1, 1.0, 2.0]])
    np.testing.assert_allclose(rescaling(contributions, np.array([0, 3])), [1 / 3, 1.55])


def test_lasso_drops_the_channels_that_add_least():
    # Three samples, each of which reads one channel; through weights 2, 1, 1 they add 2, 2, 3 to the output. On such a
    # diagonal b_i = max(0, 1 - lambda / c_i^2): as lambda grows the smallest go first.
    read = np.diag([1.0, 1.5, 3.0])[:, np.newaxis, :]
    kernel = np.array([[[2.0], [1.0], [1.0]]])
    moments = WindowMoments.of(read, np.array([[2.0], [1.5], [3.0]]))
    assert lasso_channels(moments, kernel, 3).tolist() == [0, 1, 2]
    assert lasso_channels(moments, kernel, 2).tolist() == [0, 2]
    assert lasso_channels(moments, kernel, 1).tolist() == [2]


def test_reconstruction_gives_a_channel_the_weight_of_its_twin():
    # Channels 0 and 1 are alike, weights 3 and 2: without 1, channel 0 needs 5. Channel 2 keeps its own.
    read = np.array([[[1.0, 1.0, 0.0]], [[2.0, 2.0, 1.0]], [[0.0, 0.0, 4.0]]])
    outputs = read.reshape(3, 3) @ np.array([[3.0], [2.0], [7.0]])
    weights = refitted(WindowMoments.of(read, outputs), np.array([0, 2]))
    np.testing.assert_allclose(weights, [[[5.0], [7.0]]], rtol=1e-5)


@pytest.mark.parametrize("keep", [0, 5])
def test_so_many_channels_cannot_stay(keep):
    with pytest.raises(ValueError, match=f"{keep} of 4 channels cannot stay"):
        greedy_channels(np.ones((2, 4)), keep)
    with pytest.raises(ValueError, match=f"{keep} of 4 channels cannot stay"):
        lasso_channels(WindowMoments.of(np.ones((2, 1, 4)), np.ones((2, 1))), np.ones((1, 4, 1)), keep)


@pytest.fixture(scope="module")
def network():
    """Three convolutions, one of them strided, and two dense layers, with weights that are not what they begin as."""
    import keras

    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(6, 3, padding="same", use_bias=False, name="first"),
            layers.BatchNormalization(name="normalised"),
            layers.ReLU(),
            layers.Conv2D(5, 3, strides=2, padding="same", activation="relu", name="second"),
            layers.Conv2D(4, 3, padding="valid", activation="relu", name="third"),
            layers.Flatten(),
            layers.Dense(7, activation="relu", name="hidden"),
            layers.Dense(3, name="answer"),
        ],
        name="little",
    )
    rng = np.random.default_rng(0)
    model.set_weights(
        [rng.uniform(0.1, 1.0, w.shape) * rng.choice([-1, 1], w.shape) ** (w.ndim > 1) for w in model.get_weights()]
    )
    return model


@pytest.fixture(scope="module")
def inputs():
    return np.random.default_rng(1).normal(size=(12, 8, 8, 3)).astype(np.float32)


def silenced(network, name, pruned):
    """The network with zeros where the next layer with weights reads the pruned outputs of `name`."""
    import keras

    twin = keras.models.clone_model(network)
    twin.set_weights(network.get_weights())
    weighted = [layer.name for layer in twin.layers if hasattr(layer, "kernel")]
    reader = twin.get_layer(weighted[weighted.index(name) + 1])
    kernel, *bias = reader.get_weights()
    kernel[..., pruned, :] = 0.0
    reader.set_weights([kernel, *bias])
    return twin


@pytest.mark.parametrize("name", ["first", "second", "hidden"])
def test_a_network_without_channels_is_the_one_with_zeros(network, inputs, name):
    kept = np.array([0, 2, 3])
    smaller = with_channels(network, {name: kept})
    units = network.get_layer(name).output.shape[-1]
    expected = silenced(network, name, np.setdiff1d(np.arange(units), kept))
    np.testing.assert_allclose(smaller(inputs), expected(inputs), rtol=1e-4, atol=1e-3)
    assert smaller.count_params() == parameters_with(network, {name: 3}) < network.count_params()


def test_a_flattened_map_loses_a_channel_at_every_position(network, inputs):
    smaller = with_channels(network, {"third": np.array([1, 3])})
    expected = silenced(network, "third", [p * 4 + channel for p in range(4) for channel in (0, 2)])
    np.testing.assert_allclose(smaller(inputs), expected(inputs), rtol=1e-4, atol=1e-3)
    assert smaller.count_params() == parameters_with(network, {"third": 2})


@pytest.mark.parametrize("name", ["first", "second", "third"])
def test_windows_are_what_a_convolution_reads(network, inputs, name):
    import keras

    layer = network.get_layer(name)
    maps = keras.Model(network.inputs, layer.input).predict(inputs, verbose=0)
    bare = keras.Model(network.inputs, keras.ops.conv(layer.input, layer.kernel, layer.strides, layer.padding))
    expected = bare.predict(inputs, verbose=0)
    places = np.argwhere(np.ones(expected.shape[:3], dtype=bool))
    read = windows(maps, layer, places)
    kernel = layer.get_weights()[0].reshape(read.shape[1], read.shape[2], -1)
    np.testing.assert_allclose(np.einsum("ptc,tco->po", read, kernel), expected[tuple(places.T)], rtol=1e-3, atol=1e-2)


def test_a_network_that_is_no_chain_cannot_be_cut():
    import keras

    image = keras.Input((4, 4, 2))
    x = keras.layers.Conv2D(2, 1, name="way")(image)
    network = keras.Model(image, keras.layers.Add(name="sum")([x, image]), name="residual")
    with pytest.raises(ConversionError, match="residual: is no sequential network"):
        chain(network)


@pytest.fixture(scope="module")
def lazy(network):
    """The network with three idle channels of the first six: their normalisation has neither scale nor offset."""
    import keras

    twin = keras.models.clone_model(network)
    weights = network.get_weights()
    for values in weights[1:3]:
        values[[1, 3, 4]] = 0.0
    twin.set_weights(weights)
    return twin


def error(pruned, network, inputs):
    expected = network(inputs).numpy()
    return np.square(pruned(inputs).numpy() - expected).mean() / np.square(expected).mean()


def kept_filters(pruned, network):
    """Which filters of the first convolution are still there."""
    before, after = (np.moveaxis(one.get_layer("first").get_weights()[0], -1, 0) for one in (network, pruned))
    return [n for n, values in enumerate(before) if any(np.array_equal(values, other) for other in after)]


@pytest.mark.parametrize("criterion", ["thinet", "reconstruction"])
def test_idle_channels_go_first_and_cost_nothing(lazy, inputs, criterion):
    pruned = prune_channels(lazy, inputs, {"first": 3}, criterion)
    assert kept_filters(pruned, lazy) == [0, 2, 5]
    assert error(pruned, lazy, inputs) < 1e-6


def test_reconstruction_makes_up_for_what_went(lazy, inputs):
    pruned = prune_channels(lazy, inputs, {"first": 2}, "reconstruction")
    dropped = with_channels(lazy, {"first": np.array(kept_filters(pruned, lazy))})
    assert error(pruned, lazy, inputs) < error(dropped, lazy, inputs)


def test_a_network_keeps_as_much_as_it_is_asked_to(network):
    counts = kept_counts(network, 0.8)
    assert list(counts) == ["first", "second"]  # dense layers read the third
    assert 0.7 * network.count_params() < parameters_with(network, counts) <= 0.8 * network.count_params()
    with pytest.raises(ValueError, match="out of reach"):
        kept_counts(network, 0.1)
