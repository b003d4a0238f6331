"""What the monitor sees of users who meet real images, which neither network nor temperature was fitted on."""

from __future__ import annotations

import numpy as np
import pytest

from cloud_pruner.methods import METHODS
from cloud_pruner.search import Searcher
from cloud_pruner.segments import load
from cloud_pruner.variants import Usage
from edge_runtime.config import MonitorConfig
from edge_runtime.monitor import UsageMonitor
from edge_runtime.usage_estimate import estimate, likelihoods, packed
from tests.support.simulated_users import Population, SimulatedDevice, base_manifest

pytestmark = pytest.mark.usefixtures("capnn_data")

CLASSES = 100
AUDIT_EVERY = 5
PERIOD = 250


@pytest.fixture(scope="module")
def profile(cifar100_profile):
    return cifar100_profile


@pytest.fixture(scope="module")
def base(profile):
    return base_manifest(CLASSES, profile.temperature)


@pytest.fixture(scope="module")
def population(profile):
    split = profile.splits["report"]
    return Population(probabilities_of(profile, []), np.asarray(split.labels))


def probabilities_of(profile, cuts):
    """What the base, or a cut of it, gives the images of the report, `(images, classes)`."""
    (outputs,) = load(profile.suffix, cuts, 64).run(profile.splits["report"].activations)
    values = np.exp(outputs - outputs.max(axis=1, keepdims=True))
    return values / values.sum(axis=1, keepdims=True)


def some_user(rng) -> dict[int, float]:
    shares = np.maximum(rng.dirichlet(np.full(5, 3.0)), 0.06)
    return dict(zip(rng.choice(CLASSES, 5, replace=False).tolist(), (shares / shares.sum()).tolist(), strict=True))


def with_another_class(user: dict[int, float], rng) -> tuple[dict[int, float], int]:
    another = int(rng.choice([label for label in range(CLASSES) if label not in user]))
    return {**{label: 0.9 * share for label, share in user.items()}, another: 0.1}, another


def distance(found: np.ndarray, usage: dict[int, float]) -> float:
    truth = np.zeros(CLASSES)
    truth[list(usage)] = list(usage.values())
    return float(np.abs(found - truth).sum())


def test_the_estimate_is_at_most_half_as_wrong_as_counts_of_the_cut_s_answers(profile, population, base):
    """After 5,000 predictions, without and with a class that the cut was not made for."""
    searcher, rng = Searcher(profile), np.random.default_rng(0)
    counted, estimated = [], []
    for _ in range(3):
        user = some_user(rng)
        labels = np.sort(list(user))
        cuts = searcher.search(Usage(labels, np.full(5, 0.2)), METHODS["L"], 0.03).cuts
        of_cut = probabilities_of(profile, cuts).argmax(axis=1)
        for usage in (user, with_another_class(user, rng)[0], with_another_class(user, rng)[0]):
            rows = population.draw(rng, usage, 5000)
            counts = np.bincount(of_cut[rows], minlength=CLASSES) / len(rows)
            audited = [packed(population.probabilities[row]) for row in rows[::AUDIT_EVERY]]
            found = estimate(likelihoods(audited, base.temperature), labels.tolist())
            shares = np.zeros(CLASSES)
            shares[list(found.labels)] = found.shares
            counted.append(distance(counts, usage))
            estimated.append(distance(shares, usage))

    assert np.mean(estimated) <= np.mean(counted) / 2


def test_a_new_class_is_asked_for_within_a_thousand_predictions(population, base):
    rng = np.random.default_rng(1)
    seen_in_time = 0
    for _ in range(20):
        user = some_user(rng)
        device = SimulatedDevice(UsageMonitor(MonitorConfig(period=PERIOD), None), base, population, rng, AUDIT_EVERY)
        device.meet(user, 6 * PERIOD)
        usage, another = with_another_class(user, rng)
        seen_in_time += any(another in classes for _, classes in device.meet(usage, 1000))

    assert seen_in_time >= 17  # of 20; 95 % of many


def test_a_user_who_stays_the_same_hardly_ever_asks_again(population, base):
    """At most one needless request in a hundred periods: for a class that is not there, or without one that is."""
    rng = np.random.default_rng(2)
    needless, periods = 0, 0
    for _ in range(6):
        user = some_user(rng)
        device = SimulatedDevice(UsageMonitor(MonitorConfig(period=PERIOD), None), base, population, rng, AUDIT_EVERY)
        device.meet(user, PERIOD)
        former = device.classes
        for _, classes in device.meet(user, 50 * PERIOD):
            needless += bool((classes - former) - user.keys() or (former - classes) & user.keys())
            former = classes
        periods += 50

    assert needless <= periods / 100
