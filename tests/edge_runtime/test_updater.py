"""The update rules, step by step, against a real cloud on loopback. What the monitor wants is said by the test."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edge_runtime.config import CloudConfig, DownloadConfig, EdgeConfig, ProbationConfig
from edge_runtime.digests import digest_of
from edge_runtime.errors import ModelFileError
from edge_runtime.flatmodel import BaseModel, LayerCut, PruningPlan, normalize
from edge_runtime.trust import read_trust
from tests.edge_runtime.device import EAST_USAGE, WEST_USAGE, Device
from tests.edge_runtime.faults import Fault
from tests.edge_runtime.tiny_models import EAST, WEST, certified, describe, measured
from tests.support.signing import TestKey

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edge_runtime.slots import StoredModel
    from tests.edge_runtime.cloud_simulator import CloudSimulator


@pytest.fixture
def config(cloud: CloudSimulator, state: Path) -> EdgeConfig:
    return EdgeConfig(
        state,
        CloudConfig(cloud.url, (cloud.key.public,), timeout_s=10, retry_first_s=0.01, retry_max_s=0.02),
        probation=ProbationConfig(images=8, latency_factor=1000),
    )


@pytest.fixture
def device(config: EdgeConfig) -> Iterator[Device]:
    with Device(config) as device:
        device.step()
        yield device


def test_the_base_comes_first_then_a_cut_that_proves_itself(
    device: Device, cloud: CloudSimulator, base: StoredModel, west: StoredModel
):
    assert device.serving == base.manifest.digest
    assert device.status["state"] == "monitoring"
    device.show(WEST, 20)

    device.want(WEST_USAGE)
    assert device.serving == west.manifest.digest
    assert device.monitor.serves == (base.manifest.digest, west.manifest.digest)
    assert device.status["state"] == "probation"
    device.show(WEST, 8)
    device.step()
    assert device.status["state"] == "monitoring"
    assert device.records.count("swaps") == 1
    assert list((device.config.state / "incoming").iterdir()) == []
    kept = read_trust(device.config.state / "trust.msgpack")
    assert kept is not None
    assert kept.serial == device.models.cut.manifest.serial  # type: ignore[union-attr]


def test_during_probation_nothing_else_is_asked_for(device: Device, cloud: CloudSimulator):
    device.want(WEST_USAGE)
    device.want(EAST_USAGE)
    device.want(EAST_USAGE)
    assert len(cloud.cut_requests) == 1

    device.show(WEST, 8)
    device.step_until(lambda: device.records.count("swaps") == 2)
    assert cloud.cut_requests[-1].usage == EAST_USAGE


def test_a_cut_that_is_doubtful_here_is_rolled_back_told_of_and_not_taken_again(
    device: Device, cloud: CloudSimulator, base: StoredModel, west: StoredModel
):
    device.show(EAST, 200)
    device.want(WEST_USAGE)
    device.show(EAST, 8)  # a cut for the west is not sure of anything here
    device.step()

    assert device.serving == base.manifest.digest
    assert device.monitor.serves == (base.manifest.digest, None)
    assert device.records.count("rollbacks") == 1
    assert device.status["rolled_back"].startswith(f"{west.manifest.digest}: 100 % of its answers are doubtful")
    device.want(WEST_USAGE)
    assert cloud.cut_requests[-1].rolled_back == device.status["rolled_back"]
    assert "was rolled back here before" in device.status["refused"]
    assert device.serving == base.manifest.digest
    assert cloud.file_requests[-1].digest == west.manifest.digest
    assert len(cloud.file_requests) == 2, "the base, and the cut once"
    device.want(EAST_USAGE)
    assert cloud.cut_requests[-1].rolled_back is None, "it was told"
    assert device.records.count("swaps") == 2


def test_a_rollback_leads_to_the_cut_before(device: Device, west: StoredModel, east: StoredModel, base: StoredModel):
    device.want(WEST_USAGE)
    device.show(WEST, 200)
    device.step()
    device.want(EAST_USAGE)
    assert device.serving == east.manifest.digest
    device.show(WEST, 8)
    device.step()

    assert device.serving == west.manifest.digest
    assert device.monitor.serves == (base.manifest.digest, west.manifest.digest)
    with Device(device.config) as again:
        assert again.serving == west.manifest.digest
        assert again.status["rolled_back"].startswith(east.manifest.digest)


def test_a_cut_that_fails_while_it_runs_is_rolled_back(device: Device, base: StoredModel):
    device.want(WEST_USAGE)
    assert device.models.cut is not None
    device.updater.failed(device.models.cut, ModelFileError("no more memory"))
    device.step()

    assert device.serving == base.manifest.digest
    assert "failed on an image: no more memory" in device.status["rolled_back"]


def test_a_cut_that_fails_again_and_again_after_its_probation_is_rolled_back(device: Device, base: StoredModel):
    device.want(WEST_USAGE)
    device.show(WEST, 200)
    device.step()
    cut = device.models.cut
    assert cut is not None
    for _ in range(2):
        device.updater.failed(cut, ModelFileError("no more memory"))
    device.show(WEST, 20)  # it answers again
    for _ in range(2):
        device.updater.failed(cut, ModelFileError("no more memory"))
    device.step()
    assert device.serving == cut.manifest.digest

    device.updater.failed(cut, ModelFileError("no more memory"))
    device.step()
    assert device.serving == base.manifest.digest
    assert "failed on 3 images in a row: no more memory" in device.status["rolled_back"]


def test_a_restart_goes_on_with_the_probation(device: Device, config: EdgeConfig):
    device.want(WEST_USAGE)
    device.show(WEST, 5)
    device.updater.close()

    with Device(config) as again:
        assert again.status["state"] == "probation"
        assert again.status["probation"] == {"images": 5, "of": 8}
        again.show(WEST, 3)
        again.step()
        assert again.status["state"] == "monitoring"


def test_an_old_answer_is_refused_and_the_next_good_one_taken(device: Device, cloud: CloudSimulator):
    cloud.faults.append(Fault.REPLAYED)
    device.want(WEST_USAGE)
    assert "is not above" in device.status["refused"]
    assert device.records.count("refused_updates") == 1

    device.step_until(lambda: device.records.count("swaps") == 1)
    assert device.status["refused"] is None


def test_serials_count_on_over_restarts_and_a_damaged_file(device: Device, config: EdgeConfig, cloud: CloudSimulator):
    device.want(WEST_USAGE)
    serial = device.status["serial"]
    (config.state / "trust.msgpack").write_bytes(b"damaged")

    with Device(config) as again:
        assert again.status["serial"] == serial
        assert "trust.msgpack: cannot be used" in again.records.to_fields()["last_error"]


def test_a_new_key_is_followed_and_the_old_one_counts_no_more(device: Device, cloud: CloudSimulator):
    old, cloud.key = cloud.key, TestKey()
    device.want(WEST_USAGE)
    assert f"signed with key {cloud.key.id}" in device.status["refused"]

    cloud.statements = [old.statement(1, old, cloud.key), cloud.key.statement(2, cloud.key)]
    device.step_until(lambda: device.records.count("swaps") == 1)
    assert device.status["keys"] == [cloud.key.id]
    device.show(WEST, 8)
    cloud.key = old
    device.want(EAST_USAGE)
    assert f"signed with key {old.id}" in device.status["refused"]


def test_the_same_cut_again_is_no_update(device: Device, cloud: CloudSimulator, west: StoredModel):
    device.want(WEST_USAGE)
    device.show(WEST, 8)
    other_usage = {"north-west": 0.9, "south-west": 0.1}
    device.want(other_usage)

    assert device.serving == west.manifest.digest
    assert device.models.cut is not None
    assert device.models.cut.manifest.usage == other_usage, "what the monitor compares with"
    assert device.status["state"] == "monitoring"
    assert device.records.count("swaps") == 1
    assert sum(request.digest == west.manifest.digest for request in cloud.file_requests) == 1


def test_a_certificate_is_required_if_that_is_the_policy(config: EdgeConfig, cloud: CloudSimulator, west: StoredModel):
    with Device(replace(config, cloud=replace(config.cloud, require_certificate=True))) as device:
        device.step()
        device.want(WEST_USAGE)
        assert "has no certificate" in device.status["refused"]

        cloud.cuts[:] = [certified(west)]
        device.step_until(lambda: device.records.count("swaps") == 1)


def test_a_broken_link_asks_for_no_other_manifest(device: Device, cloud: CloudSimulator):
    cloud.file_faults += [Fault.TRUNCATED, Fault.TRUNCATED]
    device.want(WEST_USAGE)
    device.step_until(lambda: device.records.count("swaps") == 1)

    assert len(cloud.cut_requests) == 1
    assert device.records.count("refused_updates") == 0
    assert device.records.count("downloaded_bytes") == sum(request.sent for request in cloud.file_requests)


def test_a_file_that_is_not_held_any_more_is_asked_for_anew(device: Device, cloud: CloudSimulator):
    cloud.file_faults.append(Fault.GONE)
    device.want(WEST_USAGE)
    device.step_until(lambda: device.records.count("swaps") == 1)

    assert len(cloud.cut_requests) == 2
    assert device.monitor.refusals == []


def test_a_file_that_fails_its_trial_is_not_fetched_again(device: Device, cloud: CloudSimulator):
    cloud.always = Fault.OTHER_ANSWERS
    device.want(WEST_USAGE)
    device.step()
    assert len(cloud.cut_requests) == 2
    assert len(cloud.file_requests) == 2, "the base, and the cut once"
    assert "self-test image 0" in device.status["refused"]

    cloud.behave()
    device.step_until(lambda: device.records.count("swaps") == 1)
    assert len(cloud.file_requests) == 2


def test_a_refusal_is_final_until_the_monitor_wants_something_else(device: Device, cloud: CloudSimulator):
    cloud.faults.append(Fault.REFUSED)
    device.want(WEST_USAGE)

    assert device.monitor.refusals == [WEST_USAGE]
    assert device.updater.retry_in_s() is None
    assert device.status["state"] == "monitoring"


def test_a_wish_is_withdrawn_with_the_usage_behind_it(device: Device, cloud: CloudSimulator):
    cloud.go_away()
    device.want(WEST_USAGE)
    assert device.status["state"] == "waiting"

    device.want(None)
    assert device.status["state"] == "monitoring"


def test_a_stopped_device_does_not_wait_for_the_cloud(device: Device, cloud: CloudSimulator):
    device.updater.stop()
    device.want(WEST_USAGE)

    assert cloud.cut_requests == []
    assert "the daemon is stopping" in device.records.to_fields()["last_error"]


def test_outside_the_hours_nothing_is_asked_for_but_a_first_model(config: EdgeConfig, cloud: CloudSimulator):
    begin, end = (datetime.now() + timedelta(hours=hours) for hours in (3, 4))  # noqa: DTZ005 - local hours
    later = DownloadConfig(hours=f"{begin:%H:%M}-{end:%H:%M}")
    with Device(replace(config, download=later)) as device:
        device.step()
        assert device.models.base is not None
        device.want(WEST_USAGE)

        assert cloud.cut_requests == []
        assert device.status["state"] == "waiting"
        assert 590 < (device.updater.retry_in_s() or 0) <= 600, "the clock may be set right before"


def test_the_same_trouble_is_logged_once(device: Device, cloud: CloudSimulator, caplog: pytest.LogCaptureFixture):
    cloud.always = Fault.WRONG_SIGNATURE
    device.want(WEST_USAGE)
    for _ in range(5):
        device.step()

    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert "the signature is not that of key" in warnings[0].message
    assert device.records.count("refused_updates") == 6


@pytest.fixture(scope="module")
def plain(base_file: bytes) -> bytes:
    return bytes(normalize(base_file))


@pytest.fixture(scope="module")
def plan(plain: bytes) -> bytes:
    group = BaseModel(plain).channels.groups[0]
    return PruningPlan(digest_of(plain), (LayerCut(group.tensors[0], 2, np.array([0])),)).to_bytes()


@pytest.fixture
def sliced(plain: bytes, plan: bytes) -> StoredModel:
    content = BaseModel(plain).apply(PruningPlan.from_bytes(plan))
    return measured(describe(content, base=plain, usage=WEST_USAGE, plan=plan))


@pytest.fixture
def plans(cloud: CloudSimulator, plain: bytes, sliced: StoredModel, plan: bytes) -> None:
    """Let the cloud serve a base that can be cut, and a cut with the plan that makes it."""
    cloud.base, cloud.cuts = measured(describe(plain)), [sliced]
    cloud.files[digest_of(plan)] = plan


@pytest.mark.usefixtures("plans")
def test_a_plan_is_fetched_in_place_of_the_file(
    device: Device, cloud: CloudSimulator, sliced: StoredModel, plan: bytes
):
    device.want(WEST_USAGE)

    assert device.serving == sliced.manifest.digest
    assert [request.digest for request in cloud.file_requests[1:]] == [digest_of(plan)]
    assert device.slots.read("a").content == sliced.content  # type: ignore[union-attr]


@pytest.mark.parametrize("fault", [Fault.GONE, Fault.FLIPPED_BIT])
@pytest.mark.usefixtures("plans")
def test_the_file_comes_where_the_plan_does_not(
    device: Device, cloud: CloudSimulator, sliced: StoredModel, fault: Fault
):
    cloud.file_faults.append(fault)
    device.want(WEST_USAGE)

    assert device.serving == sliced.manifest.digest
    assert len(cloud.file_requests) == 3


@pytest.mark.usefixtures("plans")
def test_the_file_comes_where_the_plan_makes_another(device: Device, cloud: CloudSimulator, sliced: StoredModel):
    other = PruningPlan(
        sliced.manifest.base,
        (LayerCut(BaseModel(cloud.base.content).channels.groups[0].tensors[0], 2, np.array([1])),),
    )
    cloud.cuts[:] = [describe(sliced.content, base=cloud.base.content, usage=WEST_USAGE, plan=other.to_bytes())]
    cloud.files[digest_of(other.to_bytes())] = other.to_bytes()
    device.want(WEST_USAGE)

    assert device.serving == sliced.manifest.digest
    assert "what the plan makes of the base: digest is" in device.records.to_fields()["last_error"]
