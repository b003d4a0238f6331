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


@pytest.mark.parametrize("kind", ["float32", "int8"])
@pytest.mark.parametrize("name", TRAINED)
def test_cuts_of_trained_networks_on_real_images(name, kind, capnn_data, tmp_path):
    network = import_module(f"benchmarks.networks.{name}")
    if name.startswith("imagenet"):
        images = network.PREPROCESSING.apply(network.sample_images()[:40])
    else:
        from benchmarks.data import load_cifar

        pixels, _, _ = load_cifar("cifar100_test" if "cifar100" in name else "cifar10_test")
        images = network.PREPROCESSING.apply(pixels[::250])
    network.build().save(tmp_path / "model.keras")
    options = {"images": images, "preprocessing": network.PREPROCESSING}
    quantize = "none" if kind == "float32" else kind
    convert(tmp_path / "model.keras", tmp_path / "base.tflite", quantize=quantize, **options)
    base = BaseModel(normalize((tmp_path / "base.tflite").read_bytes()))
    assert len(base.channels.groups) == TRAINED[name]
    assert len(base.channels.prunable) == TRAINED[name] - 1
    rng = np.random.default_rng(TRAINED[name])
    check_cut(kind, base, random_cuts(base, rng, folds=["none"]), images[:6])
    check_cut(kind, base, random_cuts(base, rng), images[:6])
