"""A cloud, or a network, that does everything wrong: nothing of it is taken, and serving never notices.

In each of these a client classifies without a pause, which also wakes the updater all the time.
"""

from __future__ import annotations

import logging
import re
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from edge_runtime.backoff import Backoff
from edge_runtime.config import CloudConfig, DownloadConfig, EdgeConfig, ProbationConfig
from tests.edge_runtime.device import WEST_USAGE, Device
from tests.edge_runtime.faults import Fault

if TYPE_CHECKING:
    from pathlib import Path

    from edge_runtime.slots import StoredModel
    from tests.edge_runtime.cloud_simulator import CloudSimulator

RETRY_FIRST_S, RETRY_MAX_S = 0.1, 0.2
# Keys, manifest and file.
REQUESTS_A_TRY = 3

MANIFESTS = {
    Fault.ERROR_500: "answered 500 .*: the search failed",
    Fault.OVERLOADED: "answered 429",
    Fault.REDIRECT: "answered 302: redirects are not followed",
    Fault.TRUNCATED: "cannot be reached",
    Fault.ENDLESS: "the answer is longer than",
    Fault.GARBAGE: "is it the right service",
    Fault.WRONG_SIGNATURE: "the signature is not that of key",
    Fault.OTHER_KEY: "signed with key",
    Fault.REPLAYED: "is not above",
    Fault.NO_TFLITE: "the interpreter refuses it",
    Fault.OTHER_BASE: "was cut from another base",
    Fault.OTHER_CLASSES: "has other classes",
    Fault.OTHER_INPUT: "takes another input",
    Fault.OTHER_SHAPE: "its manifest says|the interpreter",
    Fault.OTHER_USAGE: "not made for north-west, south-west",
    Fault.OTHER_ANSWERS: "self-test image 0",
    Fault.OTHER_CERTIFICATE: "certificate: is of model 0000",
    Fault.TOO_LONG: "expected 1 to download.file_bytes_max",
}
FILES = {
    Fault.ERROR_500: "answered 500",
    Fault.REDIRECT: "answered 302: redirects are not followed",
    Fault.GONE: "answered 404 .*: this file is not held any more: asking anew",
    Fault.FLIPPED_BIT: "digest is",
    Fault.LONGER: "more bytes came than",
    Fault.SHORTER: "bytes of file",
    Fault.ENDLESS: "more bytes came than",
    Fault.OTHER_RANGE: "asked for the bytes from",
    Fault.NOT_SATISFIABLE: "answered 416",
}
SLOW = [Fault.STALL, Fault.STALL_MIDDLE, Fault.DRIP_HEAD, Fault.DRIP]


@pytest.fixture
def config(cloud: CloudSimulator, state: Path) -> EdgeConfig:
    return EdgeConfig(
        state,
        CloudConfig(cloud.url, (cloud.key.public,), timeout_s=20, retry_first_s=RETRY_FIRST_S, retry_max_s=RETRY_MAX_S),
        probation=ProbationConfig(images=8, latency_factor=1000),
    )


def suffers(device: Device, cloud: CloudSimulator, base: StoredModel, west: StoredModel, tries: int = 3) -> str:
    """Let `tries` to get a cut fail and the next succeed; return the last error before that."""
    device.step()
    cloud_requests, start = cloud.requests, time.monotonic()
    device.monitor.want(WEST_USAGE)
    with device.running():
        device.wait_until(lambda: device.records.to_fields()["errors"] != [])
        device.wait_until(lambda: sum(error["times"] for error in device.records.to_fields()["errors"]) >= tries)
        error = str(device.records.to_fields()["last_error"])
        # Half of each wait may be left to chance.
        tries_at_most = 2 + (time.monotonic() - start) / (RETRY_FIRST_S / 2)
        assert cloud.requests - cloud_requests <= REQUESTS_A_TRY * tries_at_most
        assert device.serving == base.manifest.digest
        assert device.models.cut is None
        assert device.records.count("swaps") == 0
        cloud.behave()
        device.wait_until(lambda: device.records.count("swaps") == 1)
        device.wait_until(lambda: device.status["state"] == "monitoring")
    assert device.serving == west.manifest.digest
    assert device.status["refused"] is None
    return error


@pytest.mark.parametrize(
    ("told", "fault"), [*(("answers", fault) for fault in MANIFESTS), *(("files", fault) for fault in FILES)]
)
def test_what_is_bad_is_refused(
    config: EdgeConfig,
    cloud: CloudSimulator,
    base: StoredModel,
    west: StoredModel,
    told: str,
    fault: Fault,
    caplog: pytest.LogCaptureFixture,
):
    with Device(config) as device:
        device.step()
        if told == "files":
            cloud.file_always = fault
        else:
            cloud.always = fault
        error = suffers(device, cloud, base, west)

    assert_said_once(error, (FILES if told == "files" else MANIFESTS)[fault], caplog)


def assert_said_once(error: str, message: str, caplog: pytest.LogCaptureFixture) -> None:
    assert re.search(message, error)
    assert "\n" not in error
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 1


@pytest.mark.parametrize("fault", SLOW)
@pytest.mark.parametrize("what", ["manifest", "file"])
def test_a_cloud_that_never_comes_to_an_end_is_given_up(
    config: EdgeConfig, cloud: CloudSimulator, base: StoredModel, west: StoredModel, fault: Fault, what: str
):
    impatient = replace(
        config, cloud=replace(config.cloud, timeout_s=0.5), download=DownloadConfig(bytes_per_s_min=2_000)
    )
    with Device(impatient) as device:
        device.step_until(lambda: device.models.base is not None)
        if what == "manifest":
            cloud.always = fault
        else:
            cloud.file_always = fault
        error = suffers(device, cloud, base, west, tries=2)

    assert "no answer within 0.5 s" in error or "given up below bytes_per_s_min" in error


def test_a_base_that_was_swapped_is_refused(config: EdgeConfig, cloud: CloudSimulator, base: StoredModel):
    """The first model of all, where nothing is known yet but the key."""
    with Device(config) as device:
        cloud.file_faults.append(Fault.FLIPPED_BIT)
        device.step()
        assert "digest is" in device.status["refused"]
        for fault in (Fault.OTHER_KEY, Fault.WRONG_SIGNATURE, Fault.NO_TFLITE, Fault.OTHER_ANSWERS):
            cloud.faults.append(fault)
            device.step()
        assert device.records.count("refused_updates") == 5
        assert device.models.active is None

        device.step()
        assert device.serving == base.manifest.digest


def test_a_lost_link_costs_no_byte_twice(
    config: EdgeConfig, cloud: CloudSimulator, base: StoredModel, west: StoredModel
):
    """The connection breaks after a few hundred bytes, again and again, and in between nobody is there at all."""
    with Device(config) as device:
        device.step()
        cloud.file_requests.clear()
        cloud.file_faults += [Fault.TRUNCATED] * 8
        device.monitor.want(WEST_USAGE)
        with device.running():
            cloud.wait_until(lambda: len(cloud.file_requests) >= 2)
            cloud.go_away()
            device.wait_until(lambda: "Connection refused" in str(device.records.to_fields()["last_error"]))
            cloud.come_back()
            device.wait_until(lambda: device.records.count("swaps") == 1)

    assert sum(request.sent for request in cloud.file_requests) == west.manifest.bytes
    assert len(cloud.cut_requests) == 1


def test_an_hour_of_errors_is_a_few_requests():
    """By a clock of its own: with the defaults some 23 tries in the first hour, and 16 in each after it."""
    backoff = Backoff(1.0, 300.0)
    now, tries = 0.0, 0
    while now < 3600:
        tries += 1
        now += backoff.next_s()

    # Nine waits up to 256 s, then 150 to 300 s each.
    assert 9 + 10 <= tries <= 9 + 24


def test_waits_double_up_to_a_bound_and_start_over_after_a_success():
    backoff = Backoff(1.0, 300.0)
    waits = [backoff.next_s() for _ in range(12)]

    for wait, full in zip(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300], strict=True):
        assert full / 2 <= wait <= full
    backoff.reset()
    assert backoff.next_s() <= 1
