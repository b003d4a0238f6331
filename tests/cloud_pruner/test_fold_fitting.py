"""Folds are what a textbook's ridge regression says, and restore the base where that can be done."""

from __future__ import annotations

import numpy as np
import pytest

from cloud_pruner import fold_fitting
from cloud_pruner.fold_fitting import FoldFitter
from cloud_pruner.groups import prunable_groups
from cloud_pruner.images import split_per_class
from cloud_pruner.search import Searcher
from cloud_pruner.segments import Segments
from cloud_pruner.variants import Usage
from edge_runtime.flatmodel import BaseModel, normalize
from edge_runtime.interpreter import LoadedModel
from tests.cloud_pruner.plain_search import Plain, ridge_fit
from tests.support.branched_networks import (
    joined,
    joined_alike,
    padded_shortcut,
    profile_of,
    projection_first,
    read_unequally,
)
from tests.support.digits import CLASSES, PREPROCESSING, digit_images
from tests.support.reference import masked_network
from tests.support.residual_digits import residual_profile
from tests.support.tflite_builder import NONE, SequentialBuilder

USAGE = Usage(np.array([2, 5, 7]), np.array([0.2, 0.3, 0.5]))


def plain_of(profile, usage=USAGE, folding="linear"):
    """The plain counterpart, with the same profile images from the pixels."""
    trained_on = digit_images()["trained_on"]
    count = len(profile.splits["profile"].labels) // 10
    rows = split_per_class(trained_on.labels, {"profile": count}, CLASSES)["profile"]
    rows = rows[np.isin(trained_on.labels[rows], usage.labels)]
    return Plain(
        profile,
        {"profile": (PREPROCESSING.apply(trained_on.pixels[rows]), trained_on.labels[rows])},
        usage,
        0.0,
        folding,
    )


def fitter_of(base, inputs, weights=None):
    """A fitter of all groups on `inputs` to the network itself."""
    weights = np.full(len(inputs), 1 / len(inputs)) if weights is None else weights
    return FoldFitter(Segments(base, base.graph.inputs[0]), prunable_groups(base, None), inputs, weights)


def values_of(fold):
    return fold.coefficients * 2.0**fold.coefficient_exponent, fold.offsets * 2.0**fold.offset_exponent


def assert_is(fold, expected):
    """16 bits close, and float32 close, to expected coefficients and offsets."""
    for actual, wanted in zip(values_of(fold), expected, strict=True):
        np.testing.assert_allclose(actual, wanted, atol=2e-4 * np.abs(wanted).max(initial=1.0))


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("uneven", [False, True])
def test_a_linear_fold_is_the_textbook_s_ridge_regression(digits_profile, seed, uneven):
    """On any activations, any kept units and any weights of the images."""
    rng = np.random.default_rng(seed)
    fitter = Searcher(digits_profile)._fitter(USAGE)
    _, reader = fitter._readers[seed % len(fitter._readers)]
    wanted = fitter._rows[reader].astype(np.float64) + fitter._centres[reader]
    images, pixels, units = wanted.shape
    if uneven:
        fitter.weights = rng.dirichlet(np.ones(images))
    kept = np.sort(rng.choice(units, rng.integers(1, units + 1), replace=False))
    # The cut network's, which earlier cuts have changed.
    there = (
        wanted[..., kept] * rng.uniform(0.5, 1.5, len(kept)) + rng.normal(0, 0.1, (images, pixels, len(kept)))
    ).astype(np.float32)
    fold = fitter._linear_fold(reader, kept, there.copy())
    flat = there.reshape(images * pixels, -1).astype(np.float64)
    weights = np.repeat(fitter.weights / pixels, pixels)
    expected = ridge_fit(flat, wanted.reshape(images * pixels, -1), np.isin(np.arange(units), kept), weights)
    assert fold.weight == reader.weight
    assert fold.coefficients.shape == (units, len(kept))
    assert_is(fold, expected)


@pytest.mark.parametrize("uneven", [False, True])
def test_covariances_are_those_of_what_layers_read(digits_profile, uneven):
    fitter, plain = Searcher(digits_profile)._fitter(USAGE), plain_of(digits_profile)
    if uneven:
        fitter.weights = np.random.default_rng(0).dirichlet(np.ones(len(fitter.weights)))
    for _, reader in fitter._readers:
        read = plain._read(digits_profile.base.content, reader)
        weights = np.repeat(fitter.weights, read.shape[1])
        expected = np.cov(read.reshape(-1, read.shape[2]).T, bias=True, aweights=weights)
        np.testing.assert_allclose(fitter.covariance(reader), expected, atol=1e-5 * np.abs(expected).max())


STRUCTURES = [projection_first, padded_shortcut, joined, joined_alike, read_unequally]


@pytest.fixture(
    scope="module",
    params=["sequential", "residual", *STRUCTURES],
    ids=lambda network: getattr(network, "__name__", network),
)
def profile(request, tmp_path_factory):
    if request.param == "sequential":
        return request.getfixturevalue("digits_profile")
    if request.param == "residual":
        return residual_profile()
    return profile_of(request.param, tmp_path_factory.mktemp("profiles") / "profile")


def random_kept(profile, rng):
    """Group number -> units; some groups keep all, and one that may be folded loses some."""
    kept = {layer.group: np.arange(layer.units) for layer in profile.layers}
    certain = rng.choice([group.group for group in profile.groups.values() if group.readers])
    for layer in profile.layers:
        if layer.group == certain or rng.random() < 0.7:
            count = rng.integers(max(layer.units // 3, 2), layer.units)
            kept[layer.group] = np.sort(rng.choice(layer.units, count, replace=False))
    return kept


class TestAnyStructure:
    """Groups that several layers read, layers that read several groups, and parts of groups."""

    @pytest.mark.parametrize("seed", range(3))
    def test_linear_folds_are_those_of_the_plain_fit(self, profile, seed):
        kept = random_kept(profile, np.random.default_rng(seed))
        plain = {cut.tensor: cut for cut in plain_of(profile).folded(kept)}
        cuts = Searcher(profile)._fitter(USAGE).cuts(kept, "linear")
        found = {cut.tensor: cut for cut in cuts}
        assert any(cut.folds for cut in cuts)
        for tensor, expected in plain.items():
            folds = {fold.weight: fold for fold in found[tensor].folds} if tensor in found else {}
            for fold in expected.folds:
                if fold.weight in folds:
                    # Rounding adds up from one layer to the next.
                    for actual, wanted in zip(values_of(folds[fold.weight]), values_of(fold), strict=True):
                        np.testing.assert_allclose(actual, wanted, atol=5e-3 * max(np.abs(wanted).max(), 1.0))
                else:  # nothing before it has changed
                    assert max(np.abs(part).max() for part in values_of(fold)) < 1e-3

    @pytest.mark.parametrize("folding", ["none", "mean", "linear"])
    def test_the_folded_cut_is_the_folded_masked_network(self, profile, folding):
        kept = random_kept(profile, np.random.default_rng(7))
        cuts = Searcher(profile)._fitter(USAGE).cuts(kept, folding)
        inputs, _ = plain_of(profile).images["profile"]
        actual = LoadedModel(profile.base.emit(cuts)).run(inputs)[0]
        masked = LoadedModel(masked_network(profile.base, cuts)).run(inputs)[0]
        assert np.abs(actual - masked).max() <= 1e-4 * np.ptp(masked)

    def test_mean_folds_are_the_means_of_what_goes_in_every_layer_that_reads_it(self, profile):
        kept = random_kept(profile, np.random.default_rng(1))
        plain = plain_of(profile, folding="mean")
        cuts = Searcher(profile)._fitter(USAGE).cuts(kept, "mean")
        for cut in cuts:
            group = profile.groups[profile.base.channels.group_of(cut.tensor)]
            assert [fold.weight for fold in cut.folds] == [reader.weight for reader in group.readers]
            for fold, reader in zip(cut.folds, group.readers, strict=True):
                lost = ~np.isin(reader.units, cut.kept)
                # Images of each class count alike, whatever the usage.
                expected = plain._read(profile.base.content, reader)[..., lost].mean(axis=(0, 1))
                coefficients, offsets = values_of(fold)
                assert coefficients.shape == (lost.sum(), 0)
                np.testing.assert_allclose(offsets, expected, atol=1e-4 * np.abs(expected).max(initial=1.0))

    def test_folds_come_nearer_to_the_base(self, profile):
        kept = random_kept(profile, np.random.default_rng(3))
        inputs, _ = plain_of(profile).images["profile"]
        base = LoadedModel(profile.base.content).run(inputs)[0]
        fitter = Searcher(profile)._fitter(USAGE)
        errors = {}
        for folding in ("none", "mean", "linear"):
            outputs = LoadedModel(profile.base.emit(fitter.cuts(kept, folding))).run(inputs)[0]
            errors[folding] = np.square(outputs - base).mean()
        assert errors["linear"] < errors["mean"]
        assert errors["linear"] < 0.7 * errors["none"]

    def test_the_next_group_is_fitted_to_the_network_as_it_was_cut(self, profile):
        rng = np.random.default_rng(5)
        fitter, plain = Searcher(profile)._fitter(USAGE), plain_of(profile)
        cuts = []
        for layer in profile.layers:
            group = profile.groups[layer.group]
            kept = np.sort(rng.choice(layer.units, layer.units * 2 // 3, replace=False))
            cut = fitter.next_group(group, cuts, "linear")(kept)
            expected = plain._folds_of_next(layer.group, kept, cuts)
            assert [fold.weight for fold in cut.folds] == [fold.weight for fold in expected]
            for fold, other in zip(cut.folds, expected, strict=True):
                assert_is(fold, values_of(other))
            cuts.append(cut)


def dense_network(hidden, rng, *, kernel=None):
    """Units 3 to 5 of the hidden layer are linear combinations of units 0 to 2; what follows reads them."""
    if kernel is None:
        builder = SequentialBuilder((4, 4, 1), rng).flatten().dense(6, activation=hidden)
    else:
        builder = SequentialBuilder((4, 4, 1), rng).conv(6, activation=hidden)
    operator = builder.graph.operators[-1]
    mixture = rng.normal(size=(3, 3))
    for constant in operator.inputs[1:]:
        buffer = builder.model.buffers[builder.graph.tensors[constant].buffer]
        values = np.asarray(buffer.data).view(np.float32).reshape(6, -1).copy()
        values[3:] = mixture @ values[:3]
        buffer.data = values.reshape(-1).view(np.uint8)
    if kernel is not None:
        builder = builder.conv(5, kernel).mean()
    return BaseModel(normalize(builder.dense(7).dense(3, activation=NONE).build()))


class TestExactness:
    """What says nothing new goes without a trace: with hardly any ridge, since the ridge is what would be missing."""

    @pytest.fixture(autouse=True)
    def no_ridge(self, monkeypatch):
        monkeypatch.setattr(fold_fitting, "RIDGE", 1e-9)

    @pytest.mark.parametrize("kernel", [None, 1])
    def test_units_that_are_combinations_of_others_are_not_missed(self, kernel):
        rng = np.random.default_rng(0)
        base = dense_network(NONE, rng, kernel=kernel)
        inputs = rng.normal(size=(60, 4, 4, 1)).astype(np.float32)
        first, *others = prunable_groups(base, None)
        kept = {group.group: np.arange(group.units) for group in others} | {first.group: np.array([0, 1, 2])}
        expected = LoadedModel(base.content).run(inputs)[0]
        weights = rng.dirichlet(np.ones(60))  # any weights will do where it can be done exactly
        cut = LoadedModel(base.emit(fitter_of(base, inputs, weights).cuts(kept, "linear"))).run(inputs)[0]
        assert np.abs(cut - expected).max() <= 2e-3 * np.ptp(expected)
        masked = LoadedModel(base.emit(fitter_of(base, inputs).cuts(kept, "none"))).run(inputs)[0]
        assert np.abs(masked - expected).max() > 0.1 * np.ptp(expected)

    def test_a_constant_unit_is_its_mean(self):
        rng = np.random.default_rng(2)
        base = dense_network(NONE, rng)
        inputs = np.repeat(rng.normal(size=(1, 4, 4, 1)), 20, axis=0).astype(np.float32)  # nothing varies
        first, *others = prunable_groups(base, None)
        kept = {group.group: np.arange(group.units) for group in others} | {first.group: np.array([4])}
        expected = LoadedModel(base.content).run(inputs)[0]
        cut = LoadedModel(base.emit(fitter_of(base, inputs).cuts(kept, "linear"))).run(inputs)[0]
        assert np.abs(cut - expected).max() <= 1e-3 * np.abs(expected).max()


def test_classes_that_weigh_more_are_restored_better(digits_profile):
    searcher = Searcher(digits_profile)
    usage = Usage(np.array([0, 8]), np.full(2, 0.5))
    kept = random_kept(digits_profile, np.random.default_rng(11))
    inputs, labels = plain_of(digits_profile, usage).images["profile"]
    base = LoadedModel(digits_profile.base.content).run(inputs)[0]
    errors = []
    for share in (0.02, 0.5, 0.98):
        fitter = searcher._fitter(usage)
        fitter.weights = np.where(labels == 0, share, 1 - share) / 90
        outputs = LoadedModel(digits_profile.base.emit(fitter.cuts(kept, "linear"))).run(inputs)[0]
        errors.append(np.square(outputs - base)[labels == 0].mean())
    assert errors[0] > errors[1] > errors[2]


def test_usage_does_not_weigh(digits_profile):
    searcher = Searcher(digits_profile)
    fitters = [searcher._fitter(Usage(np.array([2, 5]), np.array(weights))) for weights in ([0.95, 0.05], [0.5, 0.5])]
    for fitter in fitters:
        np.testing.assert_allclose(fitter.weights, np.full(180, 1 / 180))


class TestKeptUnits:
    """`docs/decisions/0012-folds-restore-the-base.md`."""

    def test_layers_further_on_set_right_what_earlier_cuts_have_changed(self, digits_profile):
        first, *others = digits_profile.layers
        kept = {layer.group: np.arange(layer.units) for layer in others} | {first.group: np.arange(5)}
        fitter = Searcher(digits_profile)._fitter(USAGE)
        cuts = fitter.cuts(kept, "linear")
        assert len(cuts) == len(digits_profile.layers)  # those that lose nothing take up folds
        inputs, _ = plain_of(digits_profile).images["profile"]
        base = LoadedModel(digits_profile.base.content).run(inputs)[0]

        def error(some):
            return np.square(LoadedModel(digits_profile.base.emit(some)).run(inputs)[0] - base).mean()

        alone = [cut for cut in cuts if len(cut.kept) < cut.units]
        assert len(alone) == 1
        assert error(cuts) < 0.8 * error(alone)

    def test_nothing_is_fitted_before_the_first_change(self, digits_profile):
        *others, last = digits_profile.layers
        kept = {layer.group: np.arange(layer.units) for layer in others} | {last.group: np.arange(20)}
        (cut,) = Searcher(digits_profile)._fitter(USAGE).cuts(kept, "linear")
        assert cut.tensor == last.tensor

    def test_nothing_pruned_nothing_cut(self, digits_profile):
        kept = {layer.group: np.arange(layer.units) for layer in digits_profile.layers}
        for folding in ("none", "mean", "linear"):
            assert Searcher(digits_profile)._fitter(USAGE).cuts(kept, folding) == ()


def test_large_maps_are_looked_at_in_some_pixels_of_every_column():
    """40 x 32 pixels: every 21st. All of a column would be nothing of the others."""
    builder = SequentialBuilder((40, 32, 1), np.random.default_rng(0)).conv(3).conv(3).mean().dense(2, activation=NONE)
    base = BaseModel(normalize(builder.build()))
    inputs = np.random.default_rng(1).normal(size=(2, 40, 32, 1)).astype(np.float32)
    fitter = fitter_of(base, inputs)
    _, reader = fitter._readers[0]
    rows = fitter._rows[reader] + fitter._centres[reader]
    assert rows.shape == (2, 61, 3)
    (whole,) = fitter._segments.run(base.graph.inputs[0], [reader.tensor], [], inputs)
    chosen = [(number // 32, number % 32) for number in range(0, 40 * 32, 21)]
    assert len({column for _, column in chosen}) == 32
    expected = [whole[0, row, column] for row, column in chosen]
    np.testing.assert_allclose(rows[0], expected, atol=1e-6 * np.abs(expected).max())


def test_the_same_network_gives_the_same_folds_again(digits_profile):
    kept = random_kept(digits_profile, np.random.default_rng(3))
    first, again = (Searcher(digits_profile)._fitter(USAGE).cuts(kept, "linear") for _ in range(2))
    assert digits_profile.base.emit(first) == digits_profile.base.emit(again)
