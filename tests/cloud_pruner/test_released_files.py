"""What the service keeps of the files that it has named: bounded, and a cut can be made again from its plan."""

from __future__ import annotations

import pytest

from cloud_pruner.personalize import Personalizer
from cloud_pruner.released_files import ReleasedFiles
from cloud_pruner.requests import PruneRequest
from edge_runtime.digests import check_digest


@pytest.fixture(scope="module")
def answers(digits_profile):
    personalizer = Personalizer(digits_profile)
    return [
        personalizer.personalize(PruneRequest({name: 1.0}, guarantee="empirical")) for name in ("one", "two", "three")
    ]


def test_a_cut_that_memory_has_no_room_for_is_made_again(digits_profile, answers):
    files = ReleasedFiles(digits_profile.base, cuts_bytes=0)
    for answer in answers:
        files.release(answer)
    for answer in answers:
        check_digest(files.get(answer.manifest.digest), answer.manifest.digest, "cut")
        assert files.get(answer.manifest.plan.digest) == answer.plan


def test_what_was_not_asked_for_the_longest_goes_first(digits_profile, answers):
    first, second, third = answers
    files = ReleasedFiles(digits_profile.base, plans_bytes=len(first.plan) + len(second.plan), cuts_bytes=0)
    files.release(first)
    files.release(second)
    assert files.get(first.manifest.digest) is not None
    assert files.get(first.manifest.plan.digest) is not None
    files.release(third)
    assert files.get(second.manifest.digest) is None
    assert files.get(second.manifest.plan.digest) is None
    assert files.get(third.manifest.digest) == third.model


def test_the_base_is_always_there(digits_profile):
    files = ReleasedFiles(digits_profile.base, plans_bytes=0, cuts_bytes=0)
    assert files.get(digits_profile.base.digest) == digits_profile.base.content
