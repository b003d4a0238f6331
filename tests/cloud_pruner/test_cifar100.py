"""The reference network on real images: sizes as measured before, and the cut equal to Keras' own masked network."""

from __future__ import annotations

import json

import numpy as np
import pytest

from cloud_pruner.cli import main
from cloud_pruner.images import split_per_class
from cloud_pruner.methods import METHODS
from cloud_pruner.search import Searcher
from cloud_pruner.variants import Usage
from edge_runtime.flatmodel import read_graph
from edge_runtime.interpreter import LoadedModel

CLASSES = ["apple", "bear", "bus", "cloud", "maple_tree"]
WAYS = {"W": ("W", "none"), "W with linear folds": ("W", "linear"), "L": ("L", "linear")}


@pytest.fixture(scope="module")
def network(cifar100_profile):
    """The Keras network, its profile, and the test images."""
    from benchmarks.networks import cifar100_vgg_small as cifar

    return cifar.build(), cifar100_profile, cifar.unseen_images()


@pytest.fixture(scope="module")
def searched(network):
    _, profile, _ = network
    usage = Usage(np.array([profile.classes.index(name) for name in CLASSES]), np.full(5, 0.2))
    searcher = Searcher(profile)
    return {way: searcher.search(usage, METHODS[name], 0.03, folding=folds) for way, (name, folds) in WAYS.items()}


def keras_counterpart(model, profile, cuts):
    """Fold the cuts into the kernels of the *whole* Keras network, in float64: no slicing, no .tflite."""
    import keras

    twin = keras.models.clone_model(model)
    twin.set_weights(model.get_weights())
    weighted = [layer for layer in twin.layers if isinstance(layer, keras.layers.Conv2D | keras.layers.Dense)]
    tensors = [layer.tensor for layer in profile.layers]
    for cut in cuts:
        # The layer after the pruned one: prunable layers are the last ones but for the output layer.
        reader = weighted[len(weighted) - len(tensors) + tensors.index(cut.tensor)]
        kernel = reader.kernel.numpy().astype(np.float64)
        by_unit = kernel.reshape(*kernel.shape[:-2], -1, cut.units, kernel.shape[-1])
        whole = by_unit.copy()
        for fold in cut.folds:
            # A row for each pruned unit, or for every unit: then those of kept ones are added to the identity.
            rows = cut.pruned if len(fold.offsets) == len(cut.pruned) else np.arange(cut.units)
            coefficients = fold.coefficients * 2.0**fold.coefficient_exponent
            offsets = fold.offsets * 2.0**fold.offset_exponent
            by_unit[..., cut.kept, :] += np.einsum("...po,ps->...so", whole[..., rows, :], coefficients)
            shift = np.einsum("...po,p->...o", whole[..., rows, :], offsets)
            _shift(twin, reader, shift.reshape(-1, shift.shape[-1]).sum(axis=0))
        by_unit[..., cut.pruned, :] = 0.0
        reader.kernel.assign(by_unit.reshape(kernel.shape).astype(np.float32))
    return twin


def _shift(twin, reader, by):
    """Add to a layer's bias; without one it has a batch normalisation behind it, whose mean takes the shift."""
    if reader.bias is not None:
        reader.bias.assign(reader.bias.numpy() + by.astype(np.float32))
        return
    normalisation = twin.layers[twin.layers.index(reader) + 1]
    normalisation.moving_mean.assign(normalisation.moving_mean.numpy() - by.astype(np.float32))


@pytest.mark.parametrize("way", WAYS)
def test_cut_equals_keras_masked_or_folded_on_real_images(network, searched, way):
    model, profile, unseen = network
    cuts = searched[way].cuts
    assert len(cuts) >= 3
    assert any(cut.folds for cut in cuts) == (WAYS[way][1] == "linear")
    rows = split_per_class(unseen.labels, {"some": 2})["some"]
    inputs = profile.preprocessing.apply(unseen.pixels[rows])
    expected = keras_counterpart(model, profile, cuts).predict(inputs, verbose=0)
    content = profile.base.emit(cuts)
    allowed = 1e-4 * np.ptp(expected)
    assert np.abs(LoadedModel(content).run(inputs)[0] - expected).max() <= allowed
    assert np.abs(run_in_tensorflow(content, inputs) - expected).max() <= allowed


def run_in_tensorflow(content, inputs):
    """An independent reader: the interpreter that comes with TensorFlow."""
    import tensorflow as tf

    interpreter = tf.lite.Interpreter(model_content=bytes(content))
    interpreter.allocate_tensors()
    outputs = []
    for row in inputs:
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], row[np.newaxis])
        interpreter.invoke()
        outputs.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0])
    return np.array(outputs)


def test_sizes_are_about_those_measured_before(network):
    """Mean of four class sets, half with equal weights, K=5: 0.84 and 0.12 before."""
    _, profile, _ = network
    searcher = Searcher(profile)
    rng = np.random.default_rng(0)
    sizes = {"W": [], "L": []}
    parameters = profile.base.graph.parameters
    for number in range(4):
        labels = np.sort(rng.choice(100, 5, replace=False))
        usage = Usage(labels, np.full(5, 0.2) if number % 2 else rng.dirichlet(np.ones(5)))
        for name, of_method in sizes.items():
            cuts = searcher.search(usage, METHODS[name], 0.03).cuts
            assert all(count.loss <= 0.03 for count in searcher.count(cuts, usage, "select").values())
            of_method.append(read_graph(profile.base.emit(cuts)).parameters / parameters)
    assert 0.70 <= np.mean(sizes["W"]) <= 0.92
    assert 0.05 <= np.mean(sizes["L"]) <= 0.18


@pytest.mark.parametrize("way", WAYS)
def test_counts_on_real_images_are_those_of_the_emitted_file(network, searched, way):
    _, profile, unseen = network
    usage = Usage(np.array([profile.classes.index(name) for name in CLASSES]), np.full(5, 0.2))
    counts = Searcher(profile).count(searched[way].cuts, usage, "select")
    model = LoadedModel(profile.base.emit(searched[way].cuts))
    rows = split_per_class(unseen.labels, {"select": 50}, profile.classes)["select"]
    for label, count in counts.items():
        mine = rows[unseen.labels[rows] == label]
        predictions = model.run(profile.preprocessing.apply(unseen.pixels[mine]))[0].argmax(axis=1)
        assert count.images == len(mine) == 50
        assert count.base - count.newly_wrong + count.newly_right == (predictions == label).sum()
        assert count.loss <= 0.03


@pytest.mark.parametrize("variant", ["W", "L"])
def test_prune_command_on_the_reference_network(network, capsys, variant):
    _, profile, _ = network
    arguments = ["prune", str(profile.folder), "--classes", *CLASSES, "--variant", variant, "--guarantee", "empirical"]
    assert main([*arguments, "--json"]) == 0
    fields = json.loads(capsys.readouterr().out)
    assert fields["variant"] == variant
    assert fields["relative_size"] < 1
    assert all(f["accuracy"] >= f["base_accuracy"] - 0.03 - 1e-9 for f in fields["per_class"].values())
