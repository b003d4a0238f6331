from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edge_runtime.config import MonitorConfig
from edge_runtime.monitor import UsageMonitor
from edge_runtime.observation import Observation
from edge_runtime.usage_change import WINDOW
from edge_runtime.usage_journal import UsageJournal
from tests.support.simulated_users import Population, SimulatedDevice, base_manifest, cut_manifest

if TYPE_CHECKING:
    from pathlib import Path

CLASSES = 20
BASE = base_manifest(CLASSES)
POPULATION = Population.synthetic(np.random.default_rng(0), CLASSES)
PERIOD = 250
USER = {2: 0.5, 5: 0.3, 11: 0.2}


def device(seed: int = 0, journal: UsageJournal | None = None, audit_every: int = 5, **settings) -> SimulatedDevice:
    monitor = UsageMonitor(MonitorConfig(period=PERIOD, **settings), journal)
    return SimulatedDevice(monitor, BASE, POPULATION, np.random.default_rng(seed), audit_every)


def observation(label: int, manifest=BASE) -> Observation:
    row = POPULATION.probabilities[np.flatnonzero(POPULATION.labels == label)[0]]
    return Observation(manifest, label, 0.9, 0.001, audited=False, probabilities=row)


def test_a_cut_is_asked_for_when_the_first_period_is_over():
    one = device()

    requests = one.meet(USER, PERIOD)

    assert requests == [(PERIOD, set(USER))]
    assert one.cut is not None
    assert sum(one.cut.usage.values()) == pytest.approx(1, abs=0.1)
    assert all(round(weight / 0.05) == pytest.approx(weight / 0.05) for weight in one.cut.usage.values())


def test_a_new_class_is_asked_for_while_a_cut_serves():
    one = device()
    one.meet(USER, 2 * PERIOD)

    requests = one.meet({2: 0.45, 5: 0.27, 11: 0.18, 7: 0.1}, 1500)

    assert requests
    assert requests[-1][1] == {2, 5, 11, 7}


def test_a_user_who_stays_the_same_asks_no_more():
    one = device()
    one.meet(USER, PERIOD)

    assert one.meet(USER, 20 * PERIOD) == []


def test_without_audits_a_cut_s_answers_say_nothing():
    one = device(audit_every=10**9)
    one.meet(USER, PERIOD)

    assert one.meet({7: 0.5, 8: 0.5}, 4 * PERIOD) == []


def test_never_means_that_nothing_is_asked_for_but_usage_is_still_seen():
    one = device(upload="never")

    assert one.meet(USER, 3 * PERIOD) == []
    assert one.monitor.status()["usage"].keys() == {f"class {label}" for label in USER}


def test_the_same_is_asked_again_until_a_cut_for_it_serves():
    one = device()
    one.meet(USER, PERIOD - 1)
    wishes = [one.monitor.decide() for _ in range(2 * PERIOD) if one.monitor.observe(observation(2))]

    assert len(wishes) == 2
    assert wishes[0] is not None
    assert wishes[0].keys() == wishes[1].keys()  # type: ignore[union-attr]


def test_what_was_refused_is_not_asked_again_until_other_classes_are_in_use():
    one = device()
    one.audit_every = 1
    one.meet(USER, PERIOD)
    one.monitor.serve(BASE, None)
    one.monitor.refused(one.cut.usage)  # type: ignore[union-attr]
    one.cut = None

    assert one.meet(USER, PERIOD) == []
    assert one.meet({2: 0.4, 5: 0.2, 11: 0.2, 7: 0.2}, 2 * PERIOD)


def test_answers_stay_when_a_cut_comes_and_go_when_the_base_does():
    one = device()
    one.meet(USER, PERIOD)
    assert one.monitor.status()["answers"] == PERIOD

    other = replace(BASE, digest="f" * 64, base="f" * 64)
    one.monitor.serve(other, None)

    assert one.monitor.status() == {"counted": 0, "period": PERIOD, "answers": 0, "usage": {}}
    one.monitor.observe(observation(2))  # of the former base, still under way when the new one came
    assert one.monitor.status()["answers"] == 0


def test_nothing_is_decided_before_a_period_is_over():
    monitor = UsageMonitor(MonitorConfig(period=3), None)
    assert monitor.decide() is None
    monitor.serve(BASE, None)
    assert not monitor.observe(observation(2))
    assert monitor.decide() is None
    assert not monitor.observe(observation(2))
    assert monitor.observe(observation(2))
    assert monitor.decide() == {"class 2": 1.0}
    assert monitor.status()["counted"] == 0


def test_usage_survives_a_restart(tmp_path: Path):
    path = tmp_path / "usage.journal"
    first = device(journal=UsageJournal(path))
    first.meet(USER, PERIOD - 10)
    first.monitor.close()

    second = device(journal=UsageJournal(path))

    assert second.monitor.status()["counted"] == PERIOD - 10
    assert second.meet(USER, 10) == [(10, set(USER))]
    second.monitor.close()


def test_a_damaged_journal_is_said_and_usage_counted_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    path = tmp_path / "usage.journal"
    path.write_bytes(b"\0" * 1000)

    one = device(journal=UsageJournal(path))

    assert "is damaged: usage is counted anew" in caplog.text
    assert one.monitor.status()["answers"] == 0
    one.monitor.close()


def test_a_journal_that_cannot_be_read_stops_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    (tmp_path / "usage.journal").mkdir()

    one = device(journal=UsageJournal(tmp_path / "usage.journal"))

    assert "usage is counted anew" in caplog.text
    assert one.meet(USER, PERIOD)
    one.monitor.close()


def test_a_weighed_cut_gives_way_when_weights_change():
    one = device()
    one.audit_every = 1
    one.cut = cut_manifest(BASE, {"class 2": 0.9, "class 5": 0.1}, variant="W")
    one.monitor.serve(BASE, one.cut)

    ((_, classes), *_) = one.meet({2: 0.2, 5: 0.8}, WINDOW + PERIOD)

    assert classes == {2, 5}
    assert one.cut.usage["class 5"] > 0.6


def test_threads_lose_no_answers():
    monitor = UsageMonitor(MonitorConfig(period=10**6), None)
    monitor.serve(BASE, None)
    one = observation(2)
    threads = [threading.Thread(target=lambda: [monitor.observe(one) for _ in range(2000)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert monitor.status()["counted"] == 8000
    assert monitor.status()["answers"] == WINDOW
