"""The daemon against a real cloud with real faults. Waiting is done by classifying on, until something has happened."""

from __future__ import annotations

import itertools
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from edge_runtime.config import EdgeConfig
from edge_runtime.daemon import SAVE_EVERY, EdgeDaemon
from edge_runtime.errors import ConfigError, ModelFileError
from edge_runtime.slots import ModelSlots, StoredModel
from edge_runtime.updater import Backoff
from tests.edge_runtime.cloud_simulator import CloudSimulator, Fault
from tests.edge_runtime.tiny_models import EAST, WEST, describe, picture

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PERIOD = 40
PICTURES = {label: picture(label) for label in (*WEST, *EAST)}


@pytest.fixture
def config(cloud: CloudSimulator, state: Path) -> EdgeConfig:
    return EdgeConfig(
        cloud=cloud.url,
        state=state,
        period=PERIOD,
        audit_every=4,
        timeout_s=10,
        retry_first_s=0.01,
        retry_max_s=0.05,
    )


def wait_for(condition: Callable[[], bool], step: Callable[[], object] = lambda: time.sleep(0.005)) -> None:
    """Repeat `step` until `condition`; fail after 30 s."""
    deadline = time.monotonic() + 30
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
    # Which images are audited is chance: 40 of them put a usage of 1/2 beyond 0.4 of itself once in a million periods.
    with EdgeDaemon(replace(config, change=0.4)) as daemon:
        wait_for(lambda: daemon.ready)
        assert model(daemon)["digest"] == base.manifest.digest
        assert model(daemon)["slot"] == "base"

        show(daemon, WEST, PERIOD)
        wait_for(lambda: counter(daemon, "swaps") == 1)
        assert model(daemon)["digest"] == west.manifest.digest
        assert model(daemon)["usage"] == pytest.approx(dict.fromkeys(WEST, 0.5))

        # Usage that stays is no reason to ask again: two more periods, of which one image in four counts.
        show(daemon, WEST, 2 * 4 * PERIOD)
        wait_for(lambda: daemon.status()["monitoring"]["counted"] < PERIOD)
        assert len(cloud.cut_requests) == 1

        # The cut itself takes every picture of the east for one of the west; the audits tell.
        wait_for(lambda: counter(daemon, "swaps") == 2, user(daemon, EAST))
        assert cloud.cut_requests[-1].base == base.manifest.digest
        assert cloud.cut_requests[-1].usage.keys() >= set(EAST)
        assert counter(daemon, "failed") == 0
        assert daemon.status()["last_error"] is None


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

    with EdgeDaemon(replace(config, timeout_s=60)) as daemon:
        wait_for(lambda: daemon.ready)
        cloud.faults.append(Fault.STALL)
        clients = [threading.Thread(target=client, args=(daemon,), daemon=True) for _ in range(2)]
        for thread in clients:
            thread.start()
        cloud.wait_until(lambda: len(cloud.cut_requests) == 1)
        served = counter(daemon, "classified")
        wait_for(lambda: counter(daemon, "classified") >= served + 50)
        assert daemon.status()["state"] == "asking for a cut"
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
        assert f"{cloud.url}/v1/base: cannot be reached" in daemon.status()["last_error"]
        assert "no verified model" in caplog.text
        with pytest.raises(ModelFileError, match="no model yet"):
            daemon.classify(lambda classifier: classifier.classify(PICTURES["north-west"]))

        cloud.come_back()
        wait_for(lambda: daemon.ready)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (Fault.ERROR_500, "the search failed"),
        (Fault.OVERLOADED, "answered 429"),
        (Fault.TRUNCATED, "cannot be reached"),
        (Fault.GARBAGE, "message is"),
        (Fault.FLIPPED_BIT, "digest is"),
        (Fault.NO_MODEL, "holds no model file"),
        (Fault.NO_TFLITE, "the interpreter refuses it"),
        (Fault.OTHER_BASE, "was cut from another base"),
        (Fault.OTHER_CLASSES, "has other classes"),
        (Fault.OTHER_USAGE, "not made for north-west, south-west"),
        (Fault.OTHER_CERTIFICATE, "certificate: is of model 0000"),
    ],
)
def test_the_base_serves_on_through_a_fault_and_the_cut_comes_with_the_next_try(
    config: EdgeConfig, cloud: CloudSimulator, base: StoredModel, west: StoredModel, fault: Fault, message: str
):
    with EdgeDaemon(config) as daemon:
        wait_for(lambda: daemon.ready)
        cloud.faults.append(fault)
        show(daemon, WEST, PERIOD)
        cloud.wait_until(lambda: len(cloud.cut_requests) == 2)
        wait_for(lambda: counter(daemon, "swaps") == 1)

        assert message in daemon.status()["last_error"]
        assert model(daemon)["digest"] == west.manifest.digest
        assert len(cloud.cut_requests) == 2


@pytest.mark.parametrize("fault", [Fault.FLIPPED_BIT, Fault.NO_TFLITE, Fault.ERROR_500])
def test_a_failure_is_never_repeated_in_a_tight_loop(config: EdgeConfig, cloud: CloudSimulator, fault: Fault):
    with EdgeDaemon(replace(config, retry_first_s=3600, retry_max_s=3600)) as daemon:
        wait_for(lambda: daemon.ready)
        cloud.faults.append(fault)
        show(daemon, WEST, PERIOD)
        wait_for(lambda: daemon.status()["retry_in_s"] is not None)
        # Each of these periods wakes the updater several times.
        for _ in range(5):
            show(daemon, WEST, PERIOD)
            wait_for(lambda: daemon.status()["monitoring"]["counted"] < PERIOD)

        assert len(cloud.cut_requests) == 1
        assert 1800 - 60 < daemon.status()["retry_in_s"] <= 3600
        assert daemon.status()["state"] == "waiting to ask for a cut"


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

        show(daemon, EAST, PERIOD)
        wait_for(lambda: counter(daemon, "swaps") == 1)
        assert len(cloud.cut_requests) == 2


def test_usage_that_returns_withdraws_the_wish(config: EdgeConfig, cloud: CloudSimulator):
    config = replace(config, audit_every=1, retry_first_s=3600, retry_max_s=3600)
    with EdgeDaemon(config) as daemon:
        wait_for(lambda: daemon.ready)
        show(daemon, WEST, PERIOD)
        wait_for(lambda: counter(daemon, "swaps") == 1)
        cloud.go_away()

        show(daemon, EAST, PERIOD)
        wait_for(lambda: daemon.status()["state"] == "waiting to ask for a cut")
        show(daemon, WEST, PERIOD)
        wait_for(lambda: daemon.status()["state"] == "monitoring")


def test_a_restart_without_cloud_serves_the_cut_and_counts_on(
    config: EdgeConfig, cloud: CloudSimulator, west: StoredModel
):
    with EdgeDaemon(config) as daemon:
        wait_for(lambda: daemon.ready)
        show(daemon, WEST, PERIOD)
        wait_for(lambda: counter(daemon, "swaps") == 1)
        show(daemon, WEST, 4 * 5)
    cloud.go_away()

    with EdgeDaemon(config) as daemon:
        assert daemon.ready
        assert model(daemon)["digest"] == west.manifest.digest
        assert daemon.status()["monitoring"]["counted"] == 5
        show(daemon, WEST, 4)
        assert daemon.status()["monitoring"]["counted"] == 6


def test_counts_are_written_on_the_way_for_a_power_cut(config: EdgeConfig):
    from edge_runtime.monitor import load_counts

    with EdgeDaemon(replace(config, period=10 * SAVE_EVERY)) as daemon:
        wait_for(lambda: daemon.ready)
        digest = model(daemon)["digest"]
        show(daemon, WEST, SAVE_EVERY)
        wait_for(lambda: sum(load_counts(config.state / "usage.msgpack", digest).values()) == SAVE_EVERY)


def test_damaged_counts_cost_the_period_and_nothing_else(config: EdgeConfig):
    with EdgeDaemon(config) as daemon:
        wait_for(lambda: daemon.ready)
    (config.state / "usage.msgpack").write_bytes(b"damaged")

    with EdgeDaemon(config) as daemon:
        assert daemon.ready
        assert "counting starts from zero" in daemon.status()["last_error"]


def test_a_damaged_active_slot_gives_way_to_the_other(
    config: EdgeConfig, cloud: CloudSimulator, base: StoredModel, west: StoredModel, east: StoredModel
):
    slots = ModelSlots(config.state)
    slots.install_base(base)
    slots.install_cut(west, "a")
    slots.install_cut(east, "b")
    (config.state / "b" / "model.tflite").write_bytes(east.content[:-1])

    with EdgeDaemon(replace(config, audit_every=1)) as daemon:
        assert model(daemon)["digest"] == west.manifest.digest
        assert "b: model: digest is" in daemon.status()["last_error"]
        # The next cut goes to the damaged slot, not to the one that serves.
        show(daemon, EAST, PERIOD)
        wait_for(lambda: counter(daemon, "swaps") == 1)
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

    with EdgeDaemon(replace(config, audit_every=1)) as daemon:
        show(daemon, WEST, 3)
        assert daemon.status()["monitoring"]["counted"] == 0
        cloud.come_back()
        wait_for(lambda: daemon.status()["state"] == "monitoring")
        show(daemon, WEST, 3)
        assert daemon.status()["monitoring"]["counted"] == 3
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


def test_waits_double_up_to_a_bound_and_start_over_after_a_success():
    backoff = Backoff(1.0, 300.0)
    waits = [backoff.next_s() for _ in range(12)]

    for wait, full in zip(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300], strict=True):
        assert full / 2 <= wait <= full
    backoff.reset()
    assert backoff.next_s() <= 1
