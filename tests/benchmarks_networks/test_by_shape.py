"""Networks by their shapes: as large as published, random in every parameter, and neither dead nor exploding."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.networks import by_shape
from benchmarks.networks.photographs import photograph_crops
from edge_runtime.flatmodel import BaseModel, normalize
from tests.support.graph_checks import check_cut
from tests.support.random_cuts import random_cuts
from tests.support.tflite_kinds import quiet

# Name -> smallest side; parameters as published, less what the first dense layers of VGG-16 and AlexNet do not read
# here (1x1 positions are left of the 7x7 and 6x6 at full size); channel groups.
NETWORKS = {
    "alexnet": (67, 62_378_344 - 35 * 256 * 4096, 8),
    "alexnet_grouped": (67, 60_965_224 - 35 * 256 * 4096, 8),
    "densenet121": (32, 8_062_504, 121),
    "efficientnet_b0": (32, 5_330_571, 41),
    "mobilenet_v2": (32, 3_538_984, 26),
    "resnet152": (32, 60_419_944, 106),
    "vgg16": (32, 138_357_544 - 48 * 512 * 4096, 16),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_it_is_as_published_alive_and_can_be_cut(name):
    side, parameters, groups = NETWORKS[name]
    model = by_shape.build(name, side=side)
    assert model.count_params() == parameters
    images = by_shape.preprocessing(name, side).apply(photograph_crops(300, side)[-16:])
    check_spread(model, images)
    base = BaseModel(normalize(converted(model, side)))
    assert len(base.channels.groups) == groups
    assert len(base.channels.prunable) == groups - 1  # all but the outputs
    rng = np.random.default_rng(groups)
    for folds in (["none"], ["none", "mean", "linear"]):
        check_cut("float32", base, random_cuts(base, rng, folds=folds), images[:2])


def check_spread(model, images):
    logits = np.asarray(model(images, training=False))  # less work than `predict`, which compiles the network first
    assert logits.shape == (16, 1000)
    assert 0.1 < logits.std(axis=1).mean() < 100  # over the classes
    assert logits.std(axis=0).mean() > 0.05  # over the images
    # What is left out is EfficientNet's own scaling of its input.
    parameters = [weight for weight in model.weights if not weight.path.startswith("normalization")]
    assert [weight.path for weight in parameters if np.ptp(weight.numpy()) == 0] == []


def converted(model, side):
    """Convert without comparing: rounding alone grows to 3e-4 of the range through 152 random layers.

    Weights are constants from the start: what the converter does to make them such takes half of its time.
    """
    import tensorflow as tf

    weights = [
        [weight.numpy() for weight in some] for some in (model.trainable_variables, model.non_trainable_variables)
    ]

    def classify(images):
        return model.stateless_call(*([tf.constant(w) for w in some] for some in weights), images, training=False)[0]

    image = tf.TensorSpec((1, side, side, 3), tf.float32)
    traced = tf.function(classify, autograph=False).get_concrete_function(image)
    definition = traced.graph.as_graph_def()
    nodes = {node.name: node for node in definition.node}
    for value, placeholder in traced.graph.captures:  # what layers hold beside their weights
        node = nodes[placeholder.op.name]
        node.op = "Const"
        node.attr.clear()
        node.attr["dtype"].type = placeholder.dtype.as_datatype_enum
        node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value.numpy()))
    with quiet():
        return tf.compat.v1.lite.TFLiteConverter(definition, traced.inputs[:1], traced.outputs).convert()


def test_the_seed_settles_the_weights():
    first, again, other = (by_shape.build("mobilenet_v2", seed, 32).get_weights() for seed in (3, 3, 4))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_an_unknown_network_is_refused():
    with pytest.raises(ValueError, match="there is no network 'vgg17': choose one of alexnet, alexnet_grouped, "):
        by_shape.build("vgg17")
