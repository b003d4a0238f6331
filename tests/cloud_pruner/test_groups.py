"""What can be pruned of a network, where its units are measured, and who reads them."""

from __future__ import annotations

import numpy as np
import pytest

from cloud_pruner.errors import ProfileError
from cloud_pruner.groups import prunable_groups
from edge_runtime.flatmodel import BaseModel, normalize
from tests.support.branched_networks import (
    joined,
    network,
    padded_shortcut,
    projection_first,
    read_unequally,
)
from tests.support.residual_digits import residual_network
from tests.support.tflite_builder import NONE, SequentialBuilder


def base_of(content):
    return BaseModel(normalize(content))


def summary(base, groups):
    """Name, units, kinds of the members' operators, and the operators that read."""
    kinds = {tensor: operator.kind for operator in base.graph.operators for tensor in operator.outputs}
    return [
        (g.name, g.units, [kinds[member] for member in g.members], [reader.operator for reader in g.readers])
        for g in groups
    ]


def test_a_sequence_of_layers(digits_network):
    base = base_of(digits_network.tflite.read_bytes())
    assert summary(base, prunable_groups(base, None)) == [
        ("conv_2d_1", 16, ["CONV_2D"], [1]),
        ("conv_2d_2", 24, ["CONV_2D"], [3]),
        ("conv_2d_3", 32, ["CONV_2D"], [6]),
        ("fully_connected_4", 48, ["FULLY_CONNECTED"], [7]),
    ]


def test_depth_counts_weight_layers_from_the_end(digits_network):
    base = base_of(digits_network.tflite.read_bytes())
    everything = [group.name for group in prunable_groups(base, None)]
    for depth in range(2, 9):
        # One of the layers is the output layer, which is never pruned.
        assert [group.name for group in prunable_groups(base, depth)] == everything[-(depth - 1) :]
    with pytest.raises(ProfileError, match="nothing can be pruned among the last 1 weight layers"):
        prunable_groups(base, 1)


def test_a_residual_stream_is_one_group_that_several_layers_read():
    base = base_of(residual_network().tflite.read_bytes())
    groups = prunable_groups(base, None)
    assert summary(base, groups) == [
        # The stem, and what is behind the addition; the next block's branch and its projection read the sum.
        ("conv_2d_1 + 1", 12, ["CONV_2D", "ADD"], [1, 4, 6]),
        ("conv_2d_2", 10, ["CONV_2D"], [2]),
        ("conv_2d_4", 14, ["CONV_2D"], [5]),
        ("conv_2d_5 + 1", 16, ["ADD"], [9]),
    ]
    # A group goes only where all its layers are among the last ones: the stem is the seventh from the end.
    assert [group.name for group in prunable_groups(base, 6)] == ["conv_2d_2", "conv_2d_4", "conv_2d_5 + 1"]


def test_groups_come_in_the_order_in_which_they_are_read():
    base = base_of(network(projection_first))
    groups = prunable_groups(base, None)
    assert [group.units for group in groups] == [6, 5, 8]
    first = [min(reader.operator for reader in group.readers) for group in groups]
    assert first == sorted(first)
    made = [min(base.channels.groups[group.group].producers) for group in groups]
    assert made != sorted(made)  # the projection's output is the second that is made


def test_a_flattened_map_shows_each_unit_at_every_pixel():
    content = SequentialBuilder((6, 6, 2), np.random.default_rng(0)).conv(5).pool().flatten().dense(4, activation=NONE)
    base = base_of(content.build())
    ((reader,),) = (group.readers for group in prunable_groups(base, None))
    np.testing.assert_array_equal(reader.units, np.arange(5))
    np.testing.assert_array_equal(reader.columns, np.arange(45).reshape(9, 5))
    # What it reads is flat already.
    assert base.graph.tensors[reader.tensor].shape == (1, 45)
    np.testing.assert_array_equal(reader.places, np.arange(45).reshape(9, 5))
    assert reader.axis == 1


def test_a_layer_that_reads_two_groups_is_a_reader_of_each():
    base = base_of(network(joined))
    first, second, _ = prunable_groups(base, None)
    assert (first.units, second.units) == (6, 5)
    through, joint = first.readers
    (other,) = second.readers
    assert (joint.operator, joint.weight, joint.tensor) == (other.operator, other.weight, other.tensor)
    assert through.operator < joint.operator
    np.testing.assert_array_equal(joint.places, [np.arange(6)])
    np.testing.assert_array_equal(other.places, [np.arange(6, 11)])
    np.testing.assert_array_equal(other.columns, [np.arange(6, 11)])


def test_a_layer_may_read_a_part_of_a_group():
    base = base_of(network(padded_shortcut))
    stream, inner = prunable_groups(base, None)
    assert (stream.units, inner.units) == (8, 5)
    branch, head = stream.readers
    np.testing.assert_array_equal(branch.units, np.arange(6))
    np.testing.assert_array_equal(head.units, np.arange(8))


def test_a_layer_that_reads_some_units_more_often_is_no_reader():
    """It multiplies them, but takes up no fold."""
    base = base_of(network(read_unequally))
    group = prunable_groups(base, None)[0]
    assert group.readers == ()
    assert base.channels.groups[group.group].consumers


def test_places_and_columns_carry_the_units_that_they_say():
    contents = [network(structure) for structure in (joined, padded_shortcut, projection_first)]
    for content in (*contents, residual_network().tflite.read_bytes()):
        base = base_of(content)
        for group in prunable_groups(base, None):
            first = base.channels.groups[group.group].first
            for reader in group.readers:
                weights = base.channels.axes[reader.weight]
                assert reader.weight in base.graph.operators[reader.operator].inputs
                assert reader.tensor in base.graph.operators[reader.operator].inputs
                for places, columns in zip(reader.places, reader.columns, strict=True):
                    expected = first + reader.units
                    np.testing.assert_array_equal(base.channels.axes[reader.tensor][reader.axis][places], expected)
                    np.testing.assert_array_equal(weights[max(weights)][columns], expected)


def test_nothing_to_prune_says_why():
    builder = SequentialBuilder((8, 8, 1), np.random.default_rng(0)).conv(4).cumulative_sum().mean()
    base = base_of(builder.dense(10, activation=NONE).build())
    with pytest.raises(
        ProfileError, match=r"among the last 2 weight layers: .*CUMSUM \(operator 1\) is not understood"
    ):
        prunable_groups(base, None)
