"""Results for other users: taken only where they meet the request's own bound."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from cache import LayeredStore, MemoryStore, PlanCache
from cloud_pruner import certification, near_hits, personalize
from cloud_pruner.images import split_per_class
from cloud_pruner.methods import method_named
from cloud_pruner.near_hits import NEAR_SHARE
from cloud_pruner.personalize import Personalizer
from cloud_pruner.requests import PruneRequest, checked_usage
from edge_runtime.flatmodel import PruningPlan
from edge_runtime.interpreter import LoadedModel
from tests.support.digits import CLASSES, PREPROCESSING

THREE = {"three": 1.0, "five": 1.0, "eight": 1.0}
TWO = {"three": 1.0, "eight": 1.0}
OTHERS = {"one": 1.0, "seven": 1.0}


def empirical(usage, variant="L"):
    return PruneRequest(usage, variant=variant, guarantee="empirical")


def certified(usage):
    return PruneRequest(usage, guarantee="certified", epsilon=0.2)


@pytest.fixture
def cache():
    with PlanCache(LayeredStore(MemoryStore(max_bytes=1 << 24))) as opened:
        yield opened


@pytest.fixture
def any_size(monkeypatch):
    """Supersets are taken whatever their size."""
    monkeypatch.setattr(near_hits, "_SLACK", 1.0)


@pytest.fixture
def all_alike(digits_profile):
    """The profile, with all classes in one cluster of each layer."""
    one = np.zeros(10, np.int16)
    layers = tuple(dataclasses.replace(layer, clusters=one) for layer in digits_profile.layers)
    return dataclasses.replace(digits_profile, layers=layers)


@pytest.fixture
def deltas(monkeypatch):
    """The levels of all walks on the certify images in which a cut was counted."""
    seen = []
    walk = certification.walk

    def recording(steps, count, **settings):
        walked = walk(steps, count, **settings)
        if any(c.newly_wrong or c.newly_right for step in walked.steps for c in step.counts.values()):
            seen.append(settings["delta"])
        return walked

    monkeypatch.setattr(certification, "walk", recording)
    return seen


def accuracies(network, profile, answer, split):
    """Return class -> accuracy of base and cut on a split, from the pixels and the whole file."""
    rows = split_per_class(network.unseen.labels, {"select": 40, "certify": 20})[split]
    inputs, labels = PREPROCESSING.apply(network.unseen.pixels[rows]), network.unseen.labels[rows]
    base, cut = (LoadedModel(content).run(inputs)[0].argmax(axis=1) for content in (profile.base.content, answer.model))
    return {
        name: tuple(float(np.mean(said[labels == number] == number)) for said in (base, cut))
        for number, name in enumerate(CLASSES)
        if name in answer.manifest.usage
    }


class TestSupersets:
    @pytest.mark.usefixtures("any_size")
    def test_a_cut_for_more_classes_answers_and_is_described_for_these(self, digits_profile, digits_network, cache):
        personalizer = Personalizer(digits_profile, cache)
        larger = personalizer.personalize(empirical(THREE))
        personalizer.personalize(empirical(OTHERS))  # tells how small cuts for two classes are
        answer = personalizer.personalize(empirical(TWO))
        assert answer.manifest.cache_tier == "superset"
        assert answer.model == larger.model
        assert answer.manifest.usage == {"three": 0.5, "eight": 0.5}
        assert set(answer.manifest.per_class) == set(answer.held_out) == {"three", "eight"}
        for name, (base, cut) in accuracies(digits_network, digits_profile, answer, "select").items():
            figures = answer.manifest.per_class[name]
            assert (figures.base_accuracy, figures.accuracy) == pytest.approx((base, cut))
            assert cut >= base - 0.03 - 1e-9
        assert personalizer.personalize(empirical(TWO)).manifest.cache_tier == "exact"
        assert cache.statistics().superset.hits == 1

    @pytest.mark.usefixtures("any_size")
    def test_its_certificate_holds_for_these_classes(self, digits_profile, digits_network, cache, deltas):
        personalizer = Personalizer(digits_profile, cache)
        personalizer.personalize(certified(THREE))
        personalizer.personalize(certified(OTHERS))
        walks = len(deltas)
        answer = personalizer.personalize(certified(TWO))
        manifest = answer.manifest
        assert manifest.cache_tier == "superset"
        assert len(deltas) == walks  # what was counted then is enough
        assert set(manifest.certificate.classes) == {"three", "eight"}
        manifest.certificate.check(manifest.digest, manifest.usage)
        assert max(evidence.p_value for evidence in manifest.certificate.classes.values()) <= NEAR_SHARE * 0.1
        for name, (base, cut) in accuracies(digits_network, digits_profile, answer, "certify").items():
            evidence = manifest.certificate.classes[name]
            assert evidence.base_right == round(20 * base)
            assert evidence.newly_right - evidence.newly_wrong == round(20 * cut) - round(20 * base)

    def test_one_that_is_larger_than_usual_does_not_answer(self, digits_profile, cache, monkeypatch):
        monkeypatch.setattr(near_hits, "_SLACK", -1.0)
        personalizer = Personalizer(digits_profile, cache)
        personalizer.personalize(empirical(THREE))
        personalizer.personalize(empirical(OTHERS))
        assert personalizer.personalize(empirical(TWO)).manifest.cache_tier != "superset"

    @pytest.mark.usefixtures("any_size")
    def test_nobody_knows_what_is_usual_before_a_search_for_as_many_classes(self, digits_profile, cache):
        personalizer = Personalizer(digits_profile, cache)
        personalizer.personalize(empirical(THREE))
        assert personalizer.personalize(empirical(TWO)).manifest.cache_tier != "superset"

    @pytest.mark.usefixtures("any_size")
    def test_a_failed_one_leaves_the_search_the_rest_of_delta(self, digits_profile, cache, deltas, monkeypatch):
        personalizer = Personalizer(digits_profile, cache)
        personalizer.personalize(certified(THREE))
        personalizer.personalize(certified(OTHERS))
        del deltas[:]
        monkeypatch.setattr(near_hits, "NEAR_SHARE", 1e-9)  # no p-value is that small
        answer = personalizer.personalize(certified(TWO))
        assert answer.manifest.cache_tier == "search"
        assert cache.statistics().superset.rejected == 1
        assert deltas == pytest.approx([(1 - NEAR_SHARE) * 0.1])
        assert all(e.p_value <= (1 - NEAR_SHARE) * 0.1 for e in answer.manifest.certificate.classes.values())


class TestThresholds:
    def test_thresholds_of_users_alike_are_taken_for_ones_own_classes(self, all_alike, cache):
        personalizer = Personalizer(all_alike, cache)
        first = personalizer.personalize(empirical(THREE, "W"))
        answer = personalizer.personalize(empirical({"one": 1.0, "two": 1.0, "six": 1.0}, "W"))
        assert first.manifest.cache_tier == "search"
        assert answer.manifest.cache_tier == "thresholds"
        # The threshold of each layer, as the first search accepted it, on the second user's own rates.
        request = empirical(THREE, "W")
        usage = checked_usage(request.usage, CLASSES)
        searched = personalizer._searcher.search(usage, method_named("W"), request.epsilon)
        mine = checked_usage({"one": 1.0, "two": 1.0, "six": 1.0}, CLASSES)
        kept = {cut.tensor: cut.kept for cut in PruningPlan.from_bytes(answer.plan).cuts}
        for layer, choice in zip(all_alike.layers, searched.layers, strict=True):
            rates = layer.firing_rates[:, mine.labels].astype(np.float64) @ mine.weights
            expected = np.arange(layer.units) if choice.figure is None else np.flatnonzero(rates > choice.figure)
            assert kept.get(layer.tensor, np.arange(layer.units)).tolist() == expected.tolist()

    def test_units_of_users_alike_are_kept_with_ones_own_folds(self, all_alike, digits_network, cache):
        personalizer = Personalizer(all_alike, cache)
        first = personalizer.personalize(empirical(THREE))
        tiers = {}
        for usage in (
            {"one": 1.0, "two": 1.0, "six": 1.0},
            {"zero": 1.0, "one": 1.0, "seven": 1.0},
            {"two": 1.0, "four": 1.0, "nine": 1.0},
        ):
            answer = personalizer.personalize(empirical(usage))
            tiers.setdefault(answer.manifest.cache_tier, []).append(answer)
            for base, cut in accuracies(digits_network, all_alike, answer, "select").values():
                assert cut >= base - 0.03 - 1e-9
        assert set(tiers) <= {"thresholds", "search"}
        units = [
            [cut.kept.tolist() for cut in PruningPlan.from_bytes(a.plan).cuts] for a in (first, *tiers["thresholds"])
        ]
        assert all(one == units[0] for one in units[:2])
        assert tiers["thresholds"][0].plan != first.plan
        statistics = cache.statistics().thresholds
        assert statistics.hits == len(tiers["thresholds"])
        assert statistics.rejected == len(tiers.get("search", ()))

    def test_what_loses_too_much_is_searched_and_costs_no_delta(self, all_alike, cache, deltas, monkeypatch):
        personalizer = Personalizer(all_alike, cache)
        personalizer.personalize(certified(THREE))
        del deltas[:]
        monkeypatch.setattr(personalize, "losses_allowed", lambda *_: -100)
        answer = personalizer.personalize(certified({"one": 1.0, "two": 1.0, "six": 1.0}))
        assert answer.manifest.cache_tier == "search"
        assert deltas == pytest.approx([0.1])
        assert cache.statistics().thresholds.rejected == 1

    def test_a_certified_one_has_its_own_certificate(self, all_alike, cache, deltas):
        personalizer = Personalizer(all_alike, cache)
        tested = []
        for third in ("eight", "two", "nine"):
            del deltas[:]
            usage = {"three": 1.0, "five": 1.0, third: 1.0}
            request = PruneRequest(usage, variant="W", guarantee="certified", epsilon=0.3)
            manifest = personalizer.personalize(request).manifest
            if manifest.cache_tier == "thresholds":
                manifest.certificate.check(manifest.digest, manifest.usage)
                tested += deltas
        assert tested
        assert set(tested) == {NEAR_SHARE * 0.1}

    def test_one_that_is_not_certified_leaves_the_search_the_rest_of_delta(self, all_alike, cache, deltas, monkeypatch):
        personalizer = Personalizer(all_alike, cache)
        personalizer.personalize(certified(THREE))
        del deltas[:]
        least = {layer.group: np.arange(1) for layer in all_alike.layers}
        monkeypatch.setattr(near_hits.NearHits, "kept", lambda *_: (least, 1.0))
        monkeypatch.setattr(personalize, "losses_allowed", lambda *_: 100)
        answer = personalizer.personalize(certified({"one": 1.0, "two": 1.0, "six": 1.0}))
        assert answer.manifest.cache_tier == "search"
        assert deltas == pytest.approx([NEAR_SHARE * 0.1, (1 - NEAR_SHARE) * 0.1])
        assert cache.statistics().thresholds.rejected == 1


@pytest.mark.usefixtures("any_size")
def test_without_near_hits_everything_else_is_searched(all_alike, cache):
    personalizer = Personalizer(all_alike, cache, near_hits=False)
    tiers = [personalizer.personalize(empirical(usage)).manifest.cache_tier for usage in (THREE, OTHERS, TWO, TWO)]
    assert tiers == ["search", "search", "search", "exact"]


@pytest.mark.usefixtures("any_size")
def test_another_profile_never_meets_these(digits_profile, cache):
    personalizer = Personalizer(digits_profile, cache)
    personalizer.personalize(empirical(THREE))
    personalizer.personalize(empirical(OTHERS))
    other = Personalizer(dataclasses.replace(digits_profile, digest="0" * 64), cache)
    assert other.personalize(empirical(TWO)).manifest.cache_tier == "search"
