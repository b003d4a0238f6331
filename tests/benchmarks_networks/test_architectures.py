"""The papers' networks: as large as published, in the shape of their model at any width, and fit to be cut."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.networks import architectures
from cloud_pruner.conversion import convert
from edge_runtime.flatmodel import BaseModel, normalize
from tests.support.graph_checks import check_cut, random_images
from tests.support.random_cuts import random_cuts


def parameters(model):
    """Those that are trained: the published counts leave out the statistics of batch normalisation."""
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


def convolutions(model):
    return [layer for layer in model.layers if hasattr(layer, "kernel_size")]


# VGG-16 with the head of the paper's CIFAR study, 33.6 M; AlexNet, 62.4 M without groups and 61.0 M with them, for
# 1,000 classes; ResNet-152, 58.2 M with 10 outputs; ResNet-20 with projections, 0.27 M.
@pytest.mark.parametrize(
    ("name", "classes", "options", "published"),
    [
        ("vgg16", 10, {"normalised": False}, 33_638_218),
        ("alexnet", 1000, {}, 62_378_344),
        ("alexnet", 1000, {"groups": 2}, 60_965_224),
        ("resnet152", 10, {"side": 224}, 58_164_298),
        ("cifar_resnet", 10, {"depth": 20}, 272_474),
    ],
    ids=["vgg16", "alexnet", "alexnet grouped", "resnet152", "resnet20"],
)
def test_at_full_width_it_is_as_large_as_published(name, classes, options, published):
    import keras

    # Only shapes are asked for.
    with keras.StatelessScope(initialize_variables=False):
        model = getattr(architectures, name)(classes, **options)
    assert parameters(model) == published


def test_normalisation_takes_the_place_of_biases():
    import keras

    with keras.StatelessScope(initialize_variables=False):
        plain, normalised = (architectures.vgg16(10, width=1 / 16, head=16, normalised=one) for one in (False, True))
    channels = 2 * 4 + 2 * 8 + 3 * 16 + 6 * 32
    assert parameters(normalised) == parameters(plain) + channels  # scale and shift for a bias


def test_width_multiplies_the_channels_of_every_convolution():
    import keras

    with keras.StatelessScope(initialize_variables=False):
        alexnet = architectures.alexnet(10, width=0.25, head=8, side=32)
        resnet = architectures.cifar_resnet(10, depth=14, width=0.5)
    assert [layer.filters for layer in convolutions(alexnet)] == [24, 64, 96, 96, 64]
    inner = [layer.filters for layer in convolutions(resnet) if layer.kernel_size == (3, 3)]
    assert inner == [8] + [8] * 4 + [16] * 4 + [32] * 4


TINY = {
    "vgg16": {"width": 1 / 16, "head": 12},
    "alexnet": {"width": 1 / 16, "head": 12, "side": 32},
    "cifar_resnet": {"depth": 8, "width": 0.5},
}
# ResNet-152 itself takes long to convert; its blocks are those of the one that by_shape's tests convert and cut.


@pytest.mark.parametrize("name", TINY)
def test_it_converts_and_can_be_cut(name, tmp_path):
    model = getattr(architectures, name)(7, **TINY[name])
    rng = np.random.default_rng(5)
    for weight in model.weights:
        # What begins at zero would hide mistakes.
        if weight.path.endswith(("bias", "beta")):
            weight.assign(rng.normal(0, 0.2, weight.shape))
        elif weight.path.endswith("gamma"):
            weight.assign(rng.uniform(0.3, 1.0, weight.shape))
    model.save(tmp_path / "model.keras")
    report = convert(tmp_path / "model.keras", tmp_path / "base.tflite")
    assert report.classes == 7
    base = BaseModel(normalize(report.path.read_bytes()))
    assert len(base.channels.prunable) == len(base.channels.groups) - 1  # all but the outputs
    check_cut("float32", base, random_cuts(base, rng), random_images(base, rng, 2))


def test_a_depth_that_no_resnet_has_is_refused():
    with pytest.raises(ValueError, match=r"there is no CIFAR ResNet of depth 21: take 6 n \+ 2, such as 8, 20 or 56"):
        architectures.cifar_resnet(10, depth=21)
