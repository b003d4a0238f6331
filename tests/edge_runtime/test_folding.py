"""Folding gives the same bits in whatever order it is summed, and the right ones."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.errors import PlanError
from edge_runtime.flatmodel import BaseModel, Fold, LayerCut, extract, normalize
from edge_runtime.flatmodel.folding import Layer, PlacedFold, exact_product, fold_layer
from edge_runtime.interpreter import LoadedModel
from tests.support.tflite_builder import SequentialBuilder


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(-12, 12))
def test_summation_order_does_not_matter(seed, summands, magnitude):
    rng = np.random.default_rng(seed)
    weights = (rng.normal(size=(3, summands)) * 10.0**magnitude).astype(np.float32)
    integers = rng.integers(-32768, 32768, (summands, 2)).astype(np.int16)
    order = rng.permutation(summands)
    expected = exact_product(weights, integers, -15)
    np.testing.assert_array_equal(exact_product(weights[:, order], integers[order], -15), expected)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 7, 300, 5000]))
def test_product_is_right_to_the_stated_precision(seed, summands):
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(1, summands)).astype(np.float32)
    integers = rng.integers(-32768, 32768, (summands, 1)).astype(np.int16)
    exact = sum(Fraction(float(w)) * int(i) for w, i in zip(weights[0], integers[:, 0], strict=True)) / 2**15
    bits = 53 - 15 - int(np.ceil(np.log2(max(summands, 2)))) - 1
    largest = float(np.abs(weights).max())
    allowed = summands * 2.0 ** (int(np.ceil(np.log2(largest))) - bits - 1)
    assert abs(float(exact_product(weights, integers, -15)[0, 0]) - float(exact)) <= allowed


def test_a_fold_is_16_bits_close_to_what_it_was_made_from():
    rng = np.random.default_rng(0)
    coefficients, offsets = rng.normal(size=(20, 30)), 100 * rng.normal(size=20)
    fold = Fold.of(5, coefficients, offsets)
    assert fold.is_linear
    np.testing.assert_allclose(
        fold.coefficients * 2.0**fold.coefficient_exponent, coefficients, atol=np.abs(coefficients).max() * 2**-15
    )
    np.testing.assert_allclose(fold.offsets * 2.0**fold.offset_exponent, offsets, atol=np.abs(offsets).max() * 2**-15)


def test_mean_folding_leaves_the_weights_alone():
    layer = Layer(weights=np.arange(20, dtype=np.float32).reshape(4, 5), bias=np.ones(4, np.float32))
    fold = Fold.of(5, np.zeros((2, 0)), np.array([1.0, 0.5]))
    kept = np.array([0, 1, 2])
    folded = fold_layer(layer, [PlacedFold(fold, kept[None], np.array([[3, 4]]))], kept)
    np.testing.assert_array_equal(folded.weights, layer.weights[:, :3])
    np.testing.assert_allclose(folded.bias, 1 + layer.weights[:, 3] + 0.5 * layer.weights[:, 4])


def test_weights_that_are_no_numbers_are_refused():
    with pytest.raises(PlanError, match="not finite"):
        exact_product(np.array([[np.nan, 1.0]], np.float32), np.ones((2, 1), np.int16), 0)
    with pytest.raises(PlanError, match="not finite"):
        Fold.of(0, np.array([[np.inf]]), np.zeros(1))


class TestRowsOfEveryUnit:
    """A fold may have a row for each unit that the layer reads: rows of kept units are added to the identity."""

    @pytest.fixture
    def base(self):
        builder = SequentialBuilder((4, 4, 2), np.random.default_rng(3)).conv(5).pool().flatten().dense(3, activation=0)
        return BaseModel(normalize(builder.build()))

    def fold_of(self, base, kept, coefficients, offsets):
        """Return the cut of the convolution, with a fold into the dense layer, and the fold as its 16 bits say it."""
        (group,) = (base.channels.groups[number] for number in base.channels.prunable)
        fold = Fold.of(group.consumers[0].weight, coefficients, offsets)
        cut = LayerCut(group.tensors[0], group.units, np.array(kept), (fold,))
        return cut, fold.coefficients * 2.0**fold.coefficient_exponent, fold.offsets * 2.0**fold.offset_exponent

    @pytest.mark.parametrize("kept", [[1], [0, 2, 3], [0, 1, 2, 3, 4]])
    def test_the_layer_reads_what_they_say(self, base, kept):
        rng = np.random.default_rng(len(kept))
        cut, D, v = self.fold_of(base, kept, rng.normal(size=(5, len(kept))), rng.normal(size=5))
        images = rng.normal(size=(6, 4, 4, 2)).astype(np.float32)
        reader = base.graph.operators[-1]
        weights, bias = (base.graph.tensors[reader.inputs[i]].data.astype(np.float64) for i in (1, 2))
        before = extract(bytes(base.content), list(base.graph.inputs), [reader.inputs[0]])
        pixels = LoadedModel(before).run(images)[0].reshape(6, 4, 5).astype(np.float64)
        mended = pixels[..., kept] @ (np.eye(5)[:, kept] + D).T + v
        expected = mended.reshape(6, 20) @ weights.T + bias
        np.testing.assert_allclose(LoadedModel(base.emit([cut])).run(images)[0], expected, rtol=1e-5, atol=1e-5)

    def test_rows_of_zeros_change_nothing(self, base):
        zeros, _, _ = self.fold_of(base, [0, 3], np.zeros((5, 2)), np.zeros(5))
        assert base.emit([zeros]) == base.emit([LayerCut(zeros.tensor, 5, zeros.kept)])

    def test_they_equal_rows_of_pruned_units_where_the_others_are_zero(self, base):
        D, v = np.zeros((5, 2)), np.zeros(5)
        D[[1, 2, 4]], v[[1, 2, 4]] = np.random.default_rng(0).normal(size=(3, 2)), [1.0, -0.5, 0.25]
        every, _, _ = self.fold_of(base, [0, 3], D, v)
        pruned, _, _ = self.fold_of(base, [0, 3], D[[1, 2, 4]], v[[1, 2, 4]])
        assert base.emit([every]) == base.emit([pruned])

    @pytest.mark.parametrize("shape", [(2, 2), (4, 2), (6, 2), (5, 1), (3, 3), (0, 0)])
    def test_other_numbers_of_rows_or_columns_are_refused(self, base, shape):
        cut, _, _ = self.fold_of(base, [0, 3], np.ones(shape), np.ones(shape[0]))
        with pytest.raises(PlanError, match="coefficients for 3 pruned and 2 kept units"):
            base.emit([cut])
