"""What is served of a model is one row that every process sees and one at a time changes."""

from __future__ import annotations

import pytest

from cloud_pruner.errors import NameTakenError, RequestError, UnknownNameError
from cloud_pruner.state import Rollout, Rollouts

OLD, NEW, THIRD = "01d" + "0" * 61, "4e3" + "0" * 61, "333" + "0" * 61


def test_the_first_profile_is_current(database, elsewhere):
    assert Rollouts(database).get("birds") is None
    served = Rollouts(database).begin("birds", OLD, NEW)
    assert served == Rollout("birds", OLD, None, 0.0)
    assert Rollouts(elsewhere).begin("birds", NEW, OLD) == served
    assert Rollouts(elsewhere).all() == {"birds": served}
    assert sorted(Rollouts(elsewhere).listed("birds")) == sorted([OLD, NEW])


def test_started_widened_and_finished(database, elsewhere):
    rollouts = Rollouts(database)
    rollouts.begin("birds", OLD, NEW)
    assert rollouts.start("birds", NEW[:12], 0.1) == Rollout("birds", OLD, NEW, 0.1)
    assert rollouts.widen("birds", 0.5) == Rollouts(elsewhere).get("birds") == Rollout("birds", OLD, NEW, 0.5)
    assert rollouts.start("birds", NEW, 0.2) == Rollout("birds", OLD, NEW, 0.2)
    assert rollouts.finish("birds") == Rollouts(elsewhere).get("birds") == Rollout("birds", NEW, None, 0.0)


def test_taken_back(database):
    rollouts = Rollouts(database)
    rollouts.begin("birds", OLD, NEW)
    rollouts.start("birds", NEW, 1.0)
    assert rollouts.take_back("birds") == rollouts.get("birds") == Rollout("birds", OLD, None, 0.0)


@pytest.mark.parametrize("share", [0.0, -0.1, 1.01, float("nan"), float("inf")])
def test_a_share_that_is_none(database, share):
    rollouts = Rollouts(database)
    rollouts.begin("birds", OLD, NEW)
    with pytest.raises(RequestError, match="is none: give one above 0, up to 1"):
        rollouts.start("birds", NEW, share)
    rollouts.start("birds", NEW, 0.1)
    with pytest.raises(RequestError, match="is none: give one above 0, up to 1"):
        rollouts.widen("birds", share)


def test_a_profile_that_cannot_be_tried(database):
    rollouts = Rollouts(database)
    rollouts.begin("birds", OLD, NEW)
    with pytest.raises(RequestError, match="'333333' is no profile of model birds: the settings list 01d0"):
        rollouts.start("birds", "333333", 0.1)
    with pytest.raises(RequestError, match="is no profile of model birds"):
        rollouts.start("birds", "", 0.1)
    with pytest.raises(RequestError, match=r"profile 01d000000000… is current for model birds"):
        rollouts.start("birds", OLD, 0.1)
    with pytest.raises(UnknownNameError, match="there is no model 'cats': those served are birds"):
        rollouts.start("cats", NEW, 0.1)
    assert rollouts.get("birds").candidate is None


def test_one_at_a_time(database):
    rollouts = Rollouts(database)
    rollouts.begin("birds", OLD, NEW, THIRD)
    rollouts.start("birds", NEW, 0.1)
    with pytest.raises(NameTakenError, match="birds has 4e3000000000… on trial: finish it, or take it back"):
        rollouts.start("birds", THIRD, 0.1)
    with pytest.raises(RequestError, match=r"0\.05 is less than the 0\.1 there is: take it back instead"):
        rollouts.widen("birds", 0.05)


def test_nothing_on_trial(database):
    rollouts = Rollouts(database)
    rollouts.begin("birds", OLD, NEW)
    for act in (rollouts.finish, rollouts.take_back, lambda model: rollouts.widen(model, 1.0)):
        with pytest.raises(UnknownNameError, match="birds has no profile on trial"):
            act("birds")


def test_what_the_settings_no_longer_list_is_not_served(database):
    rollouts = Rollouts(database)
    rollouts.begin("birds", OLD, NEW)
    rollouts.start("birds", NEW, 0.1)
    assert rollouts.begin("birds", OLD, THIRD) == Rollout("birds", OLD, None, 0.0)
    assert rollouts.begin("birds", THIRD) == rollouts.get("birds") == Rollout("birds", THIRD, None, 0.0)
