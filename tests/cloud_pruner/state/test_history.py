"""Which cuts devices were named, what of it is news, and what the fleet comes to."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import insert

from cloud_pruner.personalized import Personalized
from cloud_pruner.state import Devices, History
from cloud_pruner.state.tables import BASES, now
from edge_runtime.preprocessing import Preprocessing
from edge_runtime.wire import Manifest, PlanFile


def answer(cut="c0de", usage=None, relative_size=0.4, guarantee="certified", classes=("cat", "dog")):
    """An answer as a search gives it, without its files."""
    manifest = Manifest(
        digest=cut.ljust(64, "0"),
        bytes=400,
        base="ba5e" * 16,
        profile="9c0f" * 16,
        classes=classes,
        preprocessing=Preprocessing(8, 8, "grey"),
        usage=usage or {"cat": 1.0},
        variant="L",
        epsilon=0.03,
        guarantee=guarantee,
        relative_size=relative_size,
        parameters=56,
        per_class={},
        cache_tier="search",
        plan=PlanFile(cut.ljust(64, "1"), 20),
    )
    return Personalized(manifest, b"plan", None, {}, "dog: too few images", {}, relative_size, (), 0.1)


def test_a_cut_is_remembered_with_its_evidence(database, elsewhere):
    given = answer()
    History(database).record("porch", given)
    (record,) = History(elsewhere).of("porch")
    assert record.manifest == given.manifest
    assert (record.device, record.base, record.profile) == ("porch", given.manifest.base, "9c0f" * 16)
    assert record.shortfall == "dog: too few images"
    assert now() - record.at < timedelta(minutes=5)


def test_a_repeat_is_no_news(database, elsewhere):
    here, there = History(database), History(elsewhere)
    for history in (here, there, here):
        history.record("porch", answer())
    assert len(here.of("porch")) == 1
    there.record("porch", answer(usage={"cat": 0.5, "dog": 0.5}))
    there.record("porch", answer("beef"))
    here.record("porch", answer("beef"))
    assert [record.manifest.digest[:4] for record in here.of("porch")] == ["beef", "c0de", "c0de"]
    assert [record.manifest.digest[:4] for record in here.of("porch", 1)] == ["beef"]
    assert here.of("yard") == []


def test_the_same_from_many_at_once_is_one_row(database):
    start = threading.Barrier(8)

    def record(history):
        start.wait()
        history.record("porch", answer())

    threads = [threading.Thread(target=record, args=(History(database),)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(History(database).of("porch")) == 1


def test_the_same_cut_of_another_base_is_news(database):
    first, history = answer(), History(database)
    other = replace(first.manifest, base="0ba5" * 16, plan=PlanFile("9" * 64, 30))
    history.record("porch", first)
    history.record("porch", replace(first, manifest=other))
    assert [record.manifest for record in history.of("porch")] == [other, first.manifest]
    assert history.named_to("porch", "9" * 64)


def test_a_device_is_told_from_another_by_what_was_named_to_it(database, elsewhere):
    History(database).record("porch", answer())
    for history in (History(database), History(elsewhere)):
        for digest in ("c0de".ljust(64, "0"), "c0de".ljust(64, "1")):
            assert history.named_to("porch", digest)
            assert history.named_to("porch", digest)
            assert not history.named_to("yard", digest)
        assert not history.named_to("porch", "beef".ljust(64, "0"))


def test_of_each_device_the_last_are_kept(database):
    history = History(database)
    history.record("yard", answer())
    for number in range(105):
        history.record("porch", answer(f"{number:x}a"))
    assert len(history.of("porch", 1000)) == 100
    assert history.of("porch")[0].manifest.digest.startswith("68a")
    assert len(history.of("yard")) == 1


def test_names_that_nobody_checked(database):
    history = History(database)
    for name in ("<b>\0\n\ud800</b>", "n" * 1000, ""):
        history.record(name, answer())
        assert len(history.of(name)) == 1
        assert history.named_to(name, answer().manifest.digest)


def test_the_fleet(database):
    with database.writing() as connection:
        connection.execute(insert(BASES).values(digest="ba5e" * 16, bytes=1000))
    devices, history = Devices(database), History(database)
    for name, model in (("porch", "birds"), ("yard", "birds"), ("shed", ""), ("gone", "")):
        devices.register(name, model)
    devices.revoke("gone")
    devices.saw("porch")
    devices.close()
    history.record("porch", answer("c0de", relative_size=0.9))
    history.record("porch", answer("beef", relative_size=0.2))
    history.record("yard", answer("beef", relative_size=0.4, guarantee="empirical"))
    history.record("visitor", answer("beef", relative_size=0.6))
    fleet = history.fleet()
    assert (fleet.devices, fleet.seen_last_day) == (4, 2)
    assert fleet.devices_by_model == {"birds": 2, "": 2}
    assert fleet.cuts == 4
    assert fleet.mean_relative_size == pytest.approx(0.4)
    assert fleet.bytes_saved == 3 * 600
    assert fleet.certified_share == pytest.approx(2 / 3)
    assert [record.device for record in fleet.newest] == ["visitor", "yard", "porch", "porch"]


def test_an_empty_fleet(database):
    fleet = History(database).fleet()
    assert (fleet.devices, fleet.cuts, fleet.mean_relative_size, fleet.bytes_saved) == (0, 0, 1.0, 0)
