"""Which units W and M try to do without, against loops that are written as the paper writes them."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cloud_pruner.profiling import ProfileSettings, build_profile
from cloud_pruner.variants import (
    MISEFFECTUAL_RULES,
    Basic,
    Miseffectual,
    Usage,
    Weighted,
    by_share,
    by_threshold,
    confusing_classes,
    miseffectual_units,
)
from edge_runtime.flatmodel import real_values
from tests.support.digits import PREPROCESSING, digit_images
from tests.support.shortcut_network import FLATTENED, STREAM, shortcut_profile
from tests.support.tflite_builder import NONE, SequentialBuilder

# Weights are sums of few powers of two: weighted rates are exact then, in whatever order they are added.
USAGES = [
    Usage(np.array([3]), np.array([1.0])),
    Usage(np.array([0, 1]), np.array([0.875, 0.125])),
    Usage(np.array([2, 5, 7]), np.array([0.25, 0.5, 0.25])),
    Usage(np.arange(10), np.array([2, 2, 2, 2, 2, 2, 1, 1, 1, 1]) / 16),
]


@pytest.fixture(scope="module")
def with_shortcuts(tmp_path_factory):
    return shortcut_profile(tmp_path_factory.mktemp("profiles") / "shortcuts")


@pytest.fixture(params=["digits", "with shortcuts"])
def profile(request, digits_profile, with_shortcuts):
    return digits_profile if request.param == "digits" else with_shortcuts


def plain_thresholds(rates, usage):
    """Algorithm 2's schedule for one layer: `rates[n][k]` -> the kept sets that differ, most daring first."""
    cuts = []
    for number in range(16, -1, -1):
        kept = []
        for n in range(len(rates)):
            effective = 0.0
            for label, weight in zip(usage.labels, usage.weights, strict=True):
                effective += weight * float(rates[n][label])
            if effective > 0.025 * number:
                kept.append(n)
        if 0 < len(kept) < len(rates) and (not cuts or cuts[-1] != kept):
            cuts.append(kept)
    return cuts


@pytest.mark.parametrize("usage", USAGES, ids=lambda usage: f"{len(usage.labels)} classes")
def test_w_tries_the_paper_s_thresholds(profile, usage):
    tried = 0
    for layer in profile.layers:
        cuts = [candidate.kept.tolist() for candidate in Weighted().candidates(profile, layer, usage)]
        assert cuts == plain_thresholds(layer.firing_rates, usage)
        tried += len(cuts)
    assert tried


def test_a_unit_on_the_threshold_goes():
    first, last = by_threshold(np.array([0.025, 0.0, 0.9]), start=0.025, step=0.025)
    assert (first.figure, first.kept.tolist()) == (0.025, [2])
    assert (last.figure, last.kept.tolist()) == (0.0, [0, 2])


def test_shares_fall_from_95_percent_in_steps_of_5():
    order = np.arange(20)[::-1]
    cuts = list(by_share(order, start=0.95, step=0.05))
    assert [round(cut.figure, 10) for cut in cuts] == [round(0.05 * n, 10) for n in range(19, 0, -1)]
    assert [cut.kept.tolist() for cut in cuts] == [list(range(count)) for count in range(1, 20)]


@given(hnp.arrays(np.float64, st.integers(1, 40), elements=st.floats(0, 1)), st.booleans())
def test_cuts_grow_and_are_never_nothing_nor_everything(rates, by_rank):
    cuts = list(by_share(np.argsort(rates), 0.95, 0.05) if by_rank else by_threshold(rates, 0.4, 0.025))
    for cut in cuts:
        assert 0 < len(cut.kept) < len(rates)
        assert (np.diff(cut.kept) > 0).all()
    for daring, careful in pairwise(cuts):
        assert daring.figure > careful.figure
        assert set(daring.kept.tolist()) < set(careful.kept.tolist())


def test_confusing_classes_are_those_that_images_were_taken_for():
    confusion = np.array([[40, 3, 0, 5, 3, 1], [0, 9, 0, 0, 0, 0], *np.zeros((4, 6))], dtype=np.int64)
    assert confusing_classes(confusion, 0, 5).tolist() == [3, 1, 4, 5]
    assert confusing_classes(confusion, 0, 2).tolist() == [3, 1]
    assert confusing_classes(confusion, 1, 5).tolist() == []


def plain_miseffectual(profile, weights, means, rule):
    """Section III.C for the units with output weights `weights[j][n]`: the pairs (n, c) of which n works against c."""
    classes, found = len(profile.classes), set()
    for c in range(classes):
        wrong = [(-int(profile.confusion[c, j]), j) for j in range(classes) if j != c and profile.confusion[c, j] > 0]
        confusing = [j for _, j in sorted(wrong)[:5]]
        for n in range(len(weights[0])):
            if rule == "activation":
                against = [weights[j][n] * means[n][j] > weights[c][n] * means[n][c] for j in confusing]
            else:
                against = [weights[j][n] > weights[c][n] for j in confusing]
            holds = {
                "any": any(against),
                "majority": sum(against) > len(against) / 2,
                "all": bool(against) and all(against),
                "activation": any(against),
            }
            if holds[rule]:
                found.add((n, c))
    return found


def output_weights(profile):
    """Weights of the only dense layer that writes one output for each class, `(classes, inputs)`."""
    graph = profile.base.graph
    return real_values(
        next(
            graph.tensors[operator.inputs[1]]
            for operator in reversed(graph.operators)
            if operator.kind == "FULLY_CONNECTED"
        )
    )


@pytest.mark.parametrize("rule", MISEFFECTUAL_RULES)
def test_miseffectual_units_of_a_dense_layer(digits_profile, rule):
    layer = digits_profile.layers[-1]
    expected = plain_miseffectual(digits_profile, output_weights(digits_profile), layer.mean_activations, rule)
    found = miseffectual_units(digits_profile, layer, rule, 5)
    assert {(n, c) for n, c in np.argwhere(found).tolist()} == expected
    assert expected


@pytest.mark.parametrize("rule", MISEFFECTUAL_RULES)
def test_miseffectual_units_of_two_groups_at_once_one_of_them_flattened(with_shortcuts, rule):
    weights = output_weights(with_shortcuts)
    positions = 4
    assert weights.shape == (10, positions * FLATTENED + STREAM)
    flattened = [[sum(row[p * FLATTENED + n] for p in range(positions)) for n in range(FLATTENED)] for row in weights]
    read = {FLATTENED: flattened, STREAM: weights[:, positions * FLATTENED :]}
    for layer in with_shortcuts.layers:
        found = {(n, c) for n, c in np.argwhere(miseffectual_units(with_shortcuts, layer, rule, 5)).tolist()}
        if layer.units in read:
            assert found == plain_miseffectual(with_shortcuts, read[layer.units], layer.mean_activations, rule)
            assert found
        else:
            assert not found


def test_miseffectual_units_of_a_convolution_that_is_the_output_layer(tmp_path):
    builder = SequentialBuilder((8, 8, 1), np.random.default_rng(3))
    content = builder.conv(6).conv(10, activation=NONE).mean().softmax().build()
    settings = ProfileSettings(images={"profile": 20, "select": 20, "certify": 20})
    images = digit_images()["unseen"]
    profile = build_profile(content, images, PREPROCESSING, tmp_path / "profile", settings=settings)
    (layer,) = profile.layers
    weights = real_values(profile.base.graph.tensors[profile.base.graph.operators[1].inputs[1]])
    assert weights.shape == (10, 3, 3, 6)
    summed = [[sum(row[i][j][n] for i in range(3) for j in range(3)) for n in range(6)] for row in weights]
    found = {(n, c) for n, c in np.argwhere(miseffectual_units(profile, layer, "majority", 5)).tolist()}
    assert found == plain_miseffectual(profile, summed, layer.mean_activations, "majority")
    assert found


@pytest.mark.parametrize("rule", MISEFFECTUAL_RULES)
@pytest.mark.parametrize("usage", USAGES, ids=lambda usage: f"{len(usage.labels)} classes")
def test_m_is_w_with_the_edited_rates(profile, usage, rule):
    variant = Miseffectual(rule)
    for layer in profile.layers:
        rates = np.array(layer.firing_rates)
        for n, c in np.argwhere(miseffectual_units(profile, layer, rule, 5)).tolist():
            rates[n, c] = 0
        cuts = [candidate.kept.tolist() for candidate in variant.candidates(profile, layer, usage)]
        assert cuts == plain_thresholds(rates, usage)


def test_a_rule_that_asks_for_more_finds_less(profile):
    for layer in profile.layers:
        of_all, of_most, of_any = (miseffectual_units(profile, layer, rule, 5) for rule in ("all", "majority", "any"))
        assert (of_all <= of_most).all()
        assert (of_most <= of_any).all()


def test_fewer_confusing_classes_make_fewer_units_miseffectual(with_shortcuts):
    (layer,) = (layer for layer in with_shortcuts.layers if layer.units == STREAM)
    counts = [int(miseffectual_units(with_shortcuts, layer, "any", count).sum()) for count in (1, 2, 5)]
    assert counts == sorted(counts)
    assert 0 < counts[0] < counts[-1]


def test_the_edit_is_worked_out_once_for_a_profile(digits_profile):
    layer = digits_profile.layers[-1]
    once = miseffectual_units(digits_profile, layer, "any", 5)
    assert miseffectual_units(digits_profile, layer, "any", 5) is once


def test_every_variant_has_a_name_of_its_own():
    variants = [Basic(), Weighted(), *map(Miseffectual, MISEFFECTUAL_RULES)]
    assert [variant.name for variant in variants] == ["B", "W", "M", "M-majority", "M-all", "M-activation"]
