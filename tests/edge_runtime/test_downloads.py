"""Files from a real server on loopback; the hours and the rate, which are pure, without one."""

from __future__ import annotations

import os
import threading
import time
from datetime import date, datetime
from datetime import time as clock
from typing import TYPE_CHECKING

import pytest

from edge_runtime.cloud_client import CloudClient
from edge_runtime.config import CloudConfig, DownloadConfig
from edge_runtime.digests import digest_of
from edge_runtime.downloads import Downloads, Throttle, opens_in_s
from edge_runtime.errors import CloudError, DigestError, MessageError
from tests.edge_runtime.faults import Fault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.edge_runtime.cloud_simulator import CloudSimulator

CONTENT = os.urandom(400_000)
DIGEST = digest_of(CONTENT)
NIGHT = (clock(1), clock(5))
OVER_MIDNIGHT = (clock(22, 30), clock(6))


@pytest.fixture
def cloud(cloud: CloudSimulator) -> CloudSimulator:
    cloud.files[DIGEST] = CONTENT
    return cloud


@pytest.fixture
def client(cloud: CloudSimulator) -> Iterator[CloudClient]:
    config = CloudConfig(cloud.url, (cloud.key.public,), timeout_s=10)
    with CloudClient(config, DownloadConfig()) as client:
        yield client


@pytest.fixture
def fetch(tmp_path: Path, client: CloudClient) -> Callable[[], bytes | None]:
    downloads = Downloads(tmp_path / "incoming", DownloadConfig(), lambda _: None)
    return lambda: downloads.fetch(client, DIGEST, len(CONTENT), room=0)


def today(now: clock) -> datetime:
    return datetime.combine(date(2024, 5, 1), now)


def partial(tmp_path: Path) -> Path:
    return tmp_path / "incoming" / f"{DIGEST}.partial"


def test_a_file_comes_whole_and_is_not_fetched_twice(
    tmp_path: Path, cloud: CloudSimulator, fetch: Callable[[], bytes | None]
):
    assert fetch() == CONTENT
    assert fetch() == CONTENT
    assert [(request.offset, request.sent) for request in cloud.file_requests] == [(0, len(CONTENT))]
    assert partial(tmp_path).read_bytes() == CONTENT


def test_a_broken_download_goes_on_where_it_broke(
    tmp_path: Path, cloud: CloudSimulator, fetch: Callable[[], bytes | None]
):
    for sent in (1, 2):
        cloud.file_faults.append(Fault.TRUNCATED)
        with pytest.raises(CloudError, match="cannot be reached"):
            fetch()
        assert len(cloud.file_requests) == sent
    here = partial(tmp_path).stat().st_size
    assert here > 0

    assert fetch() == CONTENT
    assert cloud.file_requests[-1].offset == here
    assert sum(request.sent for request in cloud.file_requests) == len(CONTENT)


def test_a_server_that_knows_no_ranges_sends_the_file_anew(
    tmp_path: Path, cloud: CloudSimulator, fetch: Callable[[], bytes | None]
):
    for _ in range(5):  # on a busy machine a connection may break before anything has come
        cloud.file_faults.append(Fault.TRUNCATED)
        with pytest.raises(CloudError):
            fetch()
        if partial(tmp_path).exists() and partial(tmp_path).stat().st_size:
            break
    cloud.file_faults.append(Fault.NO_RANGE)

    assert fetch() == CONTENT
    assert cloud.file_requests[-1].offset > 0
    assert cloud.file_requests[-1].sent == len(CONTENT)


@pytest.mark.parametrize(
    ("fault", "error", "message"),
    [
        (Fault.FLIPPED_BIT, DigestError, "digest is"),
        (Fault.LONGER, DigestError, "more bytes came"),
        (Fault.OTHER_RANGE, MessageError, "asked for the bytes from"),
        (Fault.NOT_SATISFIABLE, DigestError, "answered 416"),
    ],
)
def test_what_is_not_the_file_is_deleted_and_the_file_comes_from_its_start(
    tmp_path: Path,
    cloud: CloudSimulator,
    fetch: Callable[[], bytes | None],
    fault: Fault,
    error: type[Exception],
    message: str,
):
    cloud.file_faults += [Fault.TRUNCATED, fault]
    with pytest.raises(CloudError):
        fetch()

    with pytest.raises(error, match=message):
        fetch()
    assert not partial(tmp_path).exists()
    assert fetch() == CONTENT
    assert cloud.file_requests[-1].offset == 0


def test_a_short_file_is_waited_for_not_taken(tmp_path: Path, cloud: CloudSimulator, fetch: Callable[[], bytes | None]):
    cloud.file_faults.append(Fault.SHORTER)

    with pytest.raises(CloudError, match=rf"only {len(CONTENT) - 4} of {len(CONTENT)} bytes"):
        fetch()
    assert fetch() == CONTENT
    assert cloud.file_requests[-1].sent == 4


def test_a_damaged_partial_costs_that_download_and_no_other(
    tmp_path: Path, cloud: CloudSimulator, fetch: Callable[[], bytes | None]
):
    """What a power cut leaves of a file that was not synced: its length, and zeros."""
    partial(tmp_path).parent.mkdir()
    partial(tmp_path).write_bytes(bytes(1000))

    with pytest.raises(DigestError):
        fetch()
    assert fetch() == CONTENT


def test_a_partial_that_is_too_long_starts_over(
    tmp_path: Path, cloud: CloudSimulator, fetch: Callable[[], bytes | None]
):
    partial(tmp_path).parent.mkdir()
    partial(tmp_path).write_bytes(bytes(len(CONTENT) + 1))

    assert fetch() == CONTENT
    assert cloud.file_requests[-1].offset == 0


def test_without_room_nothing_is_asked_for(tmp_path: Path, cloud: CloudSimulator, client: CloudClient):
    downloads = Downloads(tmp_path / "incoming", DownloadConfig(), lambda _: None)

    with pytest.raises(OSError, match="make room on the disk"):
        downloads.fetch(client, DIGEST, len(CONTENT), room=1 << 60)
    assert cloud.file_requests == []


def test_what_is_not_wanted_any_more_is_deleted(tmp_path: Path, fetch: Callable[[], bytes | None]):
    fetch()
    other = tmp_path / "incoming" / f"{'b' * 64}.partial"
    other.write_bytes(b"of another model")
    downloads = Downloads(tmp_path / "incoming", DownloadConfig(), lambda _: None)

    downloads.keep_only([DIGEST])
    assert [path.name for path in partial(tmp_path).parent.iterdir()] == [partial(tmp_path).name]
    downloads.keep_only([])
    assert list(partial(tmp_path).parent.iterdir()) == []


def test_progress_shows_while_a_file_comes(tmp_path: Path, cloud: CloudSimulator, client: CloudClient):
    downloads = Downloads(tmp_path / "incoming", DownloadConfig(), lambda _: None)
    cloud.file_faults.append(Fault.STALL_MIDDLE)
    seen = []

    def look() -> None:
        deadline = time.monotonic() + 30
        while (progress := downloads.progress) is None or progress[1] == 0:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        seen.append(progress)
        cloud.break_stalled()

    thread = threading.Thread(target=look)
    thread.start()
    with pytest.raises(CloudError):
        downloads.fetch(client, DIGEST, len(CONTENT), room=0)
    thread.join()
    (digest, here, promised), *_ = seen
    assert (digest, promised) == (DIGEST, len(CONTENT))
    assert 0 < here <= len(CONTENT) // 2
    assert downloads.progress is None


def test_the_hours_end_a_download_that_goes_on_later(tmp_path: Path, cloud: CloudSimulator, client: CloudClient):
    hour = 4
    downloads = Downloads(
        tmp_path / "incoming", DownloadConfig(hours="01:00-05:00"), lambda _: None, lambda: today(clock(hour))
    )
    cloud.pieces = 10_000

    def fetch(*, any_hour: bool = False) -> bytes | None:
        return downloads.fetch(client, DIGEST, len(CONTENT), room=0, any_hour=any_hour)

    assert downloads.opens_in_s() == 0
    hour = 5
    assert downloads.opens_in_s() == 20 * 3600
    assert fetch() is None
    assert 0 < partial(tmp_path).stat().st_size < len(CONTENT)
    hour = 2
    assert fetch() == CONTENT
    partial(tmp_path).unlink()
    hour = 12
    assert fetch(any_hour=True) == CONTENT


@pytest.mark.parametrize(
    ("window", "now", "hours"),
    [
        (None, clock(12), 0),
        (NIGHT, clock(1), 0),
        (NIGHT, clock(4, 59, 59), 0),
        (NIGHT, clock(5), 20),
        (NIGHT, clock(0), 1),
        (OVER_MIDNIGHT, clock(23), 0),
        (OVER_MIDNIGHT, clock(0), 0),
        (OVER_MIDNIGHT, clock(5, 59), 0),
        (OVER_MIDNIGHT, clock(6), 16.5),
        (OVER_MIDNIGHT, clock(22), 0.5),
    ],
)
def test_downloads_wait_for_their_hours(window: tuple[clock, clock] | None, now: clock, hours: float):
    assert opens_in_s(window, today(now)) == hours * 3600


def test_pauses_keep_the_average_rate():
    throttle = Throttle(1000)

    assert throttle.pause_s(500, now=100.0) == pytest.approx(0.5)
    assert throttle.pause_s(500, now=100.5) == pytest.approx(0.5)
    assert throttle.pause_s(500, now=100.6) == pytest.approx(0.9), "what came too early is made up for"
    assert throttle.pause_s(500, now=200.0) == pytest.approx(0.5), "what was not used is not saved up"
    assert Throttle(None).pause_s(1 << 30, now=0.0) == 0.0


def test_a_slowed_down_download_takes_its_time(tmp_path: Path, cloud: CloudSimulator):
    limits = DownloadConfig(bytes_per_s=1_000_000)
    downloads = Downloads(tmp_path / "incoming", limits, lambda _: None)
    start = time.monotonic()

    with CloudClient(CloudConfig(cloud.url, (cloud.key.public,)), limits) as client:
        assert downloads.fetch(client, DIGEST, len(CONTENT), room=0) == CONTENT

    assert time.monotonic() - start >= 0.39
