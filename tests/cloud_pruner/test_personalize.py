"""From a request to a model: search or cache, the same answer."""

from __future__ import annotations

import dataclasses
import threading
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache import LayeredStore, MemoryStore, PlanCache, SqliteStore, parse_plan_key
from cloud_pruner.asked import Asked
from cloud_pruner.errors import CertificationError, RequestError
from cloud_pruner.images import ImageSet, split_per_class
from cloud_pruner.methods import METHODS
from cloud_pruner.personalize import Personalizer, base_manifest
from cloud_pruner.personalized import DecodedAnswers
from cloud_pruner.profiling import ProfileSettings, build_profile
from cloud_pruner.requests import PruneRequest, checked_usage
from cloud_pruner.search import PathCut, Searcher
from edge_runtime.digests import digest_of
from edge_runtime.flatmodel import PruningPlan
from edge_runtime.interpreter import LoadedModel
from edge_runtime.messages import pack, unpack
from edge_runtime.self_test import run_self_test
from edge_runtime.serving import ServingModel
from edge_runtime.slots import StoredModel
from edge_runtime.wire import Manifest, PlanFile
from tests.support.digits import CLASSES, PREPROCESSING

# The profile has 20 certify images a class: too few to certify three points, enough for twenty.
REQUEST = PruneRequest({"three": 0.5, "five": 0.3, "eight": 0.2}, guarantee="empirical")
CERTIFIED = dataclasses.replace(REQUEST, guarantee="certified", epsilon=0.2)


@pytest.fixture
def memory():
    with PlanCache(LayeredStore(MemoryStore(max_bytes=1 << 20))) as cache:
        yield cache


def untimed(answer):
    manifest = dataclasses.replace(answer.manifest, cache_tier="any")
    return dataclasses.replace(answer, seconds=0.0, manifest=manifest)


def test_manifest_describes_the_file(digits_profile):
    answer = Personalizer(digits_profile).personalize(REQUEST)
    manifest = answer.manifest
    assert manifest.digest == digest_of(answer.model)
    assert manifest.bytes == len(answer.model)
    assert manifest.usage == pytest.approx({"three": 0.5, "five": 0.3, "eight": 0.2})
    assert manifest.cache_tier == "search"
    assert 0 < manifest.relative_size < 0.6
    assert set(manifest.per_class) == set(answer.held_out) == {"three", "five", "eight"}
    assert all(f.accuracy >= f.base_accuracy - 0.03 for f in manifest.per_class.values())
    assert not manifest.is_base
    assert base_manifest(digits_profile).is_base


def test_the_plan_makes_the_file_from_the_base(digits_profile):
    answer = Personalizer(digits_profile).personalize(REQUEST)
    assert digits_profile.base.apply(PruningPlan.from_bytes(answer.plan)) == answer.model
    assert answer.manifest.plan == PlanFile(digest_of(answer.plan), len(answer.plan))
    assert len(answer.plan) < len(answer.model)


def test_the_manifest_says_what_the_file_answers(digits_profile, memory):
    """An answer from the cache says the same: it is a property of the file."""
    personalizer = Personalizer(digits_profile, memory)
    base = ServingModel(StoredModel(base_manifest(digits_profile), digits_profile.base.content))
    for answer in (personalizer.personalize(REQUEST), personalizer.personalize(REQUEST)):
        self_test = answer.manifest.self_test
        assert self_test.tolerance <= 0.01
        assert run_self_test(ServingModel(StoredModel(answer.manifest, answer.model)), self_test) is None
        assert run_self_test(base, self_test) is not None


def test_second_time_comes_from_the_cache_and_is_the_same(digits_profile, memory):
    personalizer = Personalizer(digits_profile, memory)
    first, second = personalizer.personalize(REQUEST), personalizer.personalize(REQUEST)
    assert second.manifest.cache_tier == "exact"
    assert untimed(second) == untimed(first)


def test_nearly_equal_weights_share_a_cut_but_other_wishes_do_not(digits_profile, memory):
    personalizer = Personalizer(digits_profile, memory, near_hits=False)
    personalizer.personalize(REQUEST)
    tier = {
        name: personalizer.personalize(dataclasses.replace(REQUEST, **other))
        for name, other in {
            "weights": {"usage": {"three": 0.51, "five": 0.3, "eight": 0.19}},
            "scale": {"usage": {"eight": 2, "three": 5, "five": 3, "nine": 0}},
            "case": {"variant": "l"},
            "delta, where nothing is certified": {"delta": 0.05},
            "classes": {"usage": {"three": 0.5, "five": 0.5}},
            "variant": {"variant": "W"},
            "epsilon": {"epsilon": 0.05},
            "folding": {"folding": "mean"},
            "objective": {"objective": "macs"},
        }.items()
    }
    assert {name: answer.manifest.cache_tier for name, answer in tier.items()} == {
        "weights": "exact",
        "scale": "exact",
        "case": "exact",
        "delta, where nothing is certified": "exact",
        "classes": "search",
        "variant": "search",
        "epsilon": "search",
        "folding": "search",
        "objective": "search",
    }


def test_results_outlive_the_process(digits_profile, tmp_path):
    answers = []
    for _ in range(2):
        with PlanCache(LayeredStore(MemoryStore(max_bytes=1 << 20), SqliteStore(tmp_path / "plans.sqlite"))) as cache:
            answers.append(Personalizer(digits_profile, cache).personalize(REQUEST))
    assert [answer.manifest.cache_tier for answer in answers] == ["search", "exact"]
    assert untimed(answers[0]) == untimed(answers[1])


def test_an_entry_that_makes_no_sense_is_searched_anew(digits_profile, memory):
    personalizer = Personalizer(digits_profile, memory)
    expected = personalizer.personalize(REQUEST)
    keys = memory._stores.keys()
    assert any(parse_plan_key(key) for key in keys)
    for damage in (b"", b"\x80", b"\xc1 no msgpack"):
        for key in keys:
            memory.store(key, damage, seconds=1.0)
        answer = personalizer.personalize(REQUEST)
        assert answer.manifest.cache_tier == "search"
        assert answer.manifest.digest == expected.manifest.digest


class TestExactHits:
    def test_they_are_the_answer_that_was_found(self, digits_profile, memory):
        personalizer = Personalizer(digits_profile, memory)
        assert personalizer.exact(REQUEST) is None
        first, again = personalizer.personalize(REQUEST), personalizer.exact(REQUEST)
        assert again.manifest.cache_tier == "exact"
        assert untimed(again) == untimed(first)
        assert again.model == first.model

    def test_they_do_not_wait_for_a_search(self, digits_profile, memory):
        personalizer = Personalizer(digits_profile, memory)
        personalizer.personalize(REQUEST)
        asked, during = dataclasses.replace(REQUEST, usage={"one": 1.0}), []
        personalizer.personalize(asked, lambda *_: during.append(personalizer.exact(REQUEST)))
        assert {answer.manifest.cache_tier for answer in during} == {"exact"}
        assert personalizer.exact(asked) is not None

    def test_an_entry_that_was_damaged_meanwhile_is_none(self, digits_profile, memory):
        personalizer = Personalizer(digits_profile, memory)
        key = Asked.of(digits_profile, REQUEST).key
        expected = personalizer.personalize(REQUEST)
        fields = unpack(memory.lookup(key).value)
        other = personalizer.personalize(dataclasses.replace(REQUEST, variant="W"))
        for damage in (b"", pack(fields | {"plan": other.plan}), pack(fields | {"manifest": {}})):
            assert personalizer.exact(REQUEST) is not None
            memory.store(key, damage, seconds=1.0)
            assert personalizer.exact(REQUEST) is None
            assert personalizer.personalize(REQUEST).manifest.digest == expected.manifest.digest

    def test_a_request_that_misses_is_counted_once(self, digits_profile, memory):
        personalizer = Personalizer(digits_profile, memory)
        for _ in range(3):
            personalizer.exact(REQUEST) or personalizer.personalize(REQUEST)
        counts = memory.statistics().exact
        assert (counts.hits, counts.misses) == (2, 1)

    def test_what_makes_no_sense_is_refused(self, digits_profile, memory):
        with pytest.raises(RequestError, match="unknown class 'eleven'"):
            Personalizer(digits_profile, memory).exact(dataclasses.replace(REQUEST, usage={"eleven": 1.0}))

    def test_answers_that_are_kept_decoded_have_a_limit(self, digits_profile, memory):
        personalizer = Personalizer(digits_profile, memory)
        usages = [{name: 1.0} for name in CLASSES[:3]]
        stored = []
        for usage in usages:
            request = dataclasses.replace(REQUEST, usage=usage)
            personalizer.personalize(request)
            key = Asked.of(digits_profile, request).key
            stored.append((key, memory.lookup(key).value))
        decoded = DecodedAnswers(digits_profile.base, sum(len(content) for _, content in stored) - 1)
        first = [decoded.of(*one) for one in stored]
        assert decoded.of(*stored[2]) is first[2]
        assert decoded.of(*stored[0]) is not first[0]  # it had to go, and was decoded once more
        assert decoded.of(*stored[0]) == first[0]


def test_a_thousand_identical_requests_at_once_cost_one_search(digits_profile, memory, monkeypatch):
    searches = []
    search = Searcher.search
    monkeypatch.setattr(Searcher, "search", lambda *a, **k: searches.append(1) or search(*a, **k))
    personalizer = Personalizer(digits_profile, memory)
    start, answers = threading.Barrier(1000), []

    def ask():
        start.wait()
        answers.append(personalizer.personalize(REQUEST))

    threads = [threading.Thread(target=ask) for _ in range(1000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(searches) == 1
    assert sorted(answer.manifest.cache_tier for answer in answers) == ["exact"] * 999 + ["search"]
    assert len({answer.manifest.digest for answer in answers}) == 1


class TestCertified:
    def test_the_certificate_holds_for_the_file_that_is_shipped(self, digits_profile, digits_network):
        answer = Personalizer(digits_profile).personalize(CERTIFIED)
        manifest, certificate = answer.manifest, answer.manifest.certificate
        assert manifest.guarantee == "certified"
        assert manifest.relative_size < 0.8
        certificate.check(manifest.digest, manifest.usage)
        assert (certificate.epsilon, certificate.delta, certificate.test) == (0.2, 0.1, "clopper-pearson")
        # The counts, from the pixels and the whole file.
        unseen = digits_network.unseen
        rows = split_per_class(unseen.labels, {"select": 40, "certify": 20})["certify"]
        inputs, labels = PREPROCESSING.apply(unseen.pixels[rows]), unseen.labels[rows]
        base, cut = (
            LoadedModel(content).run(inputs)[0].argmax(axis=1) == labels
            for content in (digits_profile.base.content, answer.model)
        )
        for name, evidence in certificate.classes.items():
            mine = labels == CLASSES.index(name)
            assert evidence.images == mine.sum() == 20
            assert evidence.base_right == (base & mine).sum()
            assert evidence.newly_wrong == (base & ~cut & mine).sum()
            assert evidence.newly_right == (~base & cut & mine).sum()

    def test_it_is_remembered_with_the_cut(self, digits_profile, memory):
        personalizer = Personalizer(digits_profile, memory)
        first, second = personalizer.personalize(CERTIFIED), personalizer.personalize(CERTIFIED)
        assert second.manifest.cache_tier == "exact"
        assert untimed(second) == untimed(first)
        assert personalizer.personalize(dataclasses.replace(CERTIFIED, delta=0.2)).manifest.cache_tier == "search"

    def test_a_manifest_carries_it_over_the_wire(self, digits_profile):
        manifest = Personalizer(digits_profile).personalize(CERTIFIED).manifest
        assert Manifest.from_fields(unpack(pack(manifest.to_fields()))) == manifest

    def test_never_prunes_more_than_was_found(self, digits_profile):
        personalizer = Personalizer(digits_profile)
        found = personalizer.personalize(dataclasses.replace(CERTIFIED, guarantee="empirical"))
        certified = personalizer.personalize(CERTIFIED)
        assert certified.manifest.relative_size >= found.manifest.relative_size
        assert bool(certified.shortfall) == (certified.manifest.relative_size > found.manifest.relative_size)

    @pytest.mark.parametrize(
        ("path", "epsilon", "shipped"),
        [
            ("good good harmful", 0.25, "good"),
            ("good harmful harmful", 0.25, "good"),
            ("harmful good harmful", 0.25, "good"),
            ("harmful harmful harmful", 0.25, None),
            # 20 images are enough for a whole delta of 0.1, and not for nine tenths.
            ("harmful good harmful", 0.14, "good"),
        ],
        ids=["the surest", "the one before", "not the one before", "none", "too few images for a share"],
    )
    def test_what_comes_before_the_surest_cut_has_a_chance_left(
        self, digits_profile, monkeypatch, path, epsilon, shipped
    ):
        """A tenth of delta, where the walk from the surest cut on ships nothing."""
        usage = checked_usage(CERTIFIED.usage, digits_profile.classes)
        searcher = Searcher(digits_profile)
        one_each = {layer.group: np.arange(1) for layer in digits_profile.layers}
        cuts = {"good": (), "harmful": searcher.fitted(usage, one_each, "none", 0.2)}
        result = searcher.search(usage, METHODS["L"], 0.2)
        way = tuple(PathCut({}, partial(cuts.__getitem__, kind)) for kind in path.split())
        monkeypatch.setattr(Searcher, "search", lambda *_, **__: dataclasses.replace(result, path=way))
        monkeypatch.setattr(Searcher, "safest", lambda *_: 1)
        answer = Personalizer(digits_profile).personalize(dataclasses.replace(CERTIFIED, epsilon=epsilon))
        assert (answer.manifest.certificate is not None) == (shipped == "good")
        assert answer.manifest.relative_size == 1.0
        assert "is not certified" in answer.shortfall
        # What only a second walk came to is no sequence for others.
        assert len(answer.walk) == (path.split()[1] == "good")

    def test_too_few_images_are_said_before_anything_is_searched(self, digits_profile):
        def never(*_):
            raise AssertionError("searched all the same")

        line = (
            "class 'three' has 20 certify images, but epsilon 3 % at delta 0.1 takes 99 a class .* "
            "allow an epsilon of .* or ask for guarantee 'empirical'"
        )
        with pytest.raises(CertificationError, match=line):
            Personalizer(digits_profile).personalize(dataclasses.replace(REQUEST, guarantee="certified"), never)

    def test_what_cannot_be_certified_is_shipped_uncut_and_said(self, digits_profile):
        """At 12 %, twenty images pass the binomial test only if the cut gets every image right that the base does."""
        request = dataclasses.replace(CERTIFIED, epsilon=0.12, test="binomial", usage=dict.fromkeys(CLASSES, 1.0))
        answer = Personalizer(digits_profile).personalize(request)
        assert answer.shortfall
        assert (answer.manifest.certificate is None) == (answer.manifest.relative_size == 1.0)


class TestUnusualClasses:
    def test_all_classes(self, digits_profile):
        answer = Personalizer(digits_profile).personalize(
            dataclasses.replace(REQUEST, usage=dict.fromkeys(CLASSES, 1.0))
        )
        assert set(answer.manifest.per_class) == set(CLASSES)
        assert all(f.accuracy >= f.base_accuracy - 0.03 for f in answer.manifest.per_class.values())

    def test_a_class_that_the_base_never_gets_right_has_nothing_to_lose(self, digits_network, tmp_path):
        """Its images are zeros: the other classes are bounded as ever, and it is cut and counted like them."""
        unseen = digits_network.unseen
        pixels = unseen.pixels.copy()
        pixels[unseen.labels == 9] = unseen.pixels[unseen.labels == 0]
        images = ImageSet(pixels, unseen.labels, CLASSES)
        profile = build_profile(
            digits_network.tflite.read_bytes(), images, PREPROCESSING, tmp_path / "p", settings=ProfileSettings(None)
        )
        answer = Personalizer(profile).personalize(dataclasses.replace(REQUEST, usage={"nine": 1.0, "one": 1.0}))
        assert answer.manifest.per_class["nine"].base_accuracy == 0.0
        figures = answer.manifest.per_class["one"]
        assert figures.accuracy >= figures.base_accuracy - 0.03


class TestUsage:
    CLASSES = ("ant", "bee", "cat", "dog")

    @pytest.mark.parametrize(
        ("usage", "message"),
        [
            ({}, "no classes"),
            ({"cow": 1.0}, "unknown class 'cow': the model knows ant, bee, cat, dog"),
            ({"ant": -0.1, "bee": 1.0}, "weight of class 'ant' is -0.1"),
            ({"ant": float("nan")}, "weight of class 'ant' is nan"),
            ({"ant": float("inf")}, "weight of class 'ant' is inf"),
            ({"ant": 0.0, "bee": 0.0}, "sum to nothing"),
            ({"ant": 1.7e308, "bee": 1.7e308}, "sum to more than there are numbers"),
        ],
    )
    def test_nonsense_is_refused(self, usage, message):
        with pytest.raises(RequestError, match=message):
            checked_usage(usage, self.CLASSES)

    @pytest.mark.parametrize("share", [0.0, 1.0, -0.1, float("nan"), 3])
    @pytest.mark.parametrize("name", ["epsilon", "delta"])
    def test_epsilon_and_delta_are_shares(self, name, share):
        with pytest.raises(RequestError, match=f"{name} is {share}: .*between 0 and 1"):
            PruneRequest({"ant": 1.0}, **{name: share})

    @pytest.mark.parametrize(
        ("field", "message"),
        [
            ("variant", "variant 'Q' is unknown: choose one of B, W, M, .*L, "),
            ("guarantee", "guarantee 'Q' is unknown: choose one of certified, empirical"),
            ("test", "test 'Q' is unknown: choose one of binomial, betting, clopper-pearson"),
            ("folding", "folding 'Q' is unknown: choose one of none, mean, linear"),
            ("objective", "objective 'Q' is unknown: choose one of size, macs, energy"),
        ],
    )
    def test_unknown_names(self, field, message):
        with pytest.raises(RequestError, match=message):
            PruneRequest({"ant": 1.0}, **{field: "Q"})

    @given(
        st.dictionaries(st.sampled_from(CLASSES), st.floats(0, 1e6), min_size=1).filter(lambda u: sum(u.values()) > 0)
    )
    def test_weights_sum_to_one_and_no_class_is_lost(self, usage):
        checked = checked_usage(usage, self.CLASSES)
        assert checked.weights.sum() == pytest.approx(1.0)
        assert (checked.weights > 0).all()
        assert {self.CLASSES[label] for label in checked.labels} == {
            name for name, weight in usage.items() if weight > 0
        }
        assert (np.diff(checked.labels) > 0).all()
