"""The daemon against a real cloud with real faults. Waiting is done by classifying on, until something has happened."""

from __future__ import annotations

import itertools
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from edge_runtime.config import CloudConfig, EdgeConfig, MonitorConfig, ProbationConfig
from edge_runtime.daemon import EdgeDaemon
from edge_runtime.errors import ConfigError, ModelFileError
from edge_runtime.slots import ModelSlots, StoredModel
from tests.edge_runtime.faults import Fault
from tests.edge_runtime.tiny_models import EAST, WEST, describe, picture

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.edge_runtime.cloud_simulator import CloudSimulator

PERIOD = 40
ON_PROBATION = 10
PICTURES = {label: picture(label) for label in (*WEST, *EAST)}


@pytest.fixture
def config(cloud: CloudSimulator, state: Path) -> EdgeConfig:
    return EdgeConfig(
        state,
        CloudConfig(cloud.url, (cloud.key.public,), timeout_s=20, retry_first_s=0.01, retry_max_s=0.05),
        monitor=MonitorConfig(period=PERIOD, audit_every=2),
        # What a tiny network's parameters say of its time is little.
        probation=ProbationConfig(images=ON_PROBATION, latency_factor=1000),
    )


def never_again(config: EdgeConfig) -> EdgeConfig:
    """Return settings with which a failure is the last one that a test sees."""
    return replace(config, cloud=replace(config.cloud, retry_first_s=3600, retry_max_s=3600))


def wait_for(condition: Callable[[], bool], step: Callable[[], object] = lambda: time.sleep(0.005)) -> None:
    """Repeat `step` until `condition`; fail after 60 s."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "what was waited for did not happen"
        step()


def user(daemon: EdgeDaemon, labels: tuple[str, ...]) -> Callable[[], object]:
    """Return a step that shows the daemon the next picture of a user who meets `labels`, evenly."""
    turns = itertools.cycle(labels)
    return lambda: daemon.classify(lambda classifier: classifier.classify(PICTURES[next(turns)]))


def show(daemon: EdgeDaemon, labels: tuple[str, ...], count: int) -> None:
    step = user(daemon, labels)
    for _ in range(count):
        step()


def counter(daemon: EdgeDaemon, name: str) -> int:
    return int(daemon.status()["counters"][name])


def model(daemon: EdgeDaemon) -> dict[str, Any]:
    fields = daemon.status()["model"]
    assert isinstance(fields, dict)
    return fields


def test_first_start_then_a_cut_then_another_when_usage_changes(
    config: EdgeConfig, cloud: CloudSimulator, base: StoredModel, west: StoredModel, east: StoredModel
):
    with EdgeDaemon(config) as daemon:
        wait_for(lambda: daemon.ready)
        assert model(daemon)["digest"] == base.manifest.digest
        assert model(daemon)["slot"] == "base"

        show(daemon, WEST, PERIOD)
        wait_for(lambda: counter(daemon, "swaps") == 1)
        assert model(daemon)["digest"] == west.manifest.digest
        assert model(daemon)["usage"] == pytest.approx(dict.fromkeys(WEST, 0.5))
        wait_for(lambda: daemon.status()["state"] == "probation")

        # Usage that stays is no reason to ask again.
        show(daemon, WEST, 4 * PERIOD)
        wait_for(lambda: daemon.status()["state"] == "monitoring")
        assert len(cloud.cut_requests) == 1
        assert counter(daemon, "rollbacks") == 0

        # The cut itself takes every picture of the east for one of the west; the audits tell.
        wait_for(lambda: counter(daemon, "swaps") == 2, user(daemon, EAST))
        assert model(daemon)["digest"] == east.manifest.digest
        assert cloud.cut_requests[-1].base == base.manifest.digest
        assert cloud.cut_requests[-1].usage.keys() >= set(EAST)
        assert counter(daemon, "failed") == 0


def test_a_cut_that_does_not_suit_its_user_is_taken_back(config: EdgeConfig, cloud: CloudSimulator, base: StoredModel):
    with EdgeDaemon(config) as daemon:
        wait_for(lambda: daemon.ready)
        show(daemon, WEST, PERIOD)
        wait_for(lambda: counter(daemon, "swaps") == 1)
        # Of what it was not made for, the cut is not sure at all.
        wait_for(lambda: counter(daemon, "rollbacks") == 1, user(daemon, EAST))

        assert model(daemon)["digest"] == base.manifest.digest
        assert "of its answers are doubtful" in daemon.status()["update"]["rolled_back"]
        assert counter(daemon, "failed") == 0


def test_no_classification_fails_or_waits_while_the_cloud_stalls_and_cuts_are_swapped(
    config: EdgeConfig, cloud: CloudSimulator
):
    """Two clients classify without a pause; the first request stalls while they are served many images."""
    errors: list[Exception] = []
    done = threading.Event()

    def client(daemon: EdgeDaemon) -> None:
        step = user(daemon, WEST)
        try:
            while not done.is_set():
                step()
        except Exception as error:  # noqa: BLE001 - whatever it is, it must reach the test
            errors.append(error)

    with EdgeDaemon(replace(config, cloud=replace(config.cloud, timeout_s=60))) as daemon:
        wait_for(lambda: daemon.ready)
        cloud.faults.append(Fault.STALL)
        clients = [threading.Thread(target=client, args=(daemon,), daemon=True) for _ in range(2)]
        for thread in clients:
            thread.start()
        cloud.wait_until(lambda: len(cloud.cut_requests) == 1)
        served = counter(daemon, "classified")
        wait_for(lambda: counter(daemon, "classified") >= served + 50)
        assert daemon.status()["state"] == "requesting"
        cloud.break_stalled()
        wait_for(lambda: counter(daemon, "swaps") >= 1)
        after = counter(daemon, "classified")
        wait_for(lambda: counter(daemon, "classified") >= after + 50)
        done.set()
        for thread in clients:
            thread.join()

        assert errors == []
        assert counter(daemon, "failed") == 0


def test_a_first_start_without_cloud_says_so_and_recovers(
    config: EdgeConfig, cloud: CloudSimulator, caplog: pytest.LogCaptureFixture
):
    cloud.go_away()

    with EdgeDaemon(config) as daemon:
        wait_for(lambda: daemon.status()["last_error"] is not None)
        assert not daemon.ready
        assert daemon.alive
        assert f"{cloud.url}/v1/keys: cannot be reached" in daemon.status()["last_error"]
        assert "no verified model" in caplog.text
        with pytest.raises(ModelFileError, match="no model yet"):
            daemon.classify(lambda classifier: classifier.classify(PICTURES["north-west"]))

        cloud.come_back()
        wait_for(lambda: daemon.ready)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (Fault.ERROR_500, "the search failed"),
        (Fault.WRONG_SIGNATURE, "the signature is not that of key"),
        (Fault.NO_TFLITE, "the interpreter refuses it"),
    ],
)
def test_a_failure_is_never_repeated_in_a_tight_loop(
    config: EdgeConfig, cloud: CloudSimulator, fault: Fault, message: str
):
    """What else may go wrong: test_hostile_cloud."""
    with EdgeDaemon(never_again(config)) as daemon:
        wait_for(lambda: daemon.ready)
        cloud.faults.append(fault)
        show(daemon, WEST, PERIOD)
        wait_for(lambda: daemon.status()["update"]["retry_in_s"] is not None)
        # Each of these periods wakes the updater.
        for _ in range(5):
            show(daemon, WEST, PERIOD)
            wait_for(lambda: daemon.status()["monitoring"]["counted"] < PERIOD)

        assert len(cloud.cut_requests) == 1
        assert message in daemon.status()["last_error"]
        assert 1800 - 60 < daemon.status()["update"]["retry_in_s"] <= 3600
        assert daemon.status()["state"] == "waiting"


def test_a_refusal_is_final_until_usage_changes(config: EdgeConfig, cloud: CloudSimulator):
    with EdgeDaemon(config) as daemon:
        wait_for(lambda: daemon.ready)
        cloud.faults.append(Fault.REFUSED)
        show(daemon, WEST, PERIOD)
        wait_for(lambda: daemon.status()["last_error"] is not None)
        show(daemon, WEST, PERIOD)
        wait_for(lambda: daemon.status()["monitoring"]["counted"] < PERIOD)
        assert "these classes cannot be served" in daemon.status()["last_error"]
        assert len(cloud.cut_requests) == 1

        wait_for(lambda: counter(daemon, "swaps") == 1, user(daemon, EAST))
        assert cloud.cut_requests[-1].usage.keys() == set(EAST)


def test_usage_that_returns_withdraws_the_wish(config: EdgeConfig, cloud: CloudSimulator):
    with EdgeDaemon(never_again(config)) as daemon:
        wait_for(lambda: daemon.ready)
        show(daemon, WEST, PERIOD)
        wait_for(lambda: counter(daemon, "swaps") == 1)
        wait_for(lambda: daemon.status()["state"] == "monitoring", user(daemon, WEST))
        cloud.go_away()

        wait_for(lambda: daemon.status()["state"] == "waiting", user(daemon, EAST))
        wait_for(lambda: daemon.status()["state"] == "monitoring", user(daemon, WEST))


def test_a_restart_without_cloud_serves_the_cut_and_counts_on(
    config: EdgeConfig, cloud: CloudSimulator, west: StoredModel
):
    with EdgeDaemon(config) as daemon:
        wait_for(lambda: daemon.ready)
        show(daemon, WEST, PERIOD)
        wait_for(lambda: counter(daemon, "swaps") == 1)
        show(daemon, WEST, 4)
    cloud.go_away()

    with EdgeDaemon(config) as daemon:
        assert daemon.ready
        assert model(daemon)["digest"] == west.manifest.digest
        assert daemon.status()["state"] == "probation"
        assert daemon.status()["monitoring"]["answers"] >= PERIOD
        show(daemon, WEST, 4 * ON_PROBATION)
        wait_for(lambda: daemon.status()["state"] == "monitoring")
        assert counter(daemon, "rollbacks") == 0


def test_a_damaged_active_slot_gives_way_to_the_other(
    config: EdgeConfig, cloud: CloudSimulator, base: StoredModel, west: StoredModel, east: StoredModel
):
    slots = ModelSlots(config.state)
    slots.install_base(base)
    slots.install_cut(west, "a")
    slots.install_cut(east, "b")
    (config.state / "b" / "model.tflite").write_bytes(east.content[:-1])

    with EdgeDaemon(config) as daemon:
        assert model(daemon)["digest"] == west.manifest.digest
        assert "b: model: digest is" in daemon.status()["last_error"]
        # The next cut goes to the damaged slot, not to the one that serves.
        wait_for(lambda: counter(daemon, "swaps") == 1, user(daemon, EAST))
        assert model(daemon)["slot"] == "b"

    assert ModelSlots(config.state).read("a") == west


def test_with_everything_damaged_the_base_is_fetched_again(
    config: EdgeConfig, cloud: CloudSimulator, base: StoredModel, west: StoredModel
):
    slots = ModelSlots(config.state)
    slots.install_base(base)
    slots.install_cut(west, "a")
    for slot in ("base", "a"):
        (config.state / slot / "model.tflite").write_bytes(b"damaged")
    cloud.go_away()

    with EdgeDaemon(config) as daemon:
        assert not daemon.ready
        cloud.come_back()
        wait_for(lambda: daemon.ready)
        assert model(daemon)["digest"] == base.manifest.digest


def test_a_cut_serves_while_its_damaged_base_is_fetched_again(
    config: EdgeConfig, cloud: CloudSimulator, base: StoredModel, west: StoredModel
):
    slots = ModelSlots(config.state)
    slots.install_base(base)
    slots.install_cut(west, "a")
    (config.state / "base" / "manifest.msgpack").unlink()
    cloud.go_away()

    with EdgeDaemon(replace(config, monitor=replace(config.monitor, audit_every=1))) as daemon:
        show(daemon, WEST, 3)
        assert daemon.status()["monitoring"]["answers"] == 0
        cloud.come_back()
        wait_for(lambda: daemon.status()["state"] == "monitoring")
        show(daemon, WEST, 3)
        assert daemon.status()["monitoring"]["answers"] == 3
        assert model(daemon)["digest"] == west.manifest.digest


def test_a_base_that_was_replaced_in_the_cloud_drops_the_cut(
    config: EdgeConfig, cloud: CloudSimulator, base: StoredModel, west: StoredModel, east_file: bytes
):
    slots = ModelSlots(config.state)
    slots.install_base(base)
    slots.install_cut(west, "a")
    (config.state / "base" / "model.tflite").unlink()
    cloud.base = describe(east_file)

    with EdgeDaemon(config) as daemon:
        wait_for(lambda: model(daemon)["digest"] == cloud.base.manifest.digest)
        assert model(daemon)["slot"] == "base"


def test_a_state_folder_that_cannot_be_written_costs_the_update_only(
    config: EdgeConfig, cloud: CloudSimulator, base: StoredModel
):
    with EdgeDaemon(config) as daemon:
        wait_for(lambda: daemon.ready)
        (config.state / "a").write_text("a file where a folder should be")
        show(daemon, WEST, PERIOD)
        wait_for(lambda: daemon.status()["last_error"] is not None)
        assert "File exists" in daemon.status()["last_error"]
        assert model(daemon)["digest"] == base.manifest.digest

        (config.state / "a").unlink()
        wait_for(lambda: counter(daemon, "swaps") == 1)


def test_two_daemons_do_not_share_a_state_folder(config: EdgeConfig):
    with EdgeDaemon(config), pytest.raises(ConfigError, match="in use by another"), EdgeDaemon(config):
        pass
