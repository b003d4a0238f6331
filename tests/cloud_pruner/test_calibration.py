"""One number says how much too sure a base is of its answers; the profile has it, and the base's manifest says it."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special

from cloud_pruner.calibration import logits_of, temperature
from cloud_pruner.manifests import base_manifest
from cloud_pruner.segments import load


@pytest.fixture(scope="module")
def answers(digits_profile):
    """Logits and labels, some of which are not what the images show, so that nobody could be sure."""
    split = digits_profile.splits["select"]
    labels = np.where(np.arange(len(split.labels)) % 5 == 0, (split.labels + 1) % 10, split.labels)
    return load(digits_profile.suffix, [], 64).run(split.activations)[0], labels


def test_a_base_that_is_twice_as_sure_has_twice_the_temperature(answers):
    logits, labels = answers
    once = temperature(logits, labels)
    assert once > 1
    assert temperature(0.5 * logits, labels) == pytest.approx(once / 2, rel=0.1)


def test_no_other_temperature_makes_the_true_classes_likelier(answers):
    logits, labels = answers

    def mean_log_likelihood(value):
        shares = scipy.special.softmax(logits / value, axis=1)
        return np.log(shares[np.arange(len(shares)), labels]).mean()

    best = mean_log_likelihood(temperature(logits, labels))
    assert all(best >= mean_log_likelihood(value) - 1e-4 for value in np.geomspace(0.5, 8, 40))


def test_probabilities_say_the_same_as_logits(answers):
    logits, labels = answers
    shares = scipy.special.softmax(logits, axis=1)
    from_shares = temperature(logits_of(shares, are_probabilities=True), labels)
    assert from_shares == pytest.approx(temperature(logits_of(logits, are_probabilities=False), labels), rel=0.05)


def test_the_base_s_manifest_says_what_the_profile_measured(digits_profile):
    split = digits_profile.splits["select"]
    logits = load(digits_profile.suffix, [], 64).run(split.activations)[0]
    assert base_manifest(digits_profile).temperature == digits_profile.temperature
    assert digits_profile.temperature == pytest.approx(temperature(logits, split.labels), rel=0.03)
