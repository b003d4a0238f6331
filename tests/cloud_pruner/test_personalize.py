"""From a request to a model: search or cache, the same answer."""

from __future__ import annotations

import dataclasses
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache import LayeredStore, MemoryStore, PlanCache, SqliteStore
from cloud_pruner.errors import RequestError
from cloud_pruner.personalize import Personalizer, base_manifest
from cloud_pruner.requests import PruneRequest, checked_usage
from edge_runtime.digests import digest_of
from edge_runtime.flatmodel import PruningPlan

REQUEST = PruneRequest({"three": 0.5, "five": 0.3, "eight": 0.2})


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
    assert len(answer.plan) < len(answer.model)


def test_second_time_comes_from_the_cache_and_is_the_same(digits_profile, memory):
    personalizer = Personalizer(digits_profile, memory)
    first, second = personalizer.personalize(REQUEST), personalizer.personalize(REQUEST)
    assert second.manifest.cache_tier == "exact"
    assert untimed(second) == untimed(first)


def test_nearly_equal_weights_share_a_cut_but_other_wishes_do_not(digits_profile, memory):
    personalizer = Personalizer(digits_profile, memory)
    personalizer.personalize(REQUEST)
    tier = {
        "weights": personalizer.personalize(PruneRequest({"three": 0.51, "five": 0.3, "eight": 0.19})),
        "scale": personalizer.personalize(PruneRequest({"eight": 2, "three": 5, "five": 3, "nine": 0})),
        "classes": personalizer.personalize(PruneRequest({"three": 0.5, "five": 0.5})),
        "variant": personalizer.personalize(dataclasses.replace(REQUEST, variant="W")),
        "epsilon": personalizer.personalize(dataclasses.replace(REQUEST, epsilon=0.05)),
    }
    assert {name: answer.manifest.cache_tier for name, answer in tier.items()} == {
        "weights": "exact",
        "scale": "exact",
        "classes": "search",
        "variant": "search",
        "epsilon": "search",
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
    (key,) = memory._stores.keys()
    for damage in (b"", b"\x80", b"\xc1 no msgpack"):
        memory.store(key, damage, seconds=1.0)
        answer = personalizer.personalize(REQUEST)
        assert answer.manifest.cache_tier == "search"
        assert answer.manifest.digest == expected.manifest.digest


def test_identical_requests_at_once_cost_one_search(digits_profile, memory):
    personalizer = Personalizer(digits_profile, memory)
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(personalizer.personalize(REQUEST))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answer.manifest.cache_tier for answer in answers) == ["exact"] * 7 + ["search"]
    assert len({answer.manifest.digest for answer in answers}) == 1


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
        ],
    )
    def test_nonsense_is_refused(self, usage, message):
        with pytest.raises(RequestError, match=message):
            checked_usage(usage, self.CLASSES)

    @pytest.mark.parametrize("epsilon", [0.0, 1.0, -0.1, float("nan"), 3])
    def test_epsilon_is_a_share(self, epsilon):
        with pytest.raises(RequestError, match="between 0 and 1"):
            PruneRequest({"ant": 1.0}, epsilon=epsilon).checked_epsilon()

    def test_unknown_variant(self):
        with pytest.raises(RequestError, match="choose one of W, L"):
            PruneRequest({"ant": 1.0}, variant="Q").checked_variant()

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
