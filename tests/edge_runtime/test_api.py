from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING

import httpx
import pytest
import uvicorn

from edge_runtime.api import RAW_PIXELS, make_app
from edge_runtime.cli import main
from edge_runtime.config import ApiConfig, CloudConfig, EdgeConfig
from edge_runtime.daemon import EdgeDaemon
from edge_runtime.errors import ModelFileError
from edge_runtime.http_server import listen_unix
from edge_runtime.slots import ModelSlots, StoredModel
from tests.edge_runtime.tiny_models import CLASSES, picture, pixels

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.edge_runtime.cloud_simulator import CloudSimulator


def settings(cloud: CloudSimulator, state: Path) -> EdgeConfig:
    return EdgeConfig(
        state, CloudConfig(cloud.url, (cloud.key.public,), retry_first_s=0.01), api=ApiConfig(body_bytes_max=1000)
    )


@pytest.fixture
def daemon(cloud: CloudSimulator, state: Path, base: StoredModel) -> Iterator[EdgeDaemon]:
    slots = ModelSlots(state)
    slots.lock()
    slots.install_base(base)
    slots.unlock()
    with EdgeDaemon(settings(cloud, state)) as daemon:
        yield daemon


@contextlib.contextmanager
def running(daemon: EdgeDaemon, listener: socket.socket) -> Iterator[None]:
    """Serve `daemon` on `listener`."""
    server = uvicorn.Server(uvicorn.Config(make_app(daemon), log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join()


@contextlib.contextmanager
def serving(daemon: EdgeDaemon) -> Iterator[httpx.Client]:
    """Serve `daemon` on a free port; yield a client of it."""
    with socket.create_server(("127.0.0.1", 0)) as listener, running(daemon, listener):
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with httpx.Client(base_url=url, trust_env=False, timeout=30) as client:
            yield client


@pytest.fixture
def http(daemon: EdgeDaemon) -> Iterator[httpx.Client]:
    with serving(daemon) as client:
        yield client


@pytest.mark.parametrize("kind", ["image/png", "application/x-www-form-urlencoded", None])
def test_a_picture_is_classified_whatever_its_content_type(http: httpx.Client, base: StoredModel, kind: str | None):
    headers = {} if kind is None else {"content-type": kind}
    answer = http.post("/v1/classify", content=picture("south-west"), headers=headers)

    assert answer.status_code == 200
    fields = answer.json()
    assert (fields["class"], fields["index"], fields["audited"]) == ("south-west", 2, False)
    assert fields["model"] == base.manifest.digest
    assert fields["top"][0] == {"class": "south-west", "confidence": fields["confidence"]}
    assert len(fields["top"]) == len(CLASSES)


def test_raw_pixels_give_the_same_answer(http: httpx.Client):
    raw = http.post("/v1/classify", content=pixels("north-east").tobytes(), headers={"content-type": RAW_PIXELS})

    assert raw.status_code == 200
    assert raw.json() == http.post("/v1/classify", content=picture("north-east")).json()


@pytest.mark.parametrize(
    ("body", "kind", "status", "message"),
    [
        (b"", "image/png", 400, "not a picture"),
        (b"hello", "image/png", 400, "not a picture"),
        (picture("north-west")[:50], "image/png", 400, "damaged"),
        (
            bytes(63),
            RAW_PIXELS,
            400,
            "raw pixels are 63 bytes, the model takes 8 x 8 x 1 (height, width, channels) = 64",
        ),
        (bytes(1001), "image/png", 413, "longer than 1000 bytes"),
    ],
)
def test_bad_input_is_answered_with_one_clear_line(
    http: httpx.Client, body: bytes, kind: str, status: int, message: str
):
    answer = http.post("/v1/classify", content=body, headers={"content-type": kind})

    assert answer.status_code == status
    assert answer.json().keys() == {"error"}
    assert message in answer.json()["error"]
    assert "\n" not in answer.json()["error"]


def test_a_body_that_does_not_say_its_length_is_bounded_too(http: httpx.Client):
    answer = http.post("/v1/classify", content=iter([bytes(600), bytes(600)]))

    assert answer.status_code == 413


def test_status_counts_what_was_answered(http: httpx.Client, base: StoredModel, cloud: CloudSimulator):
    http.post("/v1/classify", content=picture("north-west"))
    http.post("/v1/classify", content=b"hello")

    fields = http.get("/v1/status").json()

    assert fields["state"] == "monitoring"
    assert fields["ready"] is True
    assert fields["cloud"] == cloud.url
    assert {name: count for name, count in fields["counters"].items() if count} == {"classified": 1, "failed": 1}
    assert (fields["monitoring"]["counted"], fields["monitoring"]["period"]) == (1, 250)
    assert fields["inference_s"] > 0
    assert fields["model"]["digest"] == base.manifest.digest
    assert fields["last_error"] is None


def test_metrics_tell_prometheus_what_was_answered(http: httpx.Client):
    http.post("/v1/classify", content=picture("north-west"))

    answer = http.get("/metrics")

    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    lines = answer.text.splitlines()
    assert "capnn_images_classified_total 1.0" in lines
    assert "capnn_inference_seconds_count 1.0" in lines
    assert "capnn_ready 1.0" in lines


def test_a_unix_socket_will_do(daemon: EdgeDaemon, tmp_path: Path):
    path = tmp_path / "edge.sock"
    with listen_unix(path) as listener, running(daemon, listener):
        image = tmp_path / "image.png"
        image.write_bytes(picture("north-west"))
        assert main(["classify", str(image), "--url", f"unix:{path}"]) == 0
        assert main(["status", "--url", f"unix:{path}"]) == 0

    assert main(["status", "--url", f"unix:{path}"]) == 1


def test_unknown_paths_and_methods_are_answered_in_json(http: httpx.Client):
    assert http.get("/v2").status_code == 404
    assert http.get("/v1/classify").status_code == 405
    assert http.get("/v1/classify").json() == {"error": "Method Not Allowed"}


def test_alive_and_ready_are_told_apart(cloud: CloudSimulator, state: Path):
    cloud.go_away()
    daemon = EdgeDaemon(settings(cloud, state))
    with daemon, serving(daemon) as http:
        assert http.get("/livez").status_code == 200
        assert http.get("/readyz").status_code == 503
        refused = http.post("/v1/classify", content=picture("north-west"))
        assert refused.status_code == 503
        assert "no model yet" in refused.json()["error"]

    with serving(daemon) as http:
        assert http.get("/livez").status_code == 503


def test_ready_once_there_is_a_model(http: httpx.Client):
    assert http.get("/readyz").json() == {"ready": True}


def test_many_clients_at_once_are_all_answered(http: httpx.Client, daemon: EdgeDaemon):
    answers: list[tuple[str, str]] = []

    def client(label: str) -> None:
        answers.extend((label, http.post("/v1/classify", content=picture(label)).json()["class"]) for _ in range(20))

    threads = [threading.Thread(target=client, args=(label,)) for label in CLASSES]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(answers) == 80
    assert all(shown == answered for shown, answered in answers)
    assert daemon.status()["counters"]["classified"] == 80


def test_the_daemon_works_while_its_models_answer(daemon: EdgeDaemon, monkeypatch: pytest.MonkeyPatch):
    assert daemon.works()
    base = daemon.classifier.models.base
    assert base is not None

    def fails(_: object) -> None:
        raise ModelFileError("the interpreter fails")

    monkeypatch.setattr(base, "run", fails)
    assert not daemon.works()
    daemon.records.add("classified")  # as if another model had answered meanwhile
    assert daemon.works()
    assert not daemon.works()
