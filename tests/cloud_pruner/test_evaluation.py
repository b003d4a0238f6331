"""An evaluation's figures against plain recomputation: every image through the whole emitted file, one by one."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from multiprocessing import active_children

import numpy as np
import pytest
from scipy import stats

from cloud_pruner.errors import PrunerError, RequestError
from cloud_pruner.evaluation import evaluate
from cloud_pruner.evaluation_sets import OUTSIDE_MAX, RESTRICTED, EvaluationSettings, class_sets
from cloud_pruner.evaluation_summary import FIGURES, mean_of, share_of, summarise
from cloud_pruner.evaluation_workers import answers
from cloud_pruner.images import split_per_class
from cloud_pruner.methods import METHODS
from cloud_pruner.profile import Split
from cloud_pruner.search import Searcher
from edge_runtime.flatmodel import read_graph
from edge_runtime.interpreter import LoadedModel
from hwmodel import estimate
from tests.support.digits import CLASSES, PREPROCESSING

SETTINGS = EvaluationSettings(methods=("W", "L", RESTRICTED), sizes=(2, 6), sets=3, epsilon=0.05, seed=5)


@pytest.fixture(scope="module")
def rows(digits_profile):
    return evaluate(digits_profile, SETTINGS)


@pytest.fixture(scope="module")
def report_images(digits_network, digits_profile):
    """Inputs and labels of the report images, straight from the pixels."""
    unseen = digits_network.unseen
    counts = {name: len(digits_profile.splits[name].labels) // 10 for name in ("select", "certify", "report")}
    chosen = split_per_class(unseen.labels, counts, CLASSES)["report"]
    return PREPROCESSING.apply(unseen.pixels[chosen]), unseen.labels[chosen]


def plain_answers(content, inputs):
    """The five best classes of each image, as a device would get them."""
    model = LoadedModel(content)
    return [sorted(range(10), key=lambda label: -out[label])[:5] for out in model.run(inputs)[0].tolist()]


def right(best, labels, label, top):
    return np.mean([label in five[:top] for five, true in zip(best, labels, strict=True) if true == label])


def test_one_row_for_each_method_set_and_size(rows):
    named = [(row.k, row.number, row.method) for row in rows]
    assert named == [(k, number, method) for k in (2, 6) for number in range(3) for method in SETTINGS.methods]


def test_figures_are_those_of_the_emitted_files(rows, digits_profile, report_images):
    inputs, labels = report_images
    base, searcher = digits_profile.base, Searcher(digits_profile)
    base_best, base_costs = plain_answers(base.content, inputs), estimate(base.graph)
    drawn = {(k, one.number): one for k in SETTINGS.sizes for one in class_sets(digits_profile, k, SETTINGS)}
    pruned = 0
    for row in (row for row in rows if row.method != RESTRICTED):
        one = drawn[row.k, row.number]
        mine = one.usage.labels.tolist()
        assert row.classes == tuple(CLASSES[label] for label in mine)
        assert row.weights == tuple(one.usage.weights)
        cut = bytes(base.emit(searcher.search(one.usage, METHODS[row.method], SETTINGS.epsilon).cuts))
        best, costs = plain_answers(cut, inputs), estimate(cut)
        assert row.relative_size == read_graph(cut).parameters / base.graph.parameters
        assert row.relative_bytes == len(cut) / len(base.content)
        assert row.relative_macs == costs.macs / base_costs.macs
        assert row.relative_energy == costs.energy.total / base_costs.energy.total
        for figure, ranking, top in (
            ("base_top1", base_best, 1),
            ("top1", best, 1),
            ("base_top5", base_best, 5),
            ("top5", best, 5),
        ):
            expected = np.mean([right(ranking, labels, label, top) for label in mine])
            assert getattr(row, figure) == pytest.approx(expected), figure
        losses = [right(base_best, labels, label, 1) - right(best, labels, label, 1) for label in mine]
        assert row.losses == pytest.approx(losses)
        assert row.worst_loss == pytest.approx(max(losses))
        assert row.beyond_epsilon == sum(loss > 0.05 + 1e-9 for loss in losses)
        for figure, ranking in (("base_outside", base_best), ("outside", best)):
            expected = np.mean([ranking[image][0] not in mine for image in one.outside])
            assert getattr(row, figure) == pytest.approx(expected), figure
        assert row.seconds > 0
        pruned += row.relative_size < 1
    assert pruned


def test_restricted_is_the_base_choosing_among_the_users_classes(rows, digits_profile, report_images):
    inputs, labels = report_images
    outputs = LoadedModel(digits_profile.base.content).run(inputs)[0]
    for row in (row for row in rows if row.method == RESTRICTED):
        mine = [CLASSES.index(name) for name in row.classes]
        chosen = np.array(mine)[outputs[:, mine].argmax(axis=1)]
        assert row.top1 == pytest.approx(np.mean([np.mean(chosen[labels == label] == label) for label in mine]))
        assert row.gain >= 0
        assert (row.relative_size, row.relative_bytes, row.relative_macs, row.relative_energy) == (1, 1, 1, 1)
        assert row.outside == 0
        assert row.seconds is None


def test_methods_share_class_sets_and_the_base(rows):
    for k in SETTINGS.sizes:
        for number in range(SETTINGS.sets):
            same = [row for row in rows if (row.k, row.number) == (k, number)]
            assert (
                len({(row.classes, row.weights, row.base_top1, row.base_top5, row.base_outside) for row in same}) == 1
            )


def test_with_all_classes_nothing_is_outside(digits_profile):
    (row,) = evaluate(digits_profile, EvaluationSettings(("W",), (10,), sets=1))
    assert row.outside is None
    assert row.base_outside is None
    (summary,) = summarise([row])
    assert summary.means["outside"] is None


def without_seconds(rows):
    return [replace(row, seconds=None) for row in rows]


def test_two_processes_give_the_same(rows, digits_profile):
    assert without_seconds(evaluate(digits_profile, SETTINGS, jobs=2)) == without_seconds(rows)


def test_an_interrupt_leaves_no_process_behind(digits_profile):
    before = set(active_children())

    def interrupt(what, done, total):
        if done == 1:
            assert len(set(active_children()) - before) == 2
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(digits_profile, SETTINGS, jobs=2, progress=interrupt)
    assert set(active_children()) == before


def test_progress_counts_measurements(digits_profile):
    seen = []
    evaluate(digits_profile, EvaluationSettings(("W", RESTRICTED), (1,), 2), progress=lambda *a: seen.append(a))
    assert seen == [
        ("opening", 0, 4),
        ("W, K = 1", 1, 4),
        ("restricted, K = 1", 2, 4),
        ("W, K = 1", 3, 4),
        ("restricted, K = 1", 4, 4),
    ]


class TestClassSets:
    def test_half_have_equal_weights(self, digits_profile):
        drawn = class_sets(digits_profile, 3, replace(SETTINGS, sets=8))
        equal = [np.ptp(one.usage.weights) < 1e-12 for one in drawn]
        assert equal[::2] == [True] * 4
        assert not all(equal[1::2])
        assert all(one.usage.weights.sum() == pytest.approx(1) for one in drawn)

    def test_more_sets_leave_the_first_as_they_were_and_another_seed_does_not(self, digits_profile):
        def names(settings):
            return [one.usage.labels.tolist() for one in class_sets(digits_profile, 4, settings)]

        assert names(replace(SETTINGS, sets=9))[:3] == names(SETTINGS)
        assert names(replace(SETTINGS, seed=6)) != names(SETTINGS)

    def test_images_of_other_classes(self, digits_profile):
        report = digits_profile.splits["report"]
        many = Split(
            np.repeat(report.activations, 5, axis=0), np.repeat(report.labels, 5), np.repeat(report.predictions, 5)
        )
        wide = replace(digits_profile, splits={"report": many})
        (one,) = class_sets(wide, 2, replace(SETTINGS, sets=1))
        assert len(set(one.outside.tolist())) == OUTSIDE_MAX
        assert not np.isin(many.labels[one.outside], one.usage.labels).any()
        (one,) = class_sets(digits_profile, 2, replace(SETTINGS, sets=1))
        assert len(one.outside) == (~np.isin(report.labels, one.usage.labels)).sum()


class TestSummary:
    def test_means_and_shares_of_all_sets(self, rows):
        summaries = summarise(rows)
        assert [(one.k, one.method) for one in summaries] == [(k, m) for k in SETTINGS.sizes for m in SETTINGS.methods]
        for one in summaries:
            mine = [row for row in rows if (row.k, row.method) == (one.k, one.method)]
            assert one.sets == len(mine) == 3
            for name in set(FIGURES) - {"seconds"}:
                assert one.means[name].mean == pytest.approx(np.mean([getattr(row, name) for row in mine])), name
            assert (one.means["seconds"] is None) == (one.method == RESTRICTED)
            assert one.beyond_epsilon.count == sum(row.beyond_epsilon for row in mine)
            assert one.beyond_epsilon.total == 3 * one.k

    def test_interval_of_a_mean(self):
        values = [0.31, 0.28, 0.44, 0.5, 0.19]
        interval = stats.ttest_1samp(values, 0).confidence_interval(0.95)
        mean = mean_of(values)
        assert (mean.mean, mean.low, mean.high) == pytest.approx((np.mean(values), interval.low, interval.high))
        assert (mean_of([0.3]).low, mean_of([0.3]).high) == (None, None)

    @pytest.mark.parametrize(("count", "total"), [(0, 20), (3, 40), (20, 20), (1, 1)])
    def test_interval_of_a_share(self, count, total):
        interval = stats.binomtest(count, total).proportion_ci(0.95, method="exact")
        share = share_of(count, total)
        assert (share.share, share.low, share.high) == pytest.approx((count / total, interval.low, interval.high))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"methods": ("W", "magic")}, "method 'magic' is unknown: choose among .*W.*L.*restricted"),
        ({"sizes": (2, 0)}, "K is 0: a class set has 1 to 10 of the model's classes"),
        ({"sizes": (11,)}, "K is 11: a class set has 1 to 10"),
        ({"sets": 0}, "0 class sets: ask for 1 or more"),
        ({"seed": -1}, "the seed is -1"),
        ({"epsilon": 3.0}, "epsilon is 3.0: it is a share of accuracy"),
        ({"epsilon": float("nan")}, "epsilon is nan"),
    ],
)
def test_what_cannot_be_compared(digits_profile, change, message):
    with pytest.raises(RequestError, match=message):
        evaluate(digits_profile, replace(SETTINGS, **change))


def doubling(base=2):
    return lambda number: number * base


def failing():
    def fail(number):
        if number == 2:
            raise RequestError("two is too many")
        return number

    return fail


def dying():
    return os._exit


class TestWorkers:
    @pytest.mark.parametrize("jobs", [1, 2, 9])
    def test_all_tasks_are_answered(self, jobs):
        got = dict(answers(partial(doubling, base=3), [5, 6, 7], jobs))
        assert got == {0: 15, 1: 18, 2: 21}

    @pytest.mark.parametrize("jobs", [1, 2])
    def test_what_a_task_raises_is_raised_here(self, jobs):
        with pytest.raises(RequestError, match="two is too many"):
            list(answers(failing, [1, 2, 3], jobs))

    def test_a_process_that_dies_is_noticed(self):
        with pytest.raises(PrunerError, match="a worker process died.*ask for fewer jobs"):
            list(answers(dying, [9, 9], 2))
