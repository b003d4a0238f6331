from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.usage_change import RECENT, WINDOW, changed_usage, first_usage, rounded, total_variation
from edge_runtime.usage_estimate import estimate, likelihoods, packed
from tests.support.simulated_users import Population

USAGES = st.dictionaries(st.integers(0, 9), st.floats(0.01, 1), min_size=1).map(
    lambda usage: {label: share / sum(usage.values()) for label, share in usage.items()}
)
FLOOR = 0.05
POPULATION = Population.synthetic(np.random.default_rng(0))


def seen(*phases: tuple[dict[int, float], int], seed: int = 1):
    """Likelihoods of the last images that a user met, phase after phase."""
    rng = np.random.default_rng(seed)
    rows = np.concatenate([POPULATION.draw(rng, usage, images) for usage, images in phases])[-WINDOW:]
    return likelihoods([packed(POPULATION.probabilities[row]) for row in rows], 1.0)


def changed(images, active: dict[int, float], *, floor: float = FLOOR, weighed: bool = False):
    return changed_usage(images, estimate(images, active), active, floor, weighed=weighed)


HALVES = {2: 0.5, 5: 0.5}


def test_the_first_usage_is_the_classes_that_came_up():
    usage = first_usage(seen(({1: 0.6, 2: 0.4}, 250)), FLOOR)

    assert usage.keys() == {1, 2}
    assert usage[1] == pytest.approx(0.6, abs=0.08)
    assert sum(usage.values()) == pytest.approx(1)


def test_a_class_below_the_floor_is_left_out():
    usage = {1: 0.55, 2: 0.4, 3: 0.05}

    assert 3 in first_usage(seen((usage, WINDOW)), floor=0.02)
    assert 3 not in first_usage(seen((usage, WINDOW)), floor=0.2)


def test_where_no_class_reaches_the_floor_all_are_kept():
    assert first_usage(seen((HALVES, 200)), floor=0.9).keys() == HALVES.keys()


def test_the_same_usage_is_no_change():
    assert changed(seen((HALVES, WINDOW)), HALVES) is None


def test_a_class_that_comes_up_enters_although_most_answers_are_older():
    usage = changed(seen((HALVES, WINDOW - 120), ({2: 0.4, 5: 0.4, 9: 0.2}, 120)), HALVES)

    assert usage is not None
    assert usage.keys() == {2, 5, 9}


def test_a_single_odd_image_is_no_change():
    assert changed(seen((HALVES, WINDOW - 1), ({9: 1.0}, 1)), HALVES) is None


def test_a_class_leaves_only_after_it_has_stayed_away_for_long():
    active = {2: 0.5, 5: 0.3, 9: 0.2}
    longer, shorter = (seen((active, WINDOW - images), (HALVES, images)) for images in (WINDOW, 100))

    assert changed(shorter, active) is None
    usage = changed(longer, active)
    assert usage is not None
    assert usage.keys() == {2, 5}


def test_a_class_between_half_the_floor_and_the_floor_neither_enters_nor_leaves():
    usage = {2: 0.49, 5: 0.47, 9: 0.04}
    images = seen((usage, WINDOW))

    assert changed(images, HALVES, floor=0.06) is None
    assert changed(images, usage, floor=0.06) is None


def test_an_all_new_usage_replaces_the_former():
    usage = changed(seen((HALVES, 100), ({7: 0.5, 8: 0.5}, WINDOW)), HALVES)

    assert usage is not None
    assert usage.keys() == {7, 8}


def test_other_weights_matter_only_to_cuts_that_were_searched_by_them():
    active = {2: 0.9, 5: 0.1}
    images = seen((HALVES, WINDOW))

    assert changed(images, active, weighed=False) is None
    usage = changed(images, active, weighed=True)
    assert usage is not None
    assert usage[5] == pytest.approx(0.5, abs=0.1)
    assert changed(images, {2: 0.6, 5: 0.4}, weighed=True) is None


def test_weights_are_rounded_to_what_the_service_works_with():
    from cloud_pruner.requests import WEIGHT_STEP as SERVICE_STEP
    from edge_runtime.usage_change import WEIGHT_STEP

    assert WEIGHT_STEP == SERVICE_STEP
    assert rounded({1: 0.512, 2: 0.476, 3: 0.012}) == {1: 0.5, 2: 0.5, 3: 0.05}


@given(USAGES)
def test_rounded_weights_say_no_more_than_a_step(usage):
    for label, weight in rounded(usage).items():
        assert weight >= 0.05
        assert weight == pytest.approx(round(weight / 0.05) * 0.05)
        assert abs(weight - usage[label]) <= 0.05


@given(USAGES, USAGES)
def test_total_variation_is_a_distance_up_to_one(p, q):
    assert total_variation(p, p) == 0
    assert total_variation(p, q) == pytest.approx(total_variation(q, p))
    assert 0 <= total_variation(p, q) <= 1 + 1e-9


def test_classes_enter_on_fewer_answers_than_they_leave_on():
    assert RECENT < WINDOW
