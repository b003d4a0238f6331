"""What cutting and folding do to quantised layers: their scales, their zero points, and what they compute.

`test_random_graphs` compares cuts with the rules, written down once more; here the rules meet what they are for.
"""

from __future__ import annotations

import functools

import numpy as np
import pytest
import tensorflow as tf

from edge_runtime.errors import PlanError
from edge_runtime.flatmodel import BaseModel, Fold, LayerCut, extract, normalize, read_graph, real_values
from edge_runtime.interpreter import LoadedModel
from tests.support.graph_checks import outputs, random_images
from tests.support.tflite_kinds import INTEGER_KINDS, KINDS, convert

# Units 0..3 stay; 4..7 are made of them: a_P = OFFSETS + COEFFICIENTS @ a_S.
KEPT, PRUNED = np.arange(4), np.arange(4, 8)
COEFFICIENTS = np.random.default_rng(0).normal(0, 0.7, (4, 4))
OFFSETS = np.array([0.5, -0.3, 0.8, -0.6])
READERS = ("convolution", "dense", "flattened", "concatenated")

every_kind = pytest.mark.parametrize("kind", KINDS)
integer_weights = pytest.mark.parametrize("kind", ["dynamic", *INTEGER_KINDS])


@functools.cache
def redundant_network(kind, reader="convolution"):
    """A network whose second layer has 8 units, the last 4 linear in the first 4; `reader` is what reads them."""
    rng = np.random.default_rng(1)

    def normal(*shape):
        return rng.normal(0, np.sqrt(2 / np.prod(shape[:-1])), shape).astype(np.float32)

    kept, bias = normal(3, 3, 12, 4), normal(4)
    weights = np.concatenate([kept, kept @ COEFFICIENTS.T], -1).astype(np.float32)
    biases = np.concatenate([bias, OFFSETS + COEFFICIENTS @ bias]).astype(np.float32)

    @tf.function(input_signature=[tf.TensorSpec((1, 10, 10, 3))])
    def network(x):
        x = tf.nn.relu(tf.nn.conv2d(x, normal(3, 3, 3, 12), 1, "SAME") + normal(12))
        y = tf.nn.conv2d(x, weights, 1, "SAME") + biases
        if reader == "convolution":
            y = tf.nn.conv2d(y, normal(3, 3, 8, 16), 1, "VALID") + normal(16)
        if reader == "concatenated":
            y = tf.concat([tf.nn.relu(tf.nn.conv2d(x, normal(3, 3, 12, 6), 1, "SAME")), y], -1)
            y = tf.nn.conv2d(y, normal(3, 3, 14, 16), 1, "VALID") + normal(16)
        if reader == "transposed convolution":
            y = tf.nn.conv2d_transpose(y, normal(3, 3, 16, 8), [1, 20, 20, 16], 2) + normal(16)
        if reader == "flattened":
            return tf.matmul(tf.reshape(tf.nn.avg_pool2d(y, 2, 2, "SAME"), [1, -1]), normal(200, 6)) + normal(6)
        y = tf.reduce_mean(y if reader == "dense" else tf.nn.relu(y), [1, 2])
        return tf.matmul(y, normal(int(y.shape[-1]), 6)) + normal(6)

    return BaseModel(normalize(convert(network.get_concrete_function(), kind, np.random.default_rng(2))))


def redundant_group(base):
    """The group of the second layer, and the one layer that reads it."""
    (group,) = (group for group in base.channels.groups if group.prunable and group.units == 8)
    (consumer,) = group.consumers
    return group, consumer


def cut_with(base, coefficients=None, offsets=None):
    """The redundant units' cut: with a linear fold, one of means, or none."""
    group, consumer = redundant_group(base)
    if offsets is None:
        return LayerCut(group.tensors[0], 8, KEPT)
    coefficients = np.zeros((4, 0)) if coefficients is None else coefficients
    return LayerCut(group.tensors[0], 8, KEPT, (Fold.of(consumer.weight, coefficients, offsets),))


def offsets_of(cut):
    (fold,) = cut.folds
    return fold.offsets * 2.0**fold.offset_exponent


def scales_of(tensor):
    return tensor.quantization.scales.view(np.dtype("<f4"))


def zero_points_of(tensor):
    return tensor.quantization.zero_points.view(np.dtype("<i8"))


@every_kind
@pytest.mark.parametrize("reader", READERS)
def test_folding_units_that_follow_from_others_loses_nothing(kind, reader):
    """The cut computes what the whole network does, but for rounding; without the fold it does not."""
    base = redundant_network(kind, reader)
    images = random_images(base, np.random.default_rng(3), 16)
    whole = outputs(base.content, images)

    def error(cut):
        return np.abs(outputs(base.emit([cut]), images) - whole).mean() / whole.std()

    folded, dropped = error(cut_with(base, COEFFICIENTS, OFFSETS)), error(cut_with(base))
    assert folded < {"float32": 1e-4, "float16": 2e-3}.get(kind, 0.1)
    assert dropped > 5 * folded
    assert dropped > 0.2


@every_kind
@pytest.mark.parametrize("reader", READERS)
def test_folding_means_beats_dropping_units(kind, reader):
    """With the mean of each pruned unit in its place, outputs are nearer to the whole network's."""
    base = redundant_network(kind, reader)
    images = random_images(base, np.random.default_rng(3), 16)
    whole = outputs(base.content, images)
    group, _ = redundant_group(base)
    means = activation_means(base, group.tensors[0], images)[PRUNED]
    folded = np.abs(outputs(base.emit([cut_with(base, offsets=means)]), images) - whole).mean()
    dropped = np.abs(outputs(base.emit([cut_with(base)]), images) - whole).mean()
    assert folded < dropped


def activation_means(base, tensor, images):
    part = extract(bytes(base.content), list(base.graph.inputs), [tensor])
    return LoadedModel(part).run(images)[0].mean(axis=(0, 1, 2))


@integer_weights
def test_folded_weights_are_the_nearest_that_their_scale_allows(kind):
    base = redundant_network(kind)
    _, consumer = redundant_group(base)
    cut = read_graph(base.emit([cut_with(base, COEFFICIENTS, OFFSETS)]))
    weights, before = cut.tensors[consumer.weight], real_values(base.graph.tensors[consumer.weight])
    exact = before[..., KEPT] + before[..., PRUNED] @ COEFFICIENTS
    # Half a step; where the zero point was rounded too, the ends of the range may be a step off.
    steps = 1.01 if kind == "uint8" else 0.51
    assert (np.abs(real_values(weights) - exact) / _by_row(scales_of(weights))).max() < steps
    assert (scales_of(weights) >= scales_of(base.graph.tensors[consumer.weight])).all()


@pytest.mark.parametrize("kind", INTEGER_KINDS)
def test_a_bias_keeps_to_the_scales_of_input_and_weights(kind):
    """Integer kernels take the bias as a sum of products: its scale must be theirs, also where that was widened."""
    base = redundant_network(kind)
    _, consumer = redundant_group(base)
    cut = cut_with(base, COEFFICIENTS, OFFSETS)
    after = read_graph(base.emit([cut]))
    weights, bias = after.tensors[consumer.weight], after.tensors[consumer.bias]
    assert (scales_of(weights) != scales_of(base.graph.tensors[consumer.weight])).any()
    np.testing.assert_allclose(scales_of(bias), scales_of(after.tensors[consumer.tensor]) * scales_of(weights), 1e-6)
    pruned = real_values(base.graph.tensors[consumer.weight])[..., PRUNED]
    exact = real_values(base.graph.tensors[consumer.bias]) + (pruned @ offsets_of(cut)).sum(axis=(1, 2))
    np.testing.assert_allclose(real_values(bias), exact, atol=0.51 * scales_of(bias).max())


@every_kind
def test_folding_means_changes_nothing_but_the_bias(kind):
    base = redundant_network(kind)
    _, consumer = redundant_group(base)
    plain, folded = (read_graph(base.emit([cut_with(base, offsets=v)])) for v in (np.zeros(4), OFFSETS))
    for before, after in zip(plain.tensors, folded.tensors, strict=True):
        changed = after.is_constant and bytes(after.stored) != bytes(before.stored)
        assert changed == (after.index == consumer.bias)
        if after.quantization is not None:
            np.testing.assert_array_equal(scales_of(after), scales_of(before))


@integer_weights
@pytest.mark.parametrize("strength", [0.0, 0.1, 1.0])
def test_only_scales_that_are_too_narrow_are_widened(kind, strength):
    """A row whose folded weights fit into its range keeps its scale, bit for bit."""
    base = redundant_network(kind)
    _, consumer = redundant_group(base)
    before = base.graph.tensors[consumer.weight]
    after = read_graph(base.emit([cut_with(base, strength * COEFFICIENTS, OFFSETS)])).tensors[consumer.weight]
    folded = before.data[..., KEPT] - _by_row(zero_points_of(before)).astype(np.float64)
    folded += (before.data[..., PRUNED] - _by_row(zero_points_of(before))) @ (strength * COEFFICIENTS)
    parts = folded.reshape(before.quantization.count, -1)
    least, most = (0, 255) if kind == "uint8" else (-127, 127)
    fits = (parts.min(axis=1) > least - zero_points_of(before) - 0.01) & (
        parts.max(axis=1) < most - zero_points_of(before) + 0.01
    )
    np.testing.assert_array_equal(scales_of(after) == scales_of(before), fits)
    assert fits.all() or strength > 0
    assert not fits.all() or strength < 1


def _by_row(numbers):
    return numbers.reshape(-1, 1, 1, 1)


@pytest.mark.parametrize("kind", ["int8", "int16x8"])
def test_scales_of_channels_go_with_their_channels(kind):
    base = redundant_network(kind)
    group, _ = redundant_group(base)
    keep = np.array([1, 4, 6])
    cut = read_graph(base.emit([LayerCut(group.tensors[0], 8, keep)]))
    producer = base.graph.operators[group.producers[0]]
    for slot in (1, 2):
        before, after = (graph.tensors[producer.inputs[slot]] for graph in (base.graph, cut))
        np.testing.assert_array_equal(scales_of(after), scales_of(before)[keep])
        np.testing.assert_array_equal(zero_points_of(after), zero_points_of(before)[keep])
        np.testing.assert_array_equal(after.data, before.data[keep])


@pytest.mark.parametrize("kind", ["int8", "uint8"])
def test_an_offset_that_no_integer_bias_can_hold_is_refused(kind):
    base = redundant_network(kind)
    with pytest.raises(PlanError, match="leave the range of the int32 bias"):
        base.emit([cut_with(base, offsets=np.full(4, 1e12))])


@every_kind
def test_a_transposed_convolution_takes_up_no_fold(kind):
    base = redundant_network(kind, "transposed convolution")
    with pytest.raises(PlanError, match="transposed convolution"):
        base.emit([cut_with(base, offsets=OFFSETS)])


def test_float16_weights_are_folded_first_and_rounded_then():
    base = redundant_network("float16")
    _, consumer = redundant_group(base)
    cut = cut_with(base, COEFFICIENTS, OFFSETS)
    (fold,) = cut.folds
    weights = base.graph.tensors[consumer.weight].data.astype(np.float64)
    folded = weights[..., KEPT] + weights[..., PRUNED] @ (fold.coefficients * 2.0**fold.coefficient_exponent)
    after = read_graph(base.emit([cut])).tensors[consumer.weight]
    assert after.data.dtype == np.float16
    np.testing.assert_array_equal(after.data, folded.astype(np.float16))


def test_dynamic_range_layers_keep_a_float_bias():
    base = redundant_network("dynamic")
    _, consumer = redundant_group(base)
    cut = cut_with(base, offsets=OFFSETS)
    weights, bias = base.graph.tensors[consumer.weight], base.graph.tensors[consumer.bias]
    folded = read_graph(base.emit([cut])).tensors[consumer.bias]
    expected = bias.data + (real_values(weights)[..., PRUNED] @ offsets_of(cut)).sum(axis=(1, 2))
    np.testing.assert_allclose(folded.data, expected, rtol=1e-6)
