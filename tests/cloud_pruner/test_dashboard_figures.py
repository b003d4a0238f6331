"""The figures of the dashboard: energies, confusions, sizes over time, and how they are written."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone

import numpy as np
import pytest
from starlette.datastructures import QueryParams

from cloud_pruner.dashboard.confusion import Confusion, confusion_of
from cloud_pruner.dashboard.confusion_view import view_of
from cloud_pruner.dashboard.energy import EnergyRatios
from cloud_pruner.dashboard.formats import FILTERS
from cloud_pruner.dashboard.size_plot import size_plot
from cloud_pruner.dashboard.wish_form import WishForm
from cloud_pruner.errors import RequestError, StateError
from cloud_pruner.personalize import Personalizer
from cloud_pruner.requests import PruneRequest, checked_usage
from cloud_pruner.search import Searcher
from cloud_pruner.state import CutRecord
from edge_runtime.flatmodel import PruningPlan
from hwmodel import compare, estimate

USER = {"one": 3.0, "seven": 1.0, "nine": 1.0}


@pytest.fixture(scope="module")
def answer(digits_profile):
    return Personalizer(digits_profile).personalize(PruneRequest(USER, epsilon=0.1, guarantee="empirical"))


class TestConfusion:
    @pytest.fixture
    def usage(self, digits_profile):
        return checked_usage(USER, digits_profile.classes)

    def test_its_diagonal_is_what_the_search_counts_on_the_same_images(self, digits_profile, answer, usage):
        cuts = PruningPlan.from_bytes(answer.plan).cuts
        confusion = confusion_of(digits_profile, usage.labels.tolist(), cuts)
        counts = Searcher(digits_profile).count(cuts, usage, "report")
        assert confusion.split == "report"
        assert confusion.images().tolist() == [counts[label].images for label in confusion.labels]
        assert np.diag(confusion.base).tolist() == [counts[label].base for label in confusion.labels]
        assert np.diag(confusion.cut).tolist() == [counts[label].cut for label in confusion.labels]
        assert confusion.cut.sum() == confusion.base.sum()

    def test_what_is_taken_for_another_class_is_counted_in_the_last_column(self, digits_profile):
        labels = list(range(10))
        whole = confusion_of(digits_profile, labels, ())
        wrong = int(np.argmax(whole.base.sum(axis=1) - np.diag(whole.base)))
        alone = confusion_of(digits_profile, [wrong], ())
        assert alone.base.tolist() == [[whole.base[wrong, wrong], whole.images()[wrong] - whole.base[wrong, wrong]]]
        assert alone.base[0, 1] > 0

    def test_images_of_the_search_are_taken_where_there_are_no_others(self, digits_profile, answer):
        without = {
            name: replace(digits_profile.splits[name], labels=np.empty(0, np.int32)) for name in ("report", "certify")
        }
        profile = replace(digits_profile, splits={**digits_profile.splits, **without})
        confusion = confusion_of(profile, [1, 7, 9], PruningPlan.from_bytes(answer.plan).cuts)
        assert confusion.split == "select"
        right = {name: figures.accuracy * figures.n for name, figures in answer.manifest.per_class.items()}
        assert np.diag(confusion.cut).tolist() == pytest.approx(list(right.values()))

    def test_many_classes_are_shown_by_their_mistakes(self):
        names = [f"class {number}" for number in range(20)]
        counts = np.zeros((20, 21), dtype=np.int64)
        np.fill_diagonal(counts, 50)
        counts[3, 4], counts[5, 20] = 7, 9
        view = view_of(
            Confusion("report", tuple(range(20)), counts, counts * 0 + counts), names, dict.fromkeys(names, 0.05)
        )
        assert view.tables is None
        assert [(row.name, row.other, row.base) for row in view.mistakes] == [
            ("class 5", "a class that is not the user's", 9),
            ("class 3", "class 4", 7),
        ]


class TestEnergy:
    def test_is_the_hardware_models(self, digits_profile, answer):
        files = {digits_profile.base.digest: digits_profile.base.content, answer.manifest.digest: answer.model}
        asked = []

        def file(digest):
            asked.append(digest)
            return files.get(digest)

        ratios = EnergyRatios(file)
        expected = compare(estimate(digits_profile.base.graph), estimate(bytes(answer.model))).ratios["energy"]
        gone = replace(answer.manifest, digest="0" * 64)
        for _ in range(2):
            assert ratios.of([answer.manifest, gone], seconds=60) == [pytest.approx(expected), None]
        assert ratios.of_answer(answer) == pytest.approx(expected)
        assert len(asked) == len(set(asked)) == 3  # each file is looked at once

    def test_is_asked_for_again_once_the_files_are_back(self, digits_profile, answer):
        files = {}

        def file(digest):
            if not files:
                raise StateError("the disk is away")
            return files[digest]

        ratios = EnergyRatios(file)
        assert ratios.of([answer.manifest], seconds=60) == [None]
        files |= {digits_profile.base.digest: digits_profile.base.content, answer.manifest.digest: answer.model}
        assert ratios.of([answer.manifest], seconds=0) == [None]  # nobody waits longer than that
        assert 0 < ratios.of([answer.manifest], seconds=60)[0] < 1


class TestSizes:
    START = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)

    def cuts(self, manifest, *sizes):
        """Return records an hour apart, newest first."""
        return [
            CutRecord("porch", self.START + timedelta(hours=hour), "b", "p", replace(manifest, relative_size=size), "")
            for hour, size in reversed(list(enumerate(sizes)))
        ]

    def test_go_in_steps(self, answer):
        plot = size_plot(self.cuts(answer.manifest, 0.5, 0.25, 1.0))
        assert plot.dots == ((0.0, 50.0), (50.0, 75.0), (100.0, 0.0))
        assert plot.path == "M0 50H50V75H100V0"
        assert (plot.first, plot.last) == (self.START, self.START + timedelta(hours=2))

    def test_one_is_no_line(self, answer):
        assert size_plot(self.cuts(answer.manifest, 0.5)) is None
        assert size_plot([]) is None

    def test_two_at_the_same_moment(self, answer):
        cut = self.cuts(answer.manifest, 0.5)[0]
        assert size_plot([cut, cut]).path == "M0 50H0V50"


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("size", 0, "0 B"),
        ("size", 999, "999 B"),
        ("size", 999_600, "1 MB"),
        ("size", 12_345_678, "12.3 MB"),
        ("size", -2_000, "-2 kB"),
        ("percent", 0.1234, "12.3 %"),
        ("points", -0.0, "0.0 points"),
        ("seconds", 0.00123, "1.23 ms"),
        ("seconds", 12.345, "12.35 s"),
        ("classes", {"a": 0.1, "b": 0.9}, "b, a"),
        ("classes", dict.fromkeys("abcdefghi", 0.1), "a, b, c, d, e, f and 3 more"),
        ("path", "a/../b?c#d", "a%2F..%2Fb%3Fc%23d"),
        ("tier", "search", "search"),
        ("tier", "none", "none"),
    ],
)
def test_how_figures_are_written(name, value, text):
    assert FILTERS[name](value) == text


class TestWishes:
    def test_a_whole_address(self):
        query = QueryParams(
            "model=m&class=cat&class=dog&weight.dog=3&weight.cow=9&epsilon=0.1&variant=W&guarantee=certified"
        )
        form = WishForm.of(query, "empirical")
        assert form.choices(("cat", "cow", "dog")) == [("cat", ""), ("cow", None), ("dog", "3")]
        assert form.request() == PruneRequest({"cat": 1.0, "dog": 3.0}, "W", 0.1, "certified")

    def test_defaults(self):
        form = WishForm.of(QueryParams("class=cat"), "empirical")
        assert form.request() == PruneRequest({"cat": 1.0}, guarantee="empirical")

    @pytest.mark.parametrize(
        ("query", "message"),
        [
            ("class=cat&weight.cat=much", "weight of class 'cat' is 'much'"),
            ("class=cat&epsilon=", "epsilon is ''"),
            ("class=cat&epsilon=nan", "epsilon is nan"),
            ("class=cat&variant=Z", "variant 'Z' is unknown"),
            ("class=cat&guarantee=full", "guarantee 'full' is unknown"),
        ],
    )
    def test_nonsense(self, query, message):
        with pytest.raises(RequestError, match=message):
            WishForm.of(QueryParams(query), "empirical").request()
