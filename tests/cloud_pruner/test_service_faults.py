"""What the service says stays true whatever dies in the middle of its work: a worker, its servers, its disk."""

from __future__ import annotations

import contextlib
import itertools
import random
import threading

import pytest

from benchmarks.http_load import Phase, post, start_load
from edge_runtime.wire import MSGPACK
from tests.cache.redis_server import RedisServer
from tests.support.digits import CLASSES
from tests.support.disks import leave, small_disk
from tests.support.postgres import PostgresServer
from tests.support.service import running_service, wait_until

LIMITS = {"device_rate": "100000/minute"}
DEVICES = 4
MEMORY = 64 << 20
USUAL = {"four": 1.0, "nine": 3.0}
PACE_S = 0.02


@contextlib.contextmanager
def asking_devices(service, name):
    """Let devices ask as habits go: mostly for the same again, at times for other classes, some with patience."""
    devices = [service.device(f"{name}-{number}") for number in range(DEVICES)]
    over = threading.Event()
    pairs = list(itertools.combinations(CLASSES, 2))

    def live(device):
        choose = random.Random(device.name)
        usual = dict.fromkeys(choose.choice(pairs), 1.0)
        while not over.wait(PACE_S):
            chance = choose.random()
            if chance < 0.04:
                usual = dict.fromkeys(choose.choice(pairs), 1.0)
            device.ask(usual, later=chance > 0.97)

    threads = [threading.Thread(target=live, args=(device,)) for device in devices]
    for thread in threads:
        thread.start()
    try:
        wait_for_answers(devices)
        yield devices
    finally:
        over.set()
        for thread in threads:
            thread.join()


def told_devices(service, name):
    """Return a device that was told what it will ask for again, and one for which that would have to be recorded."""
    porch, garden = (service.device(f"{name}-{place}") for place in ("porch", "garden"))
    assert porch.ask(USUAL) is not None
    assert garden.ask({"one": 1.0}) is not None
    return porch, garden


def wait_for_answers(devices, number=5):
    """Wait until each device was told so many more times what its cut is."""
    before = [len(device.told) for device in devices]
    wait_until(lambda: all(len(d.told) >= told + number for d, told in zip(devices, before, strict=True)))


def wait_for_refusals(devices, number=3):
    before = sum(len(device.refusals) for device in devices)
    wait_until(lambda: sum(len(device.refusals) for device in devices) >= before + number)


def check(devices, *, statuses=(429, 503), broken=0):
    """All that was ever said is true, and all that was refused was refused in one line, to come again."""
    assert sum(device.broken for device in devices) <= broken
    for device in devices:
        assert {status for status, _ in device.refusals} <= set(statuses), device.refusals
        assert all(error.isprintable() and len(error) < 500 for _, error in device.refusals), device.refusals
        device.check_all()


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    with RedisServer(tmp_path_factory.mktemp("redis")) as redis, PostgresServer() as postgres:
        yield redis, postgres


@pytest.fixture(scope="module")
def service(servers, digits_profile, tmp_path_factory):
    redis, postgres = servers
    folder = tmp_path_factory.mktemp("service")
    sections = {
        "limits": LIMITS,
        "cache": {"redis": redis.url},
        "state": {"database": postgres.url, "files": str(folder / "files"), "metrics": str(folder / "metrics")},
    }
    with running_service(folder, digits_profile, **sections) as service:
        yield service
        assert "Traceback" not in service.process.log


def test_more_at_once_than_it_takes_on(service):
    """Six hundred requests in a moment: each is answered, or told to come again."""
    devices = [service.device(f"crowd-{number}") for number in range(DEVICES)]
    wish = {"two": 1.0, "six": 1.0}
    requests = []
    for device in devices:
        assert device.ask(wish) is not None
        headers = {"authorization": f"Bearer {service.tokens[device.name]}", "content-type": MSGPACK}
        requests.append(post("/v1/personalize", device.wish(wish), headers))
    memory = service.process.memory
    answers = start_load(service.process.port, requests, [Phase(600_000, 0.001)]).result()
    assert 200 in answers.statuses
    assert set(answers.statuses) <= {200, 429}
    assert service.process.memory < memory + MEMORY
    check(devices)
    assert all(device.ask(wish) for device in devices)


def test_a_worker_dies(service):
    """Its connections break; its jobs are another's, and a new one takes its place."""
    with asking_devices(service, "worker") as devices:
        killed = service.process.kill_a_worker()
        wait_until(lambda: len(service.process.workers) == 2 and killed not in service.process.workers)
        wait_for_answers(devices)
        wait_until(service.process.ready)
    check(devices, broken=2 * DEVICES)


def test_the_cache_dies(service, servers):
    """What is remembered in memory is answered, all else is searched; nobody notices."""
    redis, _ = servers
    with asking_devices(service, "cache") as devices:
        redis.kill()
        wait_for_answers(devices, 20)
        redis.start()
        wait_for_answers(devices, 20)
    check(devices, statuses=(429,))


def test_the_database_dies(service, servers):
    """Repeats are answered from memory; what would have to be recorded is refused, and counted, until it is back."""
    _, postgres = servers
    porch, garden = told_devices(service, "database")
    with asking_devices(service, "database") as devices:
        failed = service.metrics()["capnn_state_errors_total"]
        postgres.kill()
        wait_for_refusals(devices)
        assert not service.process.ready()
        with service.client() as http:
            assert "database" in http.get("/readyz").json()["failed"]
            assert http.get("/livez").status_code == 200
        assert service.metrics()["capnn_state_errors_total"] > failed
        assert all(porch.ask(USUAL) for _ in range(5))
        assert garden.ask(USUAL) is None
        postgres.start()
        wait_until(service.process.ready)
        wait_for_answers(devices)
    check([porch, garden, *devices])


def test_the_disk_is_full(digits_profile, tmp_path):
    """That of the state and of the cache: what has to be recorded is refused until there is room, the rest answered."""
    with small_disk(tmp_path / "disk", "24m") as disk:
        sections = {
            "limits": LIMITS,
            "cache": {"sqlite": str(disk / "plans.sqlite")},
            "state": {
                "database": f"sqlite:///{disk / 'state.sqlite'}",
                "files": str(disk / "files"),
                "metrics": str(disk / "metrics"),
            },
        }
        with running_service(tmp_path, digits_profile, **sections) as service:
            porch, garden = told_devices(service, "disk")
            with asking_devices(service, "disk") as devices:
                workers = service.process.workers
                leave(disk, 0)
                wait_for_refusals(devices)
                assert all(porch.ask(USUAL) for _ in range(5))
                assert garden.ask(USUAL) is None
                assert service.metrics()["capnn_state_errors_total"]
                (disk / "filler").unlink()
                wait_for_answers(devices, 20)
            check([porch, garden, *devices])
            assert service.process.workers == workers
        assert "Traceback" not in service.process.log
