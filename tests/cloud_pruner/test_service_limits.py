"""The service under more than it takes on: who waits, who is told to come back, and who is not kept out by others."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import httpx
import pytest

from cache import LayeredStore, MemoryStore, PlanCache
from cloud_pruner.personalize import Personalizer
from cloud_pruner.service import make_service
from cloud_pruner.service.settings import LimitsSettings
from cloud_pruner.signer import Signer
from cloud_pruner.signing_keys import generate
from edge_runtime.wire import PersonalizeRequest
from tests.support.server import running


@pytest.fixture(scope="module")
def signer(tmp_path_factory):
    with Signer(generate(tmp_path_factory.mktemp("signing") / "keys").folder) as signer:
        yield signer


@pytest.fixture
def cache():
    with PlanCache(LayeredStore(MemoryStore(max_bytes=1 << 20))) as cache:
        yield cache


class HeldPersonalizer(Personalizer):
    """Searches when it is allowed to."""

    def __init__(self, profile, cache):
        super().__init__(profile, cache)
        self.allowed = threading.Event()
        self.searched = []

    def personalize(self, request, *rest):
        assert self.allowed.wait(60)
        self.searched.append(sorted(request.usage))
        return super().personalize(request, *rest)


@contextlib.contextmanager
def served(personalizer, signer, **options):
    app = make_service(personalizer, signer, "empirical", **options)
    with running(app) as url, httpx.Client(base_url=url, timeout=60) as client:
        yield client, app.state.parts


@pytest.fixture(scope="module")
def client(digits_profile, signer):
    with served(Personalizer(digits_profile), signer) as (client, _):
        yield client


def ask(client, profile, *names, **headers):
    fields = PersonalizeRequest(base=profile.base.digest, usage=dict.fromkeys(names, 1.0)).to_fields()
    return client.post("/v1/personalize", json=fields, headers=headers)


def wait_until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


class TestSearches:
    def test_what_is_known_does_not_wait_for_searches(self, digits_profile, cache, signer):
        Personalizer(digits_profile, cache).personalize(request_for("one", "seven"))
        held = HeldPersonalizer(digits_profile, cache)
        with (
            served(held, signer, limits=LimitsSettings(in_flight=2, queue=8)) as (client, parts),
            ThreadPoolExecutor() as pool,
        ):
            # More searches than requests may be worked on: they wait, and do not count.
            waiting = []
            for name in ("zero", "two", "three"):
                waiting.append(pool.submit(ask, client, digits_profile, name))
                wait_until(lambda: len(parts.searches) == len(waiting))
            answer = ask(client, digits_profile, "one", "seven")
            assert answer.json()["manifest"]["cache_tier"] == "exact"
            held.allowed.set()
            assert [one.result().status_code for one in waiting] == [200] * 3

    def test_a_full_queue_is_said_at_once(self, digits_profile, cache, signer):
        held = HeldPersonalizer(digits_profile, cache)
        with (
            served(held, signer, limits=LimitsSettings(queue=1)) as (client, parts),
            ThreadPoolExecutor() as pool,
        ):
            first = pool.submit(ask, client, digits_profile, "one")
            wait_until(lambda: len(parts.searches) == 1)
            second = pool.submit(ask, client, digits_profile, "two")
            wait_until(lambda: len(parts.searches) == 2)
            third = ask(client, digits_profile, "three")
            assert third.status_code == 429
            assert int(third.headers["retry-after"]) >= 1
            assert "searches wait already" in third.json()["error"]
            # Who wants what is searched already waits for that, however full the queue is.
            same = pool.submit(ask, client, digits_profile, "two")
            held.allowed.set()
            assert [one.result().status_code for one in (first, second, same)] == [200] * 3
            assert sorted(held.searched) == [["one"], ["two"]]
            assert parts.metrics.totals()["rejected"] == 1

    def test_a_search_that_takes_too_long_goes_on(self, digits_profile, cache, signer):
        held = HeldPersonalizer(digits_profile, cache)
        with served(held, signer, limits=LimitsSettings(request_s=0.1)) as (client, parts):
            late = ask(client, digits_profile, "one", "two")
            assert late.status_code == 503
            assert int(late.headers["retry-after"]) >= 1
            held.allowed.set()
            wait_until(lambda: not len(parts.searches))
            assert ask(client, digits_profile, "one", "two").json()["manifest"]["cache_tier"] == "exact"


def request_for(*names):
    from cloud_pruner.requests import PruneRequest

    return PruneRequest(dict.fromkeys(names, 1.0), guarantee="empirical")


class TestRequests:
    def test_a_device_that_asks_too_often(self, digits_profile, signer):
        with served(Personalizer(digits_profile), signer, limits=LimitsSettings(device_rate="3/minute")) as (
            client,
            parts,
        ):
            busy, calm = ({"authorization": f"Bearer {parts.devices.register(name)}"} for name in ("busy", "calm"))
            statuses = [client.get("/v1/base", headers=busy).status_code for _ in range(4)]
            assert statuses == [200, 200, 200, 429]
            refused = client.get("/v1/base", headers=busy)
            assert 1 <= int(refused.headers["retry-after"]) <= 60
            assert "device busy asks more often than 3/minute" in refused.json()["error"]
            assert client.get("/v1/base", headers=calm).status_code == 200

    def test_more_than_can_be_worked_on_at_once(self, digits_profile, cache, signer):
        """One place, and a request in it: others are told to come back, but for those who ask how the service is."""
        with served(Personalizer(digits_profile, cache), signer, limits=LimitsSettings(in_flight=1)) as (client, parts):
            taken, go_on = threading.Event(), threading.Event()
            exact = parts.catalogue.for_device(None).personalizer.exact

            def held(request):
                taken.set()
                assert go_on.wait(60)
                return exact(request)

            parts.catalogue.for_device(None).personalizer.exact = held
            with ThreadPoolExecutor() as pool:
                first = pool.submit(ask, client, digits_profile, "one")
                assert taken.wait(60)
                refused = client.get("/v1/base")
                assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
                assert refused.json()["error"] == "too many requests are under way: try again in a second"
                assert refused.headers["x-request-id"]
                assert [client.get(path).status_code for path in ("/livez", "/readyz", "/metrics")] == [200] * 3
                go_on.set()
                assert first.result().status_code == 200
            assert client.get("/v1/base").status_code == 200

    def test_slow_clients_keep_nobody_out(self, digits_profile, signer):
        limits = LimitsSettings(in_flight=1)
        with (
            served(Personalizer(digits_profile), signer, limits=limits) as (client, _),
            contextlib.ExitStack() as open_,
        ):
            address = urlsplit(str(client.base_url))
            for begun in (b"GET /v1/ba", b"POST /v1/personalize HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{"):
                for _ in range(20):
                    slow = open_.enter_context(socket.create_connection((address.hostname, address.port)))
                    slow.sendall(begun)
            wait_until(lambda: client.get("/v1/base").status_code == 200)

    def test_bodies_that_are_not_read(self, client):
        long = client.post("/v1/personalize", content=b" " * (1 << 19))
        chunks = client.post("/v1/personalize", content=(b" " * 4096 for _ in range(100)))
        for refused in (long, chunks):
            assert refused.status_code == 413
            assert "the body is longer than 262144 bytes" in refused.json()["error"]
        packed = client.post("/v1/personalize", content=b"x", headers={"content-encoding": "gzip"})
        assert (packed.status_code, packed.json()) == (
            415,
            {"error": "compressed bodies are not read: send it as it is"},
        )
        other = client.post("/v1/personalize", content=b"x", headers={"content-type": "text/xml"})
        assert other.status_code == 415

    def test_a_request_keeps_its_id(self, client):
        assert client.get("/v1/base", headers={"x-request-id": "abc-1"}).headers["x-request-id"] == "abc-1"
        for hostile in ("a b", "x" * 65, "é".encode()):
            given = client.get("/v1/base", headers={"x-request-id": hostile}).headers["x-request-id"]
            assert given != hostile
            assert len(given) == 32


class TestReadiness:
    def test_a_service_that_ends_says_so_first(self, digits_profile, signer):
        with served(Personalizer(digits_profile), signer) as (client, parts):
            assert client.get("/readyz").json() == {"ready": True, "failed": {}}
            parts.phase.draining = True
            answer = client.get("/readyz")
            assert (answer.status_code, list(answer.json()["failed"])) == (503, ["draining"])
            assert client.get("/livez").status_code == 200

    def test_what_is_away_is_named(self, digits_profile, signer, tmp_path):
        with served(Personalizer(digits_profile), signer, folder=tmp_path / "state") as (client, _):
            marker = tmp_path / "state" / "files" / "capnn-files"
            content = marker.read_bytes()
            marker.unlink()
            answer = client.get("/readyz")
            assert (answer.status_code, list(answer.json()["failed"])) == (503, ["files"])
            marker.write_bytes(content)
            wait_until(lambda: client.get("/readyz").status_code == 200)
