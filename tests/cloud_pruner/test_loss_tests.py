"""P-values keep their word, exactly: every outcome is summed over, nothing is drawn."""

from __future__ import annotations

import math
from bisect import bisect_left

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta, binom

from cloud_pruner.loss_tests import LOSS_TESTS, PairedCounts, images_needed, largest_newly_wrong, smallest_epsilon
from edge_runtime.certificate import binomial_tail

EPSILONS = st.floats(0.005, 0.4)
ALL_TESTS = st.sampled_from(list(LOSS_TESTS.values()))
every_test = pytest.mark.parametrize("test", LOSS_TESTS.values(), ids=LOSS_TESTS)


def counts_of(images: int, newly_wrong: int, newly_right: int) -> PairedCounts:
    return PairedCounts(images, images - newly_right, newly_wrong, newly_right)


def outcomes(images: int, wrong: float, right: float):
    """Yield newly wrong, newly right and how likely they are where an image is so with `wrong` and `right`."""
    same = max(0.0, 1.0 - wrong - right)
    for b in range(images + 1):
        for c in range(images + 1 - b):
            ways = math.comb(images, b) * math.comb(images - b, c)
            yield b, c, ways * wrong**b * right**c * same ** (images - b - c)


def excess(p_value, images: int, wrong: float, right: float) -> float:
    """Return the largest `P(p <= u) - u` over all u: above 0 if p-values are small more often than they may."""
    found = sorted((p_value(b, c), chance) for b, c, chance in outcomes(images, wrong, right))
    worst, total = 0.0, 0.0
    for number, (p, chance) in enumerate(found):
        total += chance
        # Equal p-values count together, also where rounding tells them apart.
        if number + 1 == len(found) or found[number + 1][0] > p * (1 + 1e-9):
            worst = max(worst, total - p)
    return worst


@every_test
@settings(max_examples=40, deadline=None)
@given(st.integers(1, 16), EPSILONS, st.floats(0, 1), st.floats(0, 1))
def test_p_values_are_small_no_more_often_than_they_say(test, images, epsilon, more, beyond):
    """Where the loss is epsilon (on the boundary) or more, whatever the share of newly right images."""
    right = more * (1 - epsilon) / 2
    for loss in (epsilon, epsilon + beyond * (1 - epsilon - 2 * right)):
        too_often = excess(lambda b, c: test.p_value(counts_of(images, b, c), epsilon), images, loss + right, right)
        assert too_often <= 1e-9


def test_that_check_notices_a_p_value_that_promises_too_much():
    """Binomial on the difference, as if newly right images were as good as none newly wrong."""
    assert excess(lambda b, c: binomial_tail(max(b - c, 0), 16, 0.1), 16, 0.4, 0.3) > 0.1


@every_test
def test_what_is_spent_of_delta_on_the_boundary(test):
    """At delta 0.1 harmful classes pass with at most that probability, and no test is so timid that none ever does."""
    images, epsilon, delta = 60, 0.1, 0.1
    passing = {
        (b, c)
        for b in range(images + 1)
        for c in range(images + 1 - b)
        if test.p_value(counts_of(images, b, c), epsilon) <= delta
    }
    for right in (0.0, 0.02, 0.1, 0.2):
        chances = outcomes(images, epsilon + right, right)
        assert math.fsum(chance for b, c, chance in chances if (b, c) in passing) <= delta
    chances = outcomes(images, epsilon, 0.0)
    assert math.fsum(chance for b, c, chance in chances if (b, c) in passing) > 0.01


@given(st.integers(1, 12), EPSILONS, st.floats(0, 1))
@settings(deadline=None)
def test_a_gambler_gains_nothing_on_the_boundary(images, epsilon, more):
    """The mean wealth is at most 1: what Markov's inequality needs. (Where p is 1, wealth is counted as 1 or less.)"""
    right = more * (1 - epsilon) / 2
    betting = LOSS_TESTS["betting"]
    shares = outcomes(images, epsilon + right, right)
    gained = ((chance, betting.p_value(counts_of(images, b, c), epsilon)) for b, c, chance in shares)
    assert math.fsum(chance / p for chance, p in gained if p < 1) <= 1 + 1e-9


@given(ALL_TESTS, st.integers(2, 1000), st.data(), EPSILONS)
@settings(deadline=None)
def test_p_values_rise_with_newly_wrong_and_fall_with_newly_right_and_epsilon(test, images, data, epsilon):
    b = data.draw(st.integers(0, images - 1))
    c = data.draw(st.integers(0, images - 1 - b))
    more = data.draw(st.floats(epsilon, 0.9))
    p = test.p_value(counts_of(images, b, c), epsilon)
    rounding = 1 + 1e-9
    assert 0 <= p <= 1
    assert test.p_value(counts_of(images, b + 1, c), epsilon) * rounding >= p
    assert test.p_value(counts_of(images, b, c + 1), epsilon) <= p * rounding
    assert test.p_value(counts_of(images, b, c), more) <= p * rounding


@every_test
def test_no_images_prove_nothing(test):
    assert test.p_value(PairedCounts(0, 0, 0, 0), 0.03) == 1


def test_the_binomial_test_ignores_newly_right_images_and_the_others_credit_them():
    p_values = {name: [test.p_value(counts_of(500, 15, c), 0.03) for c in (0, 40)] for name, test in LOSS_TESTS.items()}
    assert p_values["binomial"][0] == p_values["binomial"][1] > 0.1
    for name in ("betting", "clopper-pearson"):
        assert p_values[name][0] > 0.1 > p_values[name][1]


@given(st.integers(1, 400), st.data(), EPSILONS)
@settings(deadline=None)
def test_clopper_pearson_limits_meet_epsilon_at_the_p_value(images, data, epsilon):
    """The p-value against the limits themselves, from the quantiles of the beta distribution."""
    b = data.draw(st.integers(0, images - 1))
    c = data.draw(st.integers(0, images - b))
    p = LOSS_TESTS["clopper-pearson"].p_value(counts_of(images, b, c), epsilon)

    def loss_limit(error: float) -> float:
        return beta.isf(error / 2, b + 1, images - b) - (beta.ppf(error / 2, c, images - c + 1) if c else 0.0)

    if p < 1:
        assert loss_limit(p * (1 + 1e-6)) <= epsilon + 1e-9
        assert loss_limit(p * (1 - 1e-6)) >= epsilon - 1e-9
    else:
        assert loss_limit(1.0) >= epsilon - 1e-9


# The figures of docs/guarantee.md; of the tests in the order of LOSS_TESTS.


@pytest.mark.parametrize(
    ("epsilon", "delta", "images"),
    [
        (0.01, 0.1, (230, 333, 299)),
        (0.01, 0.05, (299, 418, 368)),
        (0.02, 0.1, (114, 166, 149)),
        (0.02, 0.05, (149, 208, 183)),
        (0.03, 0.1, (76, 110, 99)),
        (0.03, 0.05, (99, 138, 122)),
        (0.05, 0.1, (45, 65, 59)),
        (0.05, 0.05, (59, 82, 72)),
        (0.1, 0.1, (22, 32, 29)),
        (0.1, 0.05, (29, 40, 36)),
    ],
)
def test_how_many_images_are_needed(epsilon, delta, images):
    assert tuple(images_needed(test, epsilon, delta) for test in LOSS_TESTS.values()) == images


@pytest.mark.parametrize(
    ("images", "largest"),
    [(100, (0, None, 0)), (200, (2, 1, 1)), (300, (4, 2, 3)), (500, (9, 6, 8)), (1000, (22, 17, 20))],
)
def test_how_many_may_be_newly_wrong(images, largest):
    assert tuple(largest_newly_wrong(test, images, 0.03, 0.1) for test in LOSS_TESTS.values()) == largest


@pytest.mark.parametrize(
    ("images", "wrong", "right", "percent"),
    [
        (50, 0.02, 0.08, (0, 37, 18)),
        (100, 0.01, 0.01, (37, 24, 37)),
        (100, 0.05, 0.27, (1, 99, 99)),
        (200, 0.02, 0.02, (24, 30, 32)),
        (200, 0.05, 0.05, (0, 11, 13)),
        (500, 0.02, 0.08, (46, 100, 100)),
    ],
)
def test_how_often_a_class_passes(images, wrong, right, percent):
    def chance(test) -> float:
        total = 0.0
        low, high = binom.interval(1 - 1e-6, images, right)
        for c in range(int(low), int(high) + 1):
            # The newly wrong images that pass are those up to some number, of the images that are not newly right.
            numbers = range(images - c + 1)
            passing = bisect_left(numbers, x=True, key=lambda b, c=c: test.p_value(counts_of(images, b, c), 0.03) > 0.1)
            total += binom.pmf(c, images, right) * binom.cdf(passing - 1, images - c, wrong / (1 - right))
        return total

    assert tuple(round(100 * chance(test)) for test in LOSS_TESTS.values()) == percent


@pytest.mark.parametrize(("images", "percent"), [(200, 2), (300, 13), (500, 73), (1000, 100)])
def test_how_often_ten_classes_of_one_percent_loss_pass(images, percent):
    largest = largest_newly_wrong(LOSS_TESTS["binomial"], images, 0.03, 0.1)
    assert round(100 * binomial_tail(largest, images, 0.01) ** 10) == percent


@given(ALL_TESTS, st.floats(0.001, 0.5), st.floats(0.001, 0.5))
@settings(deadline=None)
def test_images_needed_are_enough_and_none_too_many(test, epsilon, delta):
    images = images_needed(test, epsilon, delta)
    assert test.p_value(counts_of(images, 0, 0), epsilon) <= delta
    assert test.p_value(counts_of(images - 1, 0, 0), epsilon) > delta


@given(ALL_TESTS, st.integers(1, 800), EPSILONS, st.floats(0.01, 0.5))
@settings(deadline=None)
def test_one_more_newly_wrong_than_the_largest_fails(test, images, epsilon, delta):
    largest = largest_newly_wrong(test, images, epsilon, delta)
    assert (largest is None) == (images < images_needed(test, epsilon, delta))
    if largest is not None:
        assert test.p_value(counts_of(images, largest, 0), epsilon) <= delta
    assert test.p_value(counts_of(images, 0 if largest is None else largest + 1, 0), epsilon) > delta


@given(ALL_TESTS, st.integers(1, 300), st.data(), st.floats(0.01, 0.5))
@settings(deadline=None, max_examples=60)
def test_the_smallest_epsilon_passes_and_a_smaller_one_does_not(test, images, data, delta):
    b = data.draw(st.integers(0, images))
    counts = counts_of(images, b, data.draw(st.integers(0, images - b)))
    epsilon = smallest_epsilon(test, counts, delta)
    assert counts.loss <= epsilon <= 1
    if epsilon < 1:
        assert test.p_value(counts, epsilon) <= delta
    if epsilon > 1e-6:
        assert test.p_value(counts, epsilon - 1e-9) > delta


def test_the_smallest_epsilon_of_the_binomial_test_is_the_limit_by_clopper_and_pearson():
    assert smallest_epsilon(LOSS_TESTS["binomial"], counts_of(40, 0, 0), 0.1) == pytest.approx(1 - 0.1 ** (1 / 40))
    assert smallest_epsilon(LOSS_TESTS["binomial"], counts_of(500, 9, 0), 0.1) == pytest.approx(beta.ppf(0.9, 10, 491))


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, math.nan])
def test_shares_out_of_range_are_refused(share):
    test, counts = LOSS_TESTS["binomial"], counts_of(10, 0, 0)
    for call in (
        lambda: images_needed(test, share, 0.1),
        lambda: images_needed(test, 0.1, share),
        lambda: largest_newly_wrong(test, 10, share, 0.1),
        lambda: smallest_epsilon(test, counts, share),
    ):
        with pytest.raises(ValueError, match="between 0 and 1"):
            call()


def test_counts_say_what_base_and_cut_get_right():
    counts = PairedCounts(images=200, base=150, newly_wrong=9, newly_right=3)
    assert counts.cut == 144
    assert (counts.base_accuracy, counts.accuracy, counts.loss) == (0.75, 0.72, 0.03)


@pytest.mark.parametrize("counts", [(10, 11, 0, 0), (10, 5, 6, 0), (10, 5, 0, 6), (10, 5, -1, 0), (10, 5, 0, -1)])
def test_counts_that_contradict_themselves_are_refused(counts):
    with pytest.raises(ValueError, match="contradicts itself"):
        PairedCounts(*counts)
