"""A cut is judged as if all images had been counted, and fewer are run."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud_pruner.judge import Judge, paired_counts
from cloud_pruner.profile import Split
from cloud_pruner.variants import Usage

CLASSES = 5


def split_of(images, base):
    """A split of `images[c]` images of class c whose activations are their numbers; `base` says what the base says."""
    labels = np.repeat(np.arange(len(images)), images).astype(np.int32)
    return Split(np.arange(len(labels), dtype=np.float32)[:, None], labels, np.asarray(base, np.int32))


class Cut:
    """Answers as `predictions` say, with these margins, and remembers which images it was asked for."""

    def __init__(self, predictions, margins=1.0):
        self.predictions, self.asked, self.largest = np.asarray(predictions), [], 0
        self.margins = np.broadcast_to(np.float32(margins), len(self.predictions))

    def __call__(self, images):
        numbers = images[:, 0].astype(int)
        self.asked += numbers.tolist()
        self.largest = max(self.largest, len(numbers))
        return (
            np.eye(max(CLASSES, *self.predictions + 1), dtype=np.float32)[self.predictions[numbers]]
            * self.margins[numbers, None]
        )


def losing(split, usage, cut, epsilon):
    """The classes that lose more than epsilon, counted with fractions."""
    found = set()
    for label in usage.labels.tolist():
        mine = split.labels == label
        lost = int((split.predictions[mine] == label).sum()) - int((cut[mine] == label).sum())
        # 3 of 100 images are 3 %, whatever binary fractions make of it.
        if Fraction(lost) > Fraction(epsilon) * int(mine.sum()) + Fraction(1, 10**9):
            found.add(label)
    return found


def usage_of(labels):
    return Usage(np.array(labels), np.full(len(labels), 1 / len(labels)))


@st.composite
def searches(draw):
    """Images a class, the user's classes, epsilon, and what the base and a few cuts in a row say of every image."""
    images = draw(st.lists(st.integers(1, 60), min_size=CLASSES, max_size=CLASSES))
    labels = sorted(draw(st.sets(st.integers(0, CLASSES - 1), min_size=1)))
    epsilon = draw(
        st.one_of(st.floats(0, 1), st.builds(lambda a, b: min(a, b) / b, st.integers(0, 9), st.integers(1, 60)))
    )
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    truth = np.repeat(np.arange(CLASSES), images)

    def answers(mistakes):
        return np.where(rng.random(len(truth)) < mistakes, rng.integers(0, CLASSES, len(truth)), truth)

    base = answers(draw(st.sampled_from([0.0, 0.1, 0.5])))
    cuts = []
    for mistakes in draw(st.lists(st.sampled_from([0.0, 0.05, 0.2, 0.6, 1.0]), min_size=1, max_size=5)):
        changed = rng.random(len(truth)) < draw(st.sampled_from([0.1, 1.0]))
        cuts.append(np.where(changed, answers(mistakes), base))
    return images, labels, epsilon, base, cuts


@settings(max_examples=300, deadline=None)
@given(searches())
def test_the_verdict_is_that_of_counting_everything(search):
    images, labels, epsilon, base, cuts = search
    split, usage = split_of(images, base), usage_of(labels)
    judge = Judge(split, usage, epsilon)
    for predictions in cuts:
        mine = np.isin(split.labels, labels)
        cut = Cut(predictions[mine])
        failing = judge.failing(cut, np.arange(mine.sum(), dtype=np.float32)[:, None])
        lost = losing(split, usage, predictions, epsilon)
        assert failing in lost if lost else failing is None
        assert len(cut.asked) == len(set(cut.asked)) <= mine.sum()
        for label in labels:
            of_class = split.labels == label
            allowed = np.floor(epsilon * of_class.sum() + 1e-9)
            assert judge.needed[label] == np.sum(base[of_class] == label) - allowed


def test_images_are_those_of_the_user_s_classes():
    split = split_of([3, 2, 4, 1, 1], np.zeros(11))
    judge = Judge(split, usage_of([0, 2]), 0.1)
    np.testing.assert_array_equal(judge.inputs[:, 0], [0, 1, 2, 5, 6, 7, 8])
    np.testing.assert_array_equal(judge.labels, [0, 0, 0, 2, 2, 2, 2])


@pytest.mark.parametrize(("epsilon", "allowed"), [(0.03, 3), (0.29, 29), (0.07, 7), (0.999, 99)])
def test_exactly_epsilon_may_be_lost(epsilon, allowed):
    """Of 100 images; in binary fractions 0.29 * 100 is less than 29."""
    truth = np.repeat(np.arange(CLASSES), 100)
    judge = Judge(split_of([100] * CLASSES, truth), usage_of([2]), epsilon)
    images = np.arange(100, dtype=np.float32)[:, None]
    for lost in (allowed, allowed + 1):
        cut = Cut(np.where(np.arange(100) < 100 - lost, 2, 0))
        assert judge.failing(cut, images) == (None if lost == allowed else 2)


def test_what_failed_last_is_asked_first_the_next_time():
    truth = np.repeat(np.arange(CLASSES), 160)
    split = split_of([160] * CLASSES, truth)
    judge = Judge(split, usage_of(range(CLASSES)), 0.03)
    wrong = truth.copy()
    wrong[480 + 100 : 480 + 110] = 0  # class 3, late among its images
    first, second = Cut(wrong), Cut(wrong)
    assert judge.failing(first, judge.inputs) == judge.failing(second, judge.inputs) == 3
    assert len(first.asked) > 4 * 100
    assert len(second.asked) < 40


def test_where_margins_were_small_a_class_is_found_to_fail_before_others_are_gone_through():
    truth = np.repeat(np.arange(CLASSES), 160)
    judge = Judge(split_of([160] * CLASSES, truth), usage_of(range(CLASSES)), 0.03)
    doubtful = np.zeros(len(truth), bool)
    doubtful[480 + 50 : 480 + 70] = True  # of class 3
    assert judge.failing(Cut(truth, np.where(doubtful, 0.1, 1.0)), judge.inputs) is None
    cut = Cut(np.where(doubtful, 0, truth))
    assert judge.failing(cut, judge.inputs) == 3
    assert len(cut.asked) < 160 + 40  # all of the class that goes first, and not those of three others


def test_many_classes_are_not_all_run_at_once():
    truth = np.repeat(np.arange(200), 50)
    judge = Judge(split_of([50] * 200, truth), usage_of(range(200)), 0.03)
    cut = Cut(truth)
    assert judge.failing(cut, judge.inputs) is None
    assert len(cut.asked) > 200 * 48
    assert cut.largest < 600


def test_a_class_that_may_lose_everything_is_not_run():
    truth = np.repeat(np.arange(CLASSES), 20)
    judge = Judge(split_of([20] * CLASSES, np.where(truth == 2, 0, truth)), usage_of([1, 2]), 0.1)
    cut = Cut(np.where(truth == 1, 1, 0))
    assert judge.failing(Cut(np.zeros(100, int)), judge.inputs) == 1
    assert judge.failing(cut, judge.inputs) is None
    assert {truth[image] for image in cut.asked} == {1}


def test_a_cut_that_is_wrong_throughout_is_known_from_few_images():
    truth = np.repeat(np.arange(CLASSES), 160)
    judge = Judge(split_of([160] * CLASSES, truth), usage_of([1, 4]), 0.03)
    cut = Cut(np.zeros(320, int))
    assert judge.failing(cut, judge.inputs) == 1
    assert len(cut.asked) < 40


def test_counts_are_paired():
    base = [0, 0, 1, 1, 1, 0, 2, 3, 4]
    split = split_of([3, 3, 1, 1, 1], base)
    counts = paired_counts(split, usage_of([0, 1]), Cut([0, 1, 0, 1, 0, 1, 2, 3, 4]))
    assert (counts[0].images, counts[0].base, counts[0].newly_wrong, counts[0].newly_right) == (3, 2, 1, 1)
    assert (counts[1].images, counts[1].base, counts[1].newly_wrong, counts[1].newly_right) == (3, 2, 1, 1)
    unchanged = paired_counts(split, usage_of([0]), None)[0]
    assert (unchanged.base, unchanged.newly_wrong, unchanged.newly_right) == (2, 0, 0)
