"""Trained networks, cut, on real images. (Others, by their shapes: tests/benchmarks_networks.)"""

from __future__ import annotations

from importlib import import_module

import numpy as np
import pytest

from cloud_pruner.conversion import convert
from edge_runtime.flatmodel import BaseModel, normalize
from tests.support.graph_checks import check_cut
from tests.support.random_cuts import random_cuts

# Name -> channel groups; all but that of the outputs can be cut.
TRAINED = {
    "cifar10_resnet20": 11,
    "cifar10_resnet56": 29,
    "cifar10_mlperf_resnet8": 7,
    "imagenet_mobilenet_v1_025": 15,
    "cifar100_vgg_small": 10,
}


KINDS = ("float32", "int8")
# ResNet-20 has the same blocks in float32 as ResNet-56; in int8, where cuts are exact, both are cut.
CASES = [(name, kind) for name in TRAINED for kind in KINDS if (name, kind) != ("cifar10_resnet56", "float32")]


@pytest.fixture(scope="module")
def trained(request, capnn_data, tmp_path_factory):
    """The name of a network, its file, what its images go through, and forty of them."""
    network = import_module(f"benchmarks.networks.{request.param}")
    if request.param.startswith("imagenet"):
        images = network.PREPROCESSING.apply(network.sample_images()[:40])
    else:
        from benchmarks.data import load_cifar

        pixels, _, _ = load_cifar("cifar100_test" if "cifar100" in request.param else "cifar10_test", 10)
        images = network.PREPROCESSING.apply(pixels[::25])
    path = tmp_path_factory.mktemp(request.param) / "model.keras"
    network.build().save(path)
    return request.param, path, network.PREPROCESSING, images


@pytest.mark.parametrize(("trained", "kind"), CASES, indirect=["trained"])
def test_cuts_of_trained_networks_on_real_images(trained, kind, tmp_path):
    name, path, preprocessing, images = trained
    quantize = "none" if kind == "float32" else kind
    convert(path, tmp_path / "base.tflite", images=images, preprocessing=preprocessing, quantize=quantize)
    base = BaseModel(normalize((tmp_path / "base.tflite").read_bytes()))
    assert len(base.channels.groups) == TRAINED[name]
    assert len(base.channels.prunable) == TRAINED[name] - 1
    rng = np.random.default_rng(TRAINED[name])
    check_cut(kind, base, random_cuts(base, rng, folds=["none"]), images[:6])
    check_cut(kind, base, random_cuts(base, rng), images[:6])
