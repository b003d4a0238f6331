"""What the service has named can be fetched: from every worker, after a restart, and after damage."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cloud_pruner.errors import StateError
from cloud_pruner.personalize import Personalizer
from cloud_pruner.released_files import ReleasedFiles
from cloud_pruner.requests import PruneRequest
from cloud_pruner.state import Database, FileStore
from edge_runtime.digests import check_digest, digest_of
from edge_runtime.wire import PlanFile


@pytest.fixture(scope="module")
def answers(digits_profile):
    personalizer = Personalizer(digits_profile)
    return [
        personalizer.personalize(PruneRequest({name: 1.0}, guarantee="empirical")) for name in ("one", "two", "three")
    ]


@pytest.fixture
def open_files(digits_profile, tmp_path):
    """What each worker has: files of its own, over the same database and folder."""
    opened = []

    def open_one(bases=(digits_profile.base,), **options):
        opened.append(Database.open(f"sqlite:///{tmp_path / 'state.sqlite'}"))
        return ReleasedFiles(bases, FileStore(str(tmp_path / "files")), opened[-1], **options)

    yield open_one
    for database in opened:
        database.close()


@pytest.fixture
def files(open_files):
    return open_files()


def all_there(files, answers):
    for answer in answers:
        check_digest(files.get(answer.manifest.digest), answer.manifest.digest, "cut")
        assert files.get(answer.manifest.plan.digest) == answer.plan


def test_another_worker_serves_what_one_has_named(open_files, files, answers):
    other = open_files()
    for answer in answers:
        files.release(answer)
    all_there(files, answers)
    all_there(other, answers)
    all_there(open_files(cuts_bytes=0), answers)


def test_the_base_is_always_there(files, digits_profile):
    assert files.get(digits_profile.base.digest) == digits_profile.base.content


def test_what_nobody_has_named_is_not(files, answers):
    assert files.get("0" * 64) is None
    assert files.get(answers[0].manifest.digest) is None
    assert files.get(answers[0].manifest.plan.digest) is None


def test_cuts_of_a_base_that_is_not_served_any_more_are_not_made(open_files, files, answers):
    files.release(answers[0])
    later = open_files(bases=())
    assert later.get(answers[0].manifest.digest) is None
    assert later.get(answers[0].manifest.plan.digest) == answers[0].plan


def test_a_cut_that_two_plans_make(open_files, files, answers):
    first, plan = answers[0], b"the plan of another base, from which the same is left"
    other = replace(first.manifest, base="0ba5" * 16, plan=PlanFile(digest_of(plan), len(plan)))
    files.release(first)
    files.release(replace(first, manifest=other, plan=plan))
    for worker in (files, open_files()):
        all_there(worker, answers[:1])
        assert worker.get(digest_of(plan)) == plan


def test_a_damaged_plan_is_put_again_when_it_is_named_again(files, answers, tmp_path):
    answer = answers[0]
    files.release(answer)
    (tmp_path / "files" / answer.manifest.plan.digest).write_bytes(answer.plan[:-1])
    assert files.get(answer.manifest.digest) is None
    assert files.get(answer.manifest.plan.digest) is None
    files.release(answer)
    all_there(files, answers[:1])


def test_what_cannot_be_kept_is_not_named(files, answers, tmp_path):
    files.release(answers[0])
    (tmp_path / "files").rename(tmp_path / "away")
    files.release(answers[0])  # it is there already, or will be again
    with pytest.raises(StateError, match="its file capnn-files is not there"):
        files.release(answers[1])
    (tmp_path / "away").rename(tmp_path / "files")
    files.release(answers[1])
    all_there(files, answers[:2])


def test_without_the_database_nothing_new_is_named(files, answers, tmp_path):
    (tmp_path / "state.sqlite").rename(tmp_path / "away")
    with pytest.raises(StateError, match="unable to open database file"):
        files.release(answers[0])
    (tmp_path / "away").rename(tmp_path / "state.sqlite")
    files.release(answers[0])
    all_there(files, answers[:1])
