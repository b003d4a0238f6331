"""What pruning a group does to the logits, against the whole network, masked and folded by plain means."""

from __future__ import annotations

import numpy as np
import pytest

from cloud_pruner.elimination import Elimination, Observed, eliminate
from cloud_pruner.fold_fitting import RIDGE
from cloud_pruner.groups import prunable_groups
from cloud_pruner.images import split_per_class
from cloud_pruner.search import Searcher
from cloud_pruner.sensitivity import SHARES, gram, scaled, sensitivities
from cloud_pruner.variants import Usage
from edge_runtime.flatmodel import BaseModel, LayerCut, normalize, real_values
from edge_runtime.interpreter import LoadedModel
from tests.cloud_pruner.plain_search import Plain
from tests.support.branched_networks import joined, profile_of
from tests.support.digits import PREPROCESSING, digit_images
from tests.support.reference import masked_network
from tests.support.residual_digits import residual_profile
from tests.support.tflite_builder import NONE, SequentialBuilder

ALL = Usage(np.arange(10), np.full(10, 0.1))


def first_images():
    """The first 20 profile images of each class: those that sensitivities are measured on."""
    images = digit_images()["trained_on"]
    rows = split_per_class(images.labels, {"profile": 20})["profile"]
    return PREPROCESSING.apply(images.pixels[rows]), images.labels[rows]


@pytest.fixture(scope="module", params=["residual", "joined"])
def profile(request, tmp_path_factory):
    if request.param == "residual":
        return residual_profile()
    return profile_of(joined, tmp_path_factory.mktemp("profiles") / "joined")


def centred_logits(content, inputs):
    outputs = LoadedModel(content).run(inputs)[0].astype(np.float64)
    return outputs - outputs.mean(axis=1, keepdims=True)


def test_they_are_changes_of_the_logits_per_error_for_each_class(profile):
    inputs, labels = first_images()
    plain = Plain(profile, {"profile": (inputs, labels)}, ALL, 0.0, "linear")
    usual = centred_logits(profile.base.content, inputs)
    for layer in profile.layers:
        group = profile.groups[layer.group]
        assert layer.sensitivities.shape == (len(SHARES), 10)
        observed = []
        for reader in group.readers:
            rows = plain._read(profile.base.content, reader).reshape(-1, len(reader.units))
            observed.append(Observed(reader.units, np.cov(rows.T, bias=True), gram(profile.base, reader)))
        elimination = eliminate(group.units, observed, RIDGE)
        for number, share in enumerate(SHARES):
            block = next(b for b, end in enumerate(elimination.ends) if end >= share * group.units)
            kept = np.setdiff1d(np.arange(group.units), elimination.order[: elimination.ends[block]])
            folds = tuple(plain._fold(reader, kept, [], None) for reader in group.readers)
            cut = LayerCut(group.tensor, group.units, kept, folds)
            outputs = centred_logits(masked_network(profile.base, [cut]), inputs)
            change = ((outputs - usual) ** 2).sum(axis=1)
            expected = [change[labels == label].mean() / elimination.errors[block] for label in range(10)]
            np.testing.assert_allclose(layer.sensitivities[number], expected, rtol=0.02)


def test_a_softmax_behind_the_logits_changes_nothing():
    """It would say that nothing matters where the network is sure."""
    rng = np.random.default_rng(0)
    images = rng.normal(size=(12, 8, 8, 1)).astype(np.float32)
    labels = np.repeat(np.arange(3), 4).astype(np.int32)
    found = []
    for ending in (lambda builder: builder, lambda builder: builder.softmax()):
        builder = (
            SequentialBuilder((8, 8, 1), np.random.default_rng(4)).conv(6).conv(7).mean().dense(3, activation=NONE)
        )
        base = BaseModel(normalize(ending(builder).build()))
        groups = prunable_groups(base, None)
        found.append(list(sensitivities(base, base.graph.inputs[0], groups, images, labels, 3)))
    np.testing.assert_allclose(found[0], found[1], rtol=1e-4)
    assert np.ptp(found[0]) > 0


def test_what_matters_more_behind_is_more_sensitive():
    """The logits times ten: their squared change a hundredfold, and the error, a share, the same."""
    found = []
    for factor in (1, 10):
        builder = (
            SequentialBuilder((8, 8, 1), np.random.default_rng(4)).conv(6).conv(7).mean().dense(3, activation=NONE)
        )
        last = builder.graph.tensors[builder.graph.operators[-1].inputs[1]]
        buffer = builder.model.buffers[last.buffer]
        buffer.data = np.frombuffer((np.asarray(buffer.data).view(np.float32) * factor).tobytes(), np.uint8)
        base = BaseModel(normalize(builder.build()))
        images = np.random.default_rng(0).normal(size=(12, 8, 8, 1)).astype(np.float32)
        labels = np.repeat(np.arange(3), 4).astype(np.int32)
        groups = prunable_groups(base, None)
        found.append(np.array(list(sensitivities(base, base.graph.inputs[0], groups, images, labels, 3))))
    np.testing.assert_allclose(found[1], 100 * found[0], rtol=1e-3)


def test_gram_sums_over_outputs_positions_and_places(digits_profile):
    base = digits_profile.base
    for group in digits_profile.groups.values():
        for reader in group.readers:
            weights = real_values(base.graph.tensors[reader.weight]).astype(np.float64)
            expected = np.zeros((len(reader.units), len(reader.units)))
            for columns in reader.columns:
                for row in weights[..., columns].reshape(-1, len(reader.units)):
                    expected += np.outer(row, row)
            np.testing.assert_allclose(gram(base, reader), expected, rtol=1e-9)


@pytest.mark.parametrize("remembered", [0, 1024])
def test_a_layer_that_reads_two_groups_has_a_gram_for_each(tmp_path, remembered, monkeypatch):
    """And they are the same again when the first has been used up."""
    monkeypatch.setattr("cloud_pruner.search._REMEMBERED", remembered)
    searcher = Searcher(profile_of(joined, tmp_path / "profile"))
    for group in searcher.profile.groups.values():
        for reader in group.readers:
            for _ in range(2):
                found = searcher._gram(reader)
                np.testing.assert_array_equal(found, gram(searcher.profile.base, reader))
                found[:] = np.nan


class TestScaling:
    def elimination(self, errors):
        return Elimination(np.arange(7), np.array([2, 4, 6, 7]), np.array(errors))

    def test_errors_are_multiplied_by_what_was_measured_there(self):
        result = scaled(self.elimination([0.1, 0.2, 0.3, 0.4]), 8, np.array([2.0, 8.0, 32.0]))
        np.testing.assert_allclose(result.errors, [0.2, 1.6, 9.6, 12.8])  # 7 of 8 is beyond three quarters
        np.testing.assert_array_equal(result.order, np.arange(7))

    def test_between_shares_the_logarithm_is_interpolated(self):
        elimination = Elimination(np.arange(3), np.array([3]), np.array([1.0]))
        np.testing.assert_allclose(scaled(elimination, 8, np.array([2.0, 8.0, 1.0])).errors, [4.0])

    def test_errors_never_fall(self):
        result = scaled(self.elimination([0.1, 0.2, 0.3, 0.4]), 8, np.array([10.0, 0.1, 0.1]))
        np.testing.assert_allclose(result.errors, [1.0, 1.0, 1.0, 1.0])

    def test_no_sensitivity_at_all_is_not_the_logarithm_of_zero(self):
        assert np.isfinite(scaled(self.elimination([0.1, 0.2, 0.3, 0.4]), 8, np.zeros(3)).errors).all()
