"""A cut model computes what the masked (or folded) whole network computes, for any network and any cut."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.errors import ModelFileError, PlanError
from edge_runtime.flatmodel import BaseModel, Fold, LayerCut, PruningPlan, extract, normalize, read_graph
from edge_runtime.interpreter import LoadedModel
from tests.edge_runtime.strategies import networks_with_cuts, sequential_networks
from tests.support.reference import masked_network
from tests.support.tflite_builder import SequentialBuilder


def random_inputs(content, count=4, seed=0):
    graph = read_graph(content)
    shape = graph.tensors[graph.inputs[0]].shape[1:]
    return np.random.default_rng(seed).normal(size=(count, *shape)).astype(np.float32)


def assert_same_outputs(content, reference, inputs, tolerance=1e-5):
    actual = LoadedModel(content).run(inputs)[0]
    expected = LoadedModel(reference).run(inputs)[0]
    scale = max(float(np.ptp(expected)), 1e-3)
    np.testing.assert_allclose(actual, expected, atol=tolerance * scale, rtol=0)


@pytest.fixture
def network():
    """conv - pool - conv - flatten - dense - dense, with random biases."""
    builder = SequentialBuilder((8, 8, 3), np.random.default_rng(1))
    return builder.conv(6).pool().conv(10).flatten().dense(12).dense(5, activation=0).build()


@pytest.fixture
def base(network):
    return BaseModel(normalize(network))


def half_of(base, number):
    group = base.channels.groups[number]
    return LayerCut(group.tensors[0], group.units, np.arange(0, group.units, 2))


@settings(max_examples=150, deadline=None)
@given(networks_with_cuts())
def test_cut_equals_the_masked_network(drawn):
    base, cuts = drawn
    assert_same_outputs(base.emit(cuts), masked_network(base, cuts), random_inputs(base.content))


@settings(max_examples=60, deadline=None)
@given(sequential_networks())
def test_normalising_changes_no_output(network):
    normalised = normalize(network)
    inputs = random_inputs(network)
    np.testing.assert_array_equal(LoadedModel(normalised).run(inputs)[0], LoadedModel(network).run(inputs)[0])
    assert normalize(normalised) == normalised


@settings(max_examples=60, deadline=None)
@given(networks_with_cuts())
def test_a_cut_can_be_cut_again(drawn):
    base, cuts = drawn
    cut = BaseModel(base.emit(cuts))
    again = [half_of(cut, number) for number in cut.channels.prunable]
    assert_same_outputs(cut.emit(again), masked_network(cut, again), random_inputs(base.content))


@settings(max_examples=60, deadline=None)
@given(networks_with_cuts())
def test_a_plan_survives_the_wire_and_makes_the_same_bytes(drawn):
    base, cuts = drawn
    plan = PruningPlan(base.digest, tuple(cuts))
    assert base.apply(PruningPlan.from_bytes(plan.to_bytes())) == base.emit(cuts)


@settings(max_examples=40, deadline=None)
@given(networks_with_cuts(), st.data())
def test_a_part_of_the_network_computes_the_same_with_any_batch(drawn, data):
    base, _ = drawn
    boundary = data.draw(st.sampled_from(base.channels.groups[0].tensors + base.channels.groups[-1].tensors))
    inputs = random_inputs(base.content, 5)
    whole = LoadedModel(base.content).run(inputs)[0]
    if boundary == base.graph.inputs[0] or boundary in base.graph.outputs:
        return
    before = LoadedModel(extract(base.content, [base.graph.inputs[0]], [boundary]), batch=3).run(inputs)[0]
    after = LoadedModel(extract(base.content, [boundary], list(base.graph.outputs)), batch=2).run(before)[0]
    np.testing.assert_allclose(after, whole, atol=1e-5 * max(np.ptp(whole), 1e-3))


def test_without_cuts_the_base_comes_out_unchanged(base):
    assert base.emit([]) == base.content


def test_shared_constants_are_not_corrupted():
    builder = SequentialBuilder((6, 6, 2), np.random.default_rng(2), share_equal_constants=True)
    network = (
        builder.conv(8, bias="zero").conv(8, bias="zero").mean().dense(8, bias="zero").dense(3, activation=0).build()
    )
    base = BaseModel(normalize(network))
    cuts = [half_of(base, base.channels.prunable[1])]
    assert_same_outputs(base.emit(cuts), masked_network(base, cuts), random_inputs(network))


def test_a_constant_that_nobody_reads_does_no_harm():
    builder = SequentialBuilder((6, 6, 2), np.random.default_rng(5))
    builder.conv(8).mean().dense(3, activation=0)
    read = next(tensor for tensor in builder.graph.tensors if tensor.buffer)
    builder.graph.tensors.append(copy.copy(read))
    base = BaseModel(normalize(builder.build()))
    cuts = [half_of(base, number) for number in base.channels.prunable]
    assert_same_outputs(base.emit(cuts), masked_network(base, cuts), random_inputs(base.content))


def test_the_file_is_smaller_by_what_was_cut(base):
    cuts = [half_of(base, number) for number in base.channels.prunable]
    before, after = read_graph(base.content), read_graph(base.emit(cuts))
    assert before.parameters == (6 * 27 + 6) + (10 * 54 + 10) + (12 * 160 + 12) + (5 * 12 + 5)
    assert after.parameters == (3 * 27 + 3) + (5 * 27 + 5) + (6 * 80 + 6) + (5 * 6 + 5)
    assert after.tensors[after.outputs[0]].shape == (1, 5)


def test_alignment_gaps_are_zero_and_constants_aligned(base):
    cut = base.emit([half_of(base, number) for number in base.channels.prunable])
    used = np.zeros(len(cut), dtype=bool)
    content = np.frombuffer(cut, np.uint8)
    start = content.__array_interface__["data"][0]
    for tensor in read_graph(cut).tensors:
        if tensor.data is not None:
            at = tensor.data.__array_interface__["data"][0] - start
            assert at % 16 == 0
            used[at - 4 : at + tensor.data.nbytes] = True
    first = int(np.argmax(used))
    assert not content[first:][~used[first:]].any()


class TestRefusals:
    def test_plan_of_another_base(self, base):
        with pytest.raises(PlanError, match="this base is"):
            base.apply(PruningPlan("0" * 64, ()))

    def test_units_that_must_stay(self, base):
        logits = base.channels.groups[-1]
        with pytest.raises(PlanError, match="network output"):
            base.emit([LayerCut(logits.tensors[0], logits.units, np.array([0]))])

    def test_wrong_number_of_units(self, base):
        with pytest.raises(PlanError, match="has 6 units, the plan says 7"):
            base.emit([LayerCut(base.channels.groups[0].tensors[0], 7, np.array([0]))])

    def test_a_layer_cut_twice(self, base):
        with pytest.raises(PlanError, match="twice"):
            base.emit([half_of(base, 0), half_of(base, 0)])

    def test_a_tensor_without_channels(self, base):
        with pytest.raises(PlanError, match="carries no channels"):
            base.emit([LayerCut(10_000, 4, np.array([0]))])

    @pytest.mark.parametrize("kept", [[], [1, 1], [2, 1], [-1, 2], [0, 6]])
    def test_kept_units_out_of_order_or_range(self, kept):
        with pytest.raises(PlanError):
            LayerCut(0, 6, np.array(kept, dtype=np.int64))

    def test_a_fold_into_a_layer_that_does_not_read_the_units(self, base):
        cut = half_of(base, 0)
        fold = Fold.of(0, np.zeros((3, 0)), np.zeros(3))
        with pytest.raises(PlanError, match="no layer that reads it"):
            base.emit([LayerCut(cut.tensor, cut.units, cut.kept, (fold,))])

    def test_an_unknown_operator_is_a_barrier_and_named(self):
        builder = SequentialBuilder((6, 6, 2), np.random.default_rng(3))
        base = BaseModel(normalize(builder.conv(8).cumulative_sum().conv(8).mean().dense(3, activation=0).build()))
        first = base.channels.groups[0]
        assert not first.prunable
        with pytest.raises(PlanError, match=r"CUMSUM \(operator 1\) is not understood"):
            base.emit([LayerCut(first.tensors[0], 8, np.array([0]))])
        assert len(base.channels.prunable) == 1

    def test_a_file_that_is_not_normalised(self, network):
        with pytest.raises(ModelFileError, match="normalise it first"):
            BaseModel(network)
