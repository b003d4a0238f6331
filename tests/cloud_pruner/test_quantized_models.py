"""An int8 model is profiled, cut and judged like a float one, by what its integers stand for."""

from __future__ import annotations

import numpy as np
import pytest

from cloud_pruner.conversion import convert
from cloud_pruner.personalize import Personalizer
from cloud_pruner.profiling import ProfileSettings, build_profile
from cloud_pruner.requests import PruneRequest
from edge_runtime.flatmodel import PruningPlan, read_graph
from edge_runtime.interpreter import LoadedModel
from tests.support.digits import PREPROCESSING


@pytest.fixture(scope="module")
def int8_profile(digits_network, tmp_path_factory):
    folder = tmp_path_factory.mktemp("int8")
    options = {"images": digits_network.trained_on, "preprocessing": PREPROCESSING, "quantize": "int8"}
    convert(digits_network.keras, folder / "base.tflite", **options)
    content = (folder / "base.tflite").read_bytes()
    trained_on, unseen = digits_network.trained_on, digits_network.unseen
    settings = ProfileSettings(depth=None)
    return build_profile(content, trained_on, PREPROCESSING, folder / "profile", unseen=unseen, settings=settings)


def test_its_moments_are_those_of_the_float_network(int8_profile, digits_profile):
    for quantized, plain in zip(int8_profile.layers, digits_profile.layers, strict=True):
        assert quantized.units == plain.units
        largest = np.abs(plain.means).max()
        np.testing.assert_allclose(quantized.means, plain.means, atol=0.03 * largest)
        np.testing.assert_allclose(quantized.weight_norms, plain.weight_norms, rtol=0.05, atol=0.01)


@pytest.mark.parametrize("variant", ["W", "L"])
def test_its_cut_is_small_and_right(int8_profile, digits_network, variant):
    answer = Personalizer(int8_profile).personalize(PruneRequest({"one": 1.0, "four": 1.0}, variant))
    assert answer.manifest.relative_size < (0.5 if variant == "L" else 0.95)
    for figures in answer.held_out.values():
        assert figures.accuracy >= figures.base_accuracy - 0.1
    constants = [tensor for tensor in read_graph(answer.model).tensors if tensor.is_constant and tensor.quantization]
    assert {tensor.dtype.name for tensor in constants} == {"int8", "int32"}
    assert int8_profile.base.apply(PruningPlan.from_bytes(answer.plan)) == answer.model
    unseen = digits_network.unseen
    ones = PREPROCESSING.apply(unseen.pixels[unseen.labels == 1])
    assert (LoadedModel(answer.model).run(ones)[0].argmax(axis=1) == 1).mean() > 0.85
