"""Wishes are measured once, on profiles that are made once, by one process or several."""

from __future__ import annotations

import pytest

from benchmarks.experiments.lab import Lab, LabError, Settings, locked
from benchmarks.experiments.network_profiles import image_counts
from benchmarks.experiments.wishes import Wish, class_sets, equal_weights, users, usual_depth
from tests.benchmarks_experiments.digits_lab import digits_lab

TWO = ("three", "eight")


@pytest.fixture
def lab(digits_network, tmp_path):
    return digits_lab(digits_network, tmp_path / "work")


def test_a_wish_gives_what_its_cut_takes_and_is_worth(lab):
    wishes = [
        Wish("digits", "L", TWO, (1, 1)),
        Wish("digits", "M", TWO, (3, 1), depth=6),
        Wish("digits", "restricted", TWO, (1, 1)),
        Wish("digits", "L", TWO, (1, 1), epsilon=0.4, guarantee="certified"),
    ]
    ours, papers, restricted, certified = lab.measure(wishes, "cuts")
    assert [row["row"] for row in (ours, papers, restricted, certified)] == [1, 2, 3, 4]
    assert (ours["network"], ours["method"], ours["k"], ours["depth"]) == ("digits", "L", 2, None)
    assert (papers["classes"], papers["weights"], papers["depth"]) == ("three;eight", "0.75;0.25", 6)
    assert ours["relative_size"] < papers["relative_size"] <= 1.0
    assert ours["reduction"] == 1.0 - ours["relative_size"]
    for row in (ours, papers, restricted, certified):
        assert row["gain"] == row["top1"] - row["base_top1"]
        assert row["beyond_share"] == row["beyond_epsilon"] / 2
    assert (restricted["relative_size"], restricted["seconds"]) == (1.0, None)
    assert restricted["top1"] >= restricted["base_top1"]
    assert [row["certified"] for row in (ours, papers, certified)] == [None, None, True]
    assert certified["relative_size"] < 1.0


def test_what_was_measured_is_read_back_and_users_whom_a_method_takes_for_one_share_a_row(lab, tmp_path):
    equal, other = Wish("digits", "L", TWO, (1, 1)), Wish("digits", "L", TWO[::-1], (9, 1))
    (row,) = {tuple(row.items()) for row in lab.measure([equal, other], "cuts")}
    told = []
    again = Lab(
        tmp_path / "work", references=lab._references, tell=lambda what, done, total: told.append((what, done, total))
    )
    assert [tuple(one.items()) for one in again.measure([other], "cuts")] == [row]
    assert told == []


def test_several_processes_give_the_same_rows_as_one(lab, digits_network, tmp_path):
    wishes = [Wish("digits", method, TWO, (1, 1), depth=6) for method in ("B", "W", "L1")]
    other = digits_lab(digits_network, tmp_path / "other")
    other.jobs = 2

    def rows(lab):
        return [
            {name: value for name, value in row.items() if name != "seconds"} for row in lab.measure(wishes, "cuts")
        ]

    assert rows(other) == rows(lab)


def test_a_profile_is_made_of_unseen_images_in_three_parts(lab):
    profile = lab.profile("digits", depth=6)
    assert {name: len(split.labels) // 10 for name, split in profile.splits.items()} == {
        "profile": 90,
        "select": 40,
        "certify": 8,
        "report": 32,
    }
    assert profile.taylor


@pytest.mark.parametrize("unseen", [80, 100, 1000, 1500, 6000])
def test_splits_fit_the_images_there_are(unseen):
    counts = image_counts(unseen)
    assert sum(counts.values()) <= unseen
    assert min(counts.values()) >= 1


def test_networks_that_are_not_there_are_noted_and_left_out(lab):
    assert [one.name for one in lab.references("absent", "digits")] == ["digits"]
    assert lab.left_out == {"absent": "its weights are not here"}
    with pytest.raises(LabError, match=r"none of its networks is here \(absent: its weights are not here\)"):
        lab.references("absent")


def test_only_networks_that_are_asked_for_are_looked_at(digits_network, tmp_path):
    lab = digits_lab(digits_network, tmp_path / "work", networks=("absent",))
    with pytest.raises(LabError, match="digits: not asked for"):
        lab.references("digits")
    with pytest.raises(LabError, match="network 'vgg' is unknown: choose among digits, absent"):
        digits_lab(digits_network, tmp_path / "other", networks=("vgg",))


def test_a_network_of_ones_own_is_measured_like_the_others(lab, tmp_path):
    reference = lab.references("digits")[0]
    lab.derive("pruned", reference, reference.build)
    (tmp_path / "work" / "networks" / "pruned").symlink_to(tmp_path / "work" / "networks" / "digits")
    (row,) = lab.measure([Wish("pruned", "W", TWO, (1, 1))], "cuts")
    assert row["network"] == "pruned"


def test_a_work_folder_is_for_one_process(tmp_path):
    with locked(tmp_path), pytest.raises(LabError, match="another process works there"), locked(tmp_path):
        pass
    with locked(tmp_path):
        pass


def test_class_sets_differ_and_do_not_depend_on_how_many_are_asked_for():
    sets = class_sets("abcde", 2, 4, seed=1)
    assert len(set(sets)) == 4
    assert class_sets("abcde", 2, 99, seed=1)[:4] == sets
    assert len(class_sets("abcde", 2, 99, seed=1)) == 10
    assert class_sets("abcde", 5, 3, seed=1) == [tuple("abcde")]
    many = class_sets([str(number) for number in range(1000)], 3, 50, seed=1)
    assert len(set(many)) == 50
    assert all(len(set(one)) == 3 for one in many)


def test_every_other_user_has_equal_weights():
    drawn = users("abc", 3, 4, seed=0)
    assert [weights == equal_weights(3) for _, weights in drawn] == [True, False, True, False]
    assert all(abs(sum(weights) - 1) < 1e-9 for _, weights in drawn)
    assert drawn[1] != drawn[3]


def test_the_papers_methods_prune_the_last_six_layers():
    assert {method: usual_depth(method) for method in ("B", "W", "M", "L", "OCAP")} == {
        "B": 6,
        "W": 6,
        "M": 6,
        "L": None,
        "OCAP": None,
    }


def test_settings_are_those_of_a_full_run_by_default():
    assert Settings() == Settings(quick=False, seed=0, networks=None, users=None)


@pytest.mark.parametrize(
    ("settings", "users"),
    [(Settings(), 50), (Settings(quick=True), 3), (Settings(users=7), 7), (Settings(quick=True, users=7), 7)],
    ids=["full", "quick", "asked for", "quick and asked for"],
)
def test_users_are_as_many_as_were_asked_for_or_as_usual(tmp_path, settings, users):
    assert Lab(tmp_path, settings).users({True: 3, False: 50}) == users


def test_a_wish_without_a_weight_for_each_class_is_refused():
    with pytest.raises(ValueError, match="2 classes with 1 weights"):
        Wish("digits", "L", TWO, (1.0,))
