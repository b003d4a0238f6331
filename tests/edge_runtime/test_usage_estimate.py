from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.usage_estimate import estimate, likelihoods, packed, shares
from tests.support.simulated_users import Population

SEEDS = st.integers(0, 2**32 - 1)


def random_likelihoods(seed: int, images: int = 40, classes: int = 6):
    return np.random.default_rng(seed).dirichlet(np.full(classes, 0.3), images) + 1e-5


@given(SEEDS)
def test_the_likelihood_never_falls_from_step_to_step(seed):
    seen = random_likelihoods(seed)
    found = np.full(6, 1 / 6)
    before = -np.inf
    for _ in range(30):
        now = np.log(seen @ found).sum()
        assert now >= before - 1e-9
        before = now
        found = found * (seen.T @ (1.0 / (seen @ found))) / len(seen)

    assert np.log(seen @ shares(seen)).sum() >= before - 1e-2


@given(SEEDS, st.integers(1, 60))
def test_shares_sum_to_one_and_none_is_negative(seed, images):
    seen = random_likelihoods(seed, images)
    for found in (shares(seen), estimate(seen).shares, estimate(seen, start=[3, 1]).shares):
        assert found.sum() == pytest.approx(1)
        assert found.min() >= 0


@settings(deadline=None)
@given(SEEDS)
def test_shares_are_exact_where_answers_come_as_often_as_they_should(seed):
    """Answers through a confusion that can be inverted, in just the proportions that the shares make of it."""
    rng = np.random.default_rng(seed)
    confusion = 0.6 * np.eye(4) + 0.4 * rng.dirichlet(np.ones(4), 4)
    truth = rng.dirichlet(np.full(4, 5.0))
    times = np.rint(20_000 * truth @ confusion).astype(int)

    found = shares(np.repeat(confusion.T, times, axis=0))

    np.testing.assert_allclose(found, truth, atol=0.01)


def test_an_answer_takes_a_byte_a_class_and_loses_little():
    probabilities = np.array([0.9, 0.09, 0.009, 0.000999, 1e-6, 0.0], np.float32)

    assert len(packed(probabilities)) == 6
    np.testing.assert_allclose(likelihoods([packed(probabilities)], 1.0)[0, :4], probabilities[:4], rtol=0.05)


def test_a_temperature_above_one_makes_answers_less_sure():
    answer = [packed(np.array([0.9, 0.1], np.float32))]

    assert likelihoods(answer, 1.0)[0, 0] == pytest.approx(0.9, abs=0.01)
    assert likelihoods(answer, 2.0)[0, 0] == pytest.approx(0.75, abs=0.01)


def test_few_of_many_classes_are_found_with_their_shares():
    rng = np.random.default_rng(1)
    population = Population.synthetic(rng, classes=50)
    usage = {3: 0.5, 7: 0.3, 40: 0.2}
    answers = [packed(population.probabilities[row]) for row in population.draw(rng, usage, 400)]

    found = estimate(likelihoods(answers, 1.0))

    assert set(found.labels) == set(usage)
    assert all(abs(found.share(label) - share) < 0.08 for label, share in usage.items())
    assert found.share(1) == 0.0


def test_predictions_alone_would_have_named_many_more():
    rng = np.random.default_rng(1)
    population = Population.synthetic(rng, classes=50)
    rows = population.draw(rng, {3: 0.5, 7: 0.3, 40: 0.2}, 400)

    assert len(np.unique(population.probabilities[rows].argmax(axis=1))) > 20


def test_evidence_against_a_share_grows_with_what_was_seen():
    rng = np.random.default_rng(2)
    population = Population.synthetic(rng)
    seen = {
        images: likelihoods(
            [packed(population.probabilities[row]) for row in population.draw(rng, {0: 1.0}, images)], 1
        )
        for images in (40, 400)
    }
    against = {n: estimate(values, start=[0, 1]).evidence_against(values, 1, 0.1) for n, values in seen.items()}

    assert 0 < against[40] < against[400]


def test_a_thousand_classes_are_no_hindrance():
    rng = np.random.default_rng(3)
    population = Population.synthetic(rng, classes=1000, images=5)
    answers = [packed(population.probabilities[row]) for row in population.draw(rng, {5: 0.6, 900: 0.4}, 400)]

    assert {5, 900} <= set(estimate(likelihoods(answers, 1.0)).labels)
