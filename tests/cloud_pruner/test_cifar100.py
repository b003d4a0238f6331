"""The reference network on real images: sizes as measured before, and the cut equal to Keras' own masked network."""

from __future__ import annotations

import json

import numpy as np
import pytest

from cloud_pruner.cli import main
from cloud_pruner.conversion import convert
from cloud_pruner.images import split_per_class
from cloud_pruner.profiling import build_profile
from cloud_pruner.requests import checked_usage
from cloud_pruner.search import Searcher
from cloud_pruner.variants import VARIANTS
from edge_runtime.interpreter import LoadedModel

CLASSES = ["apple", "bear", "bus", "cloud", "maple_tree"]


@pytest.fixture(scope="module")
def network(capnn_data, tmp_path_factory):
    """The Keras network, its profile, and the test images."""
    from benchmarks.networks import cifar100_vgg_small as cifar

    folder = tmp_path_factory.mktemp("cifar100")
    model = cifar.build()
    model.save(folder / "model.keras")
    unseen = cifar.unseen_images()
    convert(folder / "model.keras", folder / "base.tflite", images=unseen, preprocessing=cifar.PREPROCESSING)
    content = (folder / "base.tflite").read_bytes()
    train = cifar.train_images()
    profile = build_profile(content, train, cifar.PREPROCESSING, folder / "profile", unseen=unseen)
    return model, profile, unseen


@pytest.fixture(scope="module")
def searched(network):
    _, profile, _ = network
    usage = checked_usage(dict.fromkeys(CLASSES, 1.0), profile.classes)
    return {name: Searcher(profile).search(usage, variant, 0.03) for name, variant in VARIANTS.items()}


def keras_counterpart(model, profile, cuts):
    """Fold the cuts into the kernels of the *whole* Keras network, in float64: no slicing, no .tflite."""
    import keras

    twin = keras.models.clone_model(model)
    twin.set_weights(model.get_weights())
    weighted = [layer for layer in twin.layers if isinstance(layer, keras.layers.Conv2D | keras.layers.Dense)]
    tensors = [layer.boundary for layer in profile.layers]
    for cut in cuts:
        # The layer after the pruned one: prunable layers are the last ones but for the output layer.
        reader = weighted[len(weighted) - len(tensors) + tensors.index(cut.tensor)]
        kernel = reader.kernel.numpy().astype(np.float64)
        by_unit = kernel.reshape(*kernel.shape[:-2], -1, cut.units, kernel.shape[-1])
        pruned = by_unit[..., cut.pruned, :].copy()
        for fold in cut.folds:
            coefficients = fold.coefficients * 2.0**fold.coefficient_exponent
            offsets = fold.offsets * 2.0**fold.offset_exponent
            by_unit[..., cut.kept, :] += np.einsum("...po,ps->...so", pruned, coefficients)
            shift = np.einsum("...po,p->...o", pruned, offsets)
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


@pytest.mark.parametrize("variant", VARIANTS)
def test_cut_equals_keras_masked_or_folded_on_real_images(network, searched, variant):
    model, profile, unseen = network
    cuts = searched[variant].cuts
    assert len(cuts) >= 3
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
    """Mean of six class sets, half with equal weights, K=5; a prototype had W 0.85, L 0.32 (0.24 with gradients)."""
    _, profile, _ = network
    searcher = Searcher(profile)
    rng = np.random.default_rng(0)
    sizes = {name: [] for name in VARIANTS}
    parameters = profile.base.graph.parameters
    from edge_runtime.flatmodel import read_graph

    for number in range(6):
        names = [profile.classes[label] for label in rng.choice(100, 5, replace=False)]
        weights = np.ones(5) if number % 2 else rng.dirichlet(np.ones(5))
        usage = checked_usage(dict(zip(names, weights, strict=True)), profile.classes)
        for name, variant in VARIANTS.items():
            result = searcher.search(usage, variant, 0.03)
            assert all(count.loss <= 0.03 for count in result.select.values())
            sizes[name].append(read_graph(profile.base.emit(result.cuts)).parameters / parameters)
    assert 0.70 <= np.mean(sizes["W"]) <= 0.90
    assert 0.14 <= np.mean(sizes["L"]) <= 0.32


def test_prune_command_on_the_reference_network(network, capsys):
    _, profile, _ = network
    for variant in VARIANTS:
        assert main(["prune", str(profile.folder), "--classes", *CLASSES, "--variant", variant, "--json"]) == 0
        fields = json.loads(capsys.readouterr().out)
        assert fields["variant"] == variant
        assert fields["relative_size"] < 1
        assert all(f["accuracy"] >= f["base_accuracy"] - 0.03 - 1e-9 for f in fields["per_class"].values())
