"""`capnn-edge` as its users start it: real processes, real sockets, real signals."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import httpx
import pytest

from edge_runtime.cli import main
from edge_runtime.slots import ModelSlots, StoredModel
from tests.edge_runtime.tiny_models import WEST, picture

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.edge_runtime.cloud_simulator import CloudSimulator

# A proxy of the environment must not get between the daemon and the simulated cloud.
ENVIRONMENT = {**os.environ, "NO_PROXY": "127.0.0.1"}


@contextlib.contextmanager
def running(*options: str, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start `capnn-edge run`; yield its process and address, and leave no process behind."""
    command = [sys.executable, "-m", "edge_runtime.cli", "run", *options]
    environment = {**ENVIRONMENT, **environment}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.fullmatch(r"capnn-edge: serving on (http://127\.0\.0\.1:\d+|unix:.*)\n", line)
        assert found, f"{line}{process.communicate(timeout=30)[1] if process.poll() is not None else ''}"
        yield process, found[1]
    finally:
        process.kill()
        process.communicate()


def options(cloud: CloudSimulator, state: Path) -> tuple[str, ...]:
    return "--cloud", cloud.url, "--key", cloud.key.public, "--state", str(state), "--port", "0"


def install(state: Path, base: StoredModel) -> None:
    slots = ModelSlots(state)
    slots.lock()
    slots.install_base(base)
    slots.unlock()


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "what was waited for did not happen"
        time.sleep(0.01)


def test_a_device_from_first_start_to_its_cut_under_two_clients(
    cloud: CloudSimulator, state: Path, tmp_path: Path, west: StoredModel, capsys: pytest.CaptureFixture[str]
):
    config = tmp_path / "edge.toml"
    config.write_text(
        f'state = "{state}"\n[cloud]\nurl = "{cloud.url}"\nkeys = ["{cloud.key.public}"]\nretry_first_s = 0.01\n'
        "[api]\nport = 0\n[monitor]\nperiod = 40\n"
    )
    statuses: list[int] = []
    done = threading.Event()

    def client(url: str) -> None:
        with httpx.Client(trust_env=False, timeout=30) as http:
            while not done.is_set():
                statuses.extend(http.post(f"{url}/v1/classify", content=picture(label)).status_code for label in WEST)

    with running("--config", str(config)) as (process, url), httpx.Client(trust_env=False) as http:
        wait_for(lambda: http.get(f"{url}/readyz").status_code == 200)
        clients = [threading.Thread(target=client, args=(url,), daemon=True) for _ in range(2)]
        for thread in clients:
            thread.start()
        wait_for(lambda: http.get(f"{url}/v1/status").json()["counters"]["swaps"] == 1)
        served = len(statuses)
        wait_for(lambda: len(statuses) >= served + 20)
        done.set()
        for thread in clients:
            thread.join()
        assert set(statuses) == {200}

        (tmp_path / "west.png").write_bytes(picture("north-west"))
        assert main(["classify", str(tmp_path / "west.png"), "--url", url]) == 0
        assert re.fullmatch(r".*/west\.png: north-west \(\d+\.\d %\)\n", capsys.readouterr().out)

        assert main(["status", "--url", url]) == 0
        shown = capsys.readouterr().out
        assert f"cut {west.manifest.digest[:12]} in slot" in shown
        assert re.search(r"^made for +(north|south)-west \d+ %, (north|south)-west \d+ %$", shown, re.MULTILINE)
        assert main(["status", "--url", url, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["model"]["digest"] == west.manifest.digest

        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=30)
        assert process.returncode == 0
        assert out == ""
        assert "Traceback" not in err
        assert "usage has changed" in err


def test_an_interrupt_ends_it_with_130_and_a_restart_needs_no_cloud(
    cloud: CloudSimulator, state: Path, base: StoredModel
):
    install(state, base)
    cloud.go_away()

    with running(*options(cloud, state)) as (process, url):
        answer = httpx.post(f"{url}/v1/classify", content=picture("north-east"), trust_env=False)
        assert answer.json()["class"] == "north-east"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)

    assert process.returncode == 130
    assert err.splitlines()[-1] == "capnn-edge: interrupted"
    assert "Traceback" not in err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_systemd_hears_of_the_daemon_and_a_signal_ends_it_cleanly(
    cloud: CloudSimulator, state: Path, base: StoredModel, tmp_path: Path, number: signal.Signals
):
    """No network, no cloud: it is ready all the same, and lives while its model answers."""
    install(state, base)
    cloud.go_away()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(60)
        watched = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "100000"}
        with running(*options(cloud, state), **watched) as (process, _):
            said = [systemd.recv(4096).decode() for _ in range(4)]
            process.send_signal(number)
            _, err = process.communicate(timeout=30)
        systemd.setblocking(False)  # noqa: FBT003 - as the socket module has it
        with contextlib.suppress(BlockingIOError):
            while True:
                said.append(systemd.recv(4096).decode())

    assert said[0] == "READY=1"
    assert said[1].startswith(f"STATUS=monitoring; base model {base.manifest.digest[:12]} serves")
    assert said[2:4] == ["WATCHDOG=1", "WATCHDOG=1"]
    assert said[-1] == "STOPPING=1"
    assert process.returncode == 0
    assert "Traceback" not in err


def test_lines_for_the_journal_have_their_priority(cloud: CloudSimulator, state: Path, tmp_path: Path):
    """As under systemd, which names the stream that stderr is."""
    cloud.go_away()
    log = tmp_path / "journal"
    with log.open("wb") as journal:
        stream = os.fstat(journal.fileno())
        environment = {**ENVIRONMENT, "JOURNAL_STREAM": f"{stream.st_dev}:{stream.st_ino}"}
        command = [sys.executable, "-m", "edge_runtime.cli", "run", *options(cloud, state)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=journal, env=environment)
        try:
            wait_for(lambda: "cannot be reached" in log.read_text())
        finally:
            process.terminate()
            process.wait(30)

    lines = log.read_text().splitlines()
    assert all(line.startswith(("<4>", "<6>")) for line in lines)
    assert lines[0] == f"<4>no verified model in {state}: fetching the base model from {cloud.url}"


def test_a_watched_folder_and_a_unix_socket(cloud: CloudSimulator, state: Path, base: StoredModel, tmp_path: Path):
    install(state, base)
    config = tmp_path / "edge.toml"
    config.write_text(
        f'state = "{state}"\n[cloud]\nurl = "{cloud.url}"\nkeys = ["{cloud.key.public}"]\n'
        '[api]\nsocket = "edge.sock"\n[watch]\nfolder = "pictures"\nevery_s = 0.02\n'
    )
    with running("--config", str(config)) as (process, url):
        assert url == f"unix:{tmp_path}/edge.sock"
        (tmp_path / "pictures" / "east.png").write_bytes(picture("north-east"))
        done = tmp_path / "pictures" / "done" / "east.png"
        wait_for(done.exists)
        assert main(["status", "--url", url]) == 0
        process.terminate()
        process.communicate(timeout=30)

    assert json.loads((tmp_path / "pictures" / "results.jsonl").read_text())["class"] == "north-east"
    assert not (tmp_path / "edge.sock").exists()


def test_status_can_be_watched_until_an_interrupt(cloud: CloudSimulator, state: Path, base: StoredModel):
    install(state, base)
    with running(*options(cloud, state)) as (_, url):
        command = [sys.executable, "-m", "edge_runtime.cli", "status", "--watch", "--url", url]
        watching = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            assert watching.stdout is not None
            first = watching.stdout.readline()
            lines = iter(watching.stdout.readline, "")
            assert first.startswith("\033[H\033[Jstate       monitoring")
            assert any(line.startswith("\033[H\033[J") for line in lines)  # and again
            watching.send_signal(signal.SIGINT)
            watching.communicate(timeout=30)
        finally:
            watching.kill()
            watching.communicate()

    assert watching.returncode == 130


def test_a_killed_daemon_leaves_nothing_that_hinders_the_next(cloud: CloudSimulator, state: Path):
    with running(*options(cloud, state)) as (process, url):
        wait_for(lambda: httpx.get(f"{url}/readyz", trust_env=False).status_code == 200)
        process.kill()
        process.wait(30)
    cloud.go_away()

    with running(*options(cloud, state)) as (_, url):
        assert httpx.get(f"{url}/readyz", trust_env=False).status_code == 200


def test_a_taken_port_is_named(cloud: CloudSimulator, state: Path, capsys: pytest.CaptureFixture[str]):
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            assert main(["run", *options(cloud, state)[:-1], str(port)]) == 1
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)

    error = capsys.readouterr().err
    assert error.startswith(f"capnn-edge: error: cannot listen on 127.0.0.1 port {port} (Address already in use)")


def test_pictures_are_classified_from_the_state_folder(
    state: Path, tmp_path: Path, base: StoredModel, capsys: pytest.CaptureFixture[str]
):
    install(state, base)
    good, bad = tmp_path / "good.png", tmp_path / "bad.png"
    good.write_bytes(picture("south-east"))
    bad.write_bytes(b"hello")

    assert main(["classify", str(good), "--state", str(state), "--json"]) == 0
    (answer,) = json.loads(capsys.readouterr().out)
    assert (answer["image"], answer["class"]) == (str(good), "south-east")

    assert main(["classify", str(bad), str(tmp_path / "none.png"), str(good), "--state", str(state)]) == 1
    shown = capsys.readouterr()
    assert re.fullmatch(rf"{good}: south-east \(\d+\.\d %\)\n", shown.out)
    first, second = shown.err.splitlines()
    assert first.startswith(f"capnn-edge: error: {bad}: not a picture")
    assert second == f"capnn-edge: error: {tmp_path / 'none.png'}: No such file or directory"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--state", "s"], "cloud.url is not set: add it below [cloud], or give --cloud (and 1 more"),
        (["run", "--config", "none.toml"], "none.toml: cannot be read (No such file or directory)"),
        (["run", "--cloud", "cloud.local", "--state", "s"], "--cloud: cloud.url is 'cloud.local': expected an address"),
        (["classify", "x.png", "--state", "none"], "none: holds no verified model (it is empty)"),
        (["status", "--url", "http://127.0.0.1:1"], "http://127.0.0.1:1/v1/status: no daemon answers"),
        (["status", "--url", "nonsense"], "nonsense/v1/status: no daemon answers"),
        (["status", "--url", "unix:/none"], "unix:/none/v1/status: no daemon answers"),
    ],
)
def test_a_failure_is_one_clear_line(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.chdir(tmp_path)

    assert main(arguments) == 1

    error = capsys.readouterr().err
    assert error.startswith(f"capnn-edge: error: {message}")
    assert error.count("\n") == 1


def test_another_service_is_not_taken_for_the_daemon(cloud: CloudSimulator, capsys: pytest.CaptureFixture[str]):
    assert main(["status", "--url", f"{cloud.url}/v1/base?"]) == 1
    assert "answers, but not as capnn-edge does: check --url" in capsys.readouterr().err


@pytest.mark.parametrize("command", [[], ["run"], ["check"], ["example"], ["classify"], ["status"]])
def test_help_shows_an_example(command: list[str], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        main([*command, "--help"])

    assert ended.value.code == 0
    assert "example:\n  capnn-edge " in capsys.readouterr().out


def test_wrong_usage_ends_with_2(capsys: pytest.CaptureFixture[str]):
    for arguments in ([], ["classify"], ["run", "--port", "many"], ["classify", "x", "--state", "s", "--url", "u"]):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 2
