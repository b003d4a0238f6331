"""A cut computes what the masked whole network computes: any structure that TensorFlow writes, any kind of numbers."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from edge_runtime.flatmodel import BaseModel, normalize
from tests.support.graph_checks import (
    assert_same,
    check_cut,
    check_cutting_again,
    check_normalizing,
    check_parts,
    check_plan,
    outputs,
    outputs_in_tensorflow,
    random_images,
)
from tests.support.graph_features import prunable_features
from tests.support.legacy_uint8 import to_legacy_uint8
from tests.support.random_blocks import BLOCKS
from tests.support.random_cuts import random_cuts
from tests.support.random_graphs import draw_graph, random_graph
from tests.support.reference import masked_network
from tests.support.tflite_kinds import INTEGER_KINDS, KINDS

# One for each block, so that every kind has every block (`random_graphs`). `tests.fuzz.graphs` goes on from here.
SEEDS = range(len(BLOCKS))

graphs = pytest.mark.parametrize(("kind", "seed"), [(kind, seed) for kind in KINDS for seed in SEEDS])
some_graphs = pytest.mark.parametrize(("kind", "seed"), [(kind, seed) for kind in KINDS for seed in SEEDS[::6]])


@functools.cache
def drawn(kind, seed):
    """The converter's file, and the base that it makes."""
    content = random_graph(kind, seed).content
    return content, BaseModel(normalize(content))


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_says_everything(kind):
    assert draw_graph(kind, 5).content == drawn(kind, 5)[0]


@graphs
def test_normalising_changes_no_output(kind, seed):
    content, base = drawn(kind, seed)
    check_normalizing(kind, content, random_images(base, np.random.default_rng(seed)))


@graphs
def test_a_cut_equals_the_masked_network(kind, seed):
    (_, base), rng = drawn(kind, seed), np.random.default_rng(seed)
    images = random_images(base, rng)
    check_cut(kind, base, random_cuts(base, rng, folds=["none"]), images)
    check_cut(kind, base, random_cuts(base, rng), images)


@graphs
def test_a_cut_can_be_cut_again(kind, seed):
    (_, base), rng = drawn(kind, seed), np.random.default_rng(seed)
    check_cutting_again(kind, base, random_cuts(base, rng), random_images(base, rng), rng)


@graphs
def test_a_plan_survives_the_wire_and_makes_the_same_bytes(kind, seed):
    _, base = drawn(kind, seed)
    check_plan(base, random_cuts(base, np.random.default_rng(seed)))


@some_graphs
def test_a_part_of_the_network_can_be_run_and_cut_by_itself(kind, seed):
    (_, base), rng = drawn(kind, seed), np.random.default_rng(seed)
    assert check_parts(kind, base, random_cuts(base, rng, folds=["none"]), random_images(base, rng, 5), rng)


@some_graphs
def test_cuts_run_in_tensorflows_interpreter_too(kind, seed):
    (_, base), rng = drawn(kind, seed), np.random.default_rng(seed)
    cuts, images = random_cuts(base, rng), random_images(base, rng)
    assert_same(
        kind,
        outputs_in_tensorflow(base.emit(cuts), images),
        outputs_in_tensorflow(masked_network(base, cuts), images),
    )


@pytest.mark.parametrize("seed", SEEDS[::4])
def test_legacy_uint8_files_agree_with_the_int8_files_that_they_are_made_of(seed):
    """Half of them bit for bit; in others the uint8 kernels round otherwise, by some steps of 1/255 in the end."""
    content, base = drawn("int8_per_tensor", seed)
    images = random_images(base, np.random.default_rng(seed), 16)
    expected = outputs(content, images)
    difference = np.abs(outputs(to_legacy_uint8(content), images) - expected)
    assert difference.mean() < 0.03 * np.ptp(expected)


# What must lie on the way of prunable channels in some graph of each of these families.
FAMILIES = {
    "floats": [kind for kind in KINDS if kind not in INTEGER_KINDS],
    "integers": INTEGER_KINDS,
}
FEATURES = {
    *("CONV_2D", "grouped CONV_2D", "DEPTHWISE_CONV_2D", "DEPTHWISE_CONV_2D with a multiplier", "TRANSPOSE_CONV"),
    *("FULLY_CONNECTED", "dense chain", "flatten", "unflatten", "reshape", "TRANSPOSE"),
    *("residual ADD", "MUL by a gate", "MUL of maps", "SUB", "MAXIMUM", "MINIMUM"),
    *("CONCATENATION of channels", "SPLIT of channels", "SPLIT_V of channels"),
    *("STRIDED_SLICE of channels", "STRIDED_SLICE of pixels", "SLICE of channels", "PAD of channels", "PADV2"),
    *("MAX_POOL_2D", "AVERAGE_POOL_2D", "MEAN", "REDUCE_MAX", "SUM", "MIRROR_PAD"),
    *("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "SPACE_TO_DEPTH", "DEPTH_TO_SPACE"),
    *("PRELU", "HARD_SWISH", "LOGISTIC", "TANH", "LEAKY_RELU", "RELU"),
}
LAYERS = {
    "float32": {"float32 activations, float32 weights"},
    "float16": {"float32 activations, float16 weights"},
    "dynamic": {"float32 activations, int8 weights", "float32 activations, float32 weights"},
    "int8": {"int8 activations, int8 weights", "QUANTIZE", "DEQUANTIZE"},
    "int8_per_tensor": {"int8 activations, int8 weights"},
    "int16x8": {"int16 activations, int8 weights"},
    "uint8": {"uint8 activations, uint8 weights"},
}


@pytest.mark.parametrize("family", FAMILIES)
def test_these_graphs_have_all_that_slicing_knows(family):
    """Not only somewhere, but where channels are pruned: else the tests above would say little."""
    seen = set()
    for kind in FAMILIES[family]:
        of_kind = set().union(*(prunable_features(drawn(kind, seed)[1]) for seed in SEEDS))
        assert LAYERS[kind] - of_kind == set()
        seen |= of_kind
    assert FEATURES - seen == set()


@pytest.mark.parametrize("kind", KINDS)
def test_nearly_every_cut_changes_the_outputs(kind):
    """Else it would be no wonder that the masked network's are the same."""
    changed = []
    for seed in SEEDS:
        (_, base), rng = drawn(kind, seed), np.random.default_rng(seed)
        images, cut = random_images(base, rng), base.emit(random_cuts(base, rng, folds=["none"]))
        changed.append((outputs(cut, images) != outputs(base.content, images)).any())
    assert np.mean(changed) > 0.9


# Why channels of these graphs stay: what really takes them all, and what slicing has no rule for.
KNOWN_BARRIERS = (
    *("network output", "mixes the channels", "runs over the channels", "with a step, or beyond its input"),
    *("spreads the channels over several axes", "is combined with channels that stay", "is not understood"),
)


@pytest.mark.parametrize("kind", KINDS)
def test_channels_stay_for_known_reasons_only(kind):
    groups = [group for seed in SEEDS for group in drawn(kind, seed)[1].channels.groups]
    reasons = {reason for group in groups for reason in group.barriers}
    assert {reason for reason in reasons if not reason.endswith(KNOWN_BARRIERS)} == set()
    # Classes always stay; of the rest, only what a shuffle, a mixing block or a softmax is fed with.
    hidden = [group for group in groups if "network output" not in group.barriers]
    assert sum(group.prunable for group in hidden) > 0.85 * len(hidden)
