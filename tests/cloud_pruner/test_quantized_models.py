"""An int8 model is profiled, cut and judged like a float one, by what its integers stand for."""

from __future__ import annotations

import numpy as np
import pytest

from cloud_pruner.conversion import convert
from cloud_pruner.images import split_per_class
from cloud_pruner.methods import METHODS
from cloud_pruner.profiling import ProfileSettings, build_profile
from cloud_pruner.search import Searcher
from cloud_pruner.variants import Usage
from edge_runtime.flatmodel import PruningPlan, read_graph
from edge_runtime.interpreter import LoadedModel
from tests.support.digits import PREPROCESSING
from tests.support.reference import masked_network
from tests.support.residual_digits import residual_network, residual_profile

TWO = Usage(np.array([1, 4]), np.array([0.5, 0.5]))


class Quantized:
    """A network's int8 profile and the float one."""

    def __init__(self, network, plain, folder):
        options = {"images": network.trained_on, "preprocessing": PREPROCESSING, "quantize": "int8"}
        convert(network.keras, folder / "base.tflite", **options)
        settings = ProfileSettings(depth=None, images={"select": 40, "certify": 20, "report": 20})
        self.network, self.plain = network, plain
        self.profile = build_profile(
            (folder / "base.tflite").read_bytes(),
            network.trained_on,
            PREPROCESSING,
            folder / "profile",
            unseen=network.unseen,
            settings=settings,
        )
        self.searcher = Searcher(self.profile)


@pytest.fixture(scope="module")
def sequential(digits_network, digits_profile, tmp_path_factory):
    return Quantized(digits_network, digits_profile, tmp_path_factory.mktemp("int8"))


@pytest.fixture(scope="module")
def residual(tmp_path_factory):
    return Quantized(residual_network(), residual_profile(), tmp_path_factory.mktemp("int8"))


@pytest.fixture(params=["sequential", "residual"])
def quantized(request):
    return request.getfixturevalue(request.param)


def test_what_is_measured_is_what_the_float_network_has(quantized):
    assert [layer.units for layer in quantized.profile.layers] == [layer.units for layer in quantized.plain.layers]
    for whole, plain in zip(quantized.profile.layers, quantized.plain.layers, strict=True):
        largest = np.abs(plain.mean_activations).max()
        np.testing.assert_allclose(whole.mean_activations, plain.mean_activations, atol=0.05 * largest)
        # What is below half a step does not fire.
        assert np.abs(whole.firing_rates - plain.firing_rates).mean() < 0.05
        # How much the logits change is much the same thing.
        ratio = np.log(whole.sensitivities / plain.sensitivities)
        assert np.abs(np.median(ratio)) < 0.5


@pytest.mark.parametrize("method", ["W", "M", "L"])
@pytest.mark.parametrize("folding", ["none", "mean", "linear"])
def test_no_class_loses_more_than_epsilon_on_the_select_images(quantized, method, folding):
    result = quantized.searcher.search(TWO, METHODS[method], 0.05, folding=folding)
    counts = quantized.searcher.count(result.cuts, TWO, "select")
    assert all(count.loss <= 0.05 for count in counts.values())
    # The emitted file itself, from the pixels.
    model = LoadedModel(quantized.profile.base.emit(result.cuts))
    unseen = quantized.network.unseen
    rows = split_per_class(unseen.labels, {"select": 40})["select"]
    for label, count in counts.items():
        images = PREPROCESSING.apply(unseen.pixels[rows[unseen.labels[rows] == label]])
        right = (model.run(images)[0].argmax(axis=1) == label).sum()
        assert count.base - count.newly_wrong + count.newly_right == right


def test_the_default_finds_small_cuts(quantized):
    result = quantized.searcher.search(TWO, METHODS["L"], 0.05)
    cut = read_graph(quantized.profile.base.emit(result.cuts))
    assert cut.parameters < 0.5 * quantized.profile.base.graph.parameters
    assert sum(layer.kept for layer in result.layers) < 0.75 * sum(layer.units for layer in result.layers)


@pytest.mark.parametrize("method", ["W", "L"])
def test_the_cut_is_an_int8_model_and_equals_the_masked_one(quantized, method):
    base = quantized.profile.base
    cuts = quantized.searcher.search(TWO, METHODS[method], 0.1, folding="linear").cuts
    assert cuts
    content = base.emit(cuts)
    constants = [tensor for tensor in read_graph(content).tensors if tensor.is_constant and tensor.quantization]
    assert {tensor.dtype.name for tensor in constants} == {"int8", "int32"}
    assert base.apply(PruningPlan.from_bytes(PruningPlan(base.digest, cuts).to_bytes())) == content
    images = PREPROCESSING.apply(quantized.network.unseen.pixels[:80])
    np.testing.assert_array_equal(
        LoadedModel(content).run(images)[0], LoadedModel(masked_network(base, cuts)).run(images)[0]
    )
