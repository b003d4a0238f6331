"""What systemd hears, on real sockets."""

from __future__ import annotations

import os
import socket
import threading
import uuid
from typing import TYPE_CHECKING

import pytest

from edge_runtime.notify import Notifier, Watchdog

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(params=["file", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """A socket as systemd makes one, and its name in `NOTIFY_SOCKET`."""
    name = str(tmp_path / "notify") if request.param == "file" else f"@capnn-test-{uuid.uuid4()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(name.replace("@", "\0") if name.startswith("@") else name)
        listener.settimeout(30)
        yield listener, name


def heard(listener: socket.socket, count: int) -> list[str]:
    return [listener.recv(4096).decode() for _ in range(count)]


def test_a_daemon_says_that_it_is_ready_what_it_does_that_it_lives_and_that_it_ends(
    systemd: tuple[socket.socket, str],
):
    listener, name = systemd
    watched = {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "20000", "WATCHDOG_PID": str(os.getpid())}
    states = iter(["fetching the\nbase model", "monitoring", "monitoring"])
    watchdog = Watchdog(Notifier(watched), lambda: True, lambda: next(states, "monitoring"))

    watchdog.start()
    said = heard(listener, 8)
    watchdog.stop()

    assert said[:5] == ["READY=1", "STATUS=fetching the base model", "WATCHDOG=1", "STATUS=monitoring", "WATCHDOG=1"]
    assert set(said[5:]) == {"WATCHDOG=1"}  # a status that stays is not repeated
    while (last := heard(listener, 1)[0]) == "WATCHDOG=1":
        pass
    assert last == "STOPPING=1"


def test_a_daemon_that_is_not_well_is_not_said_to_live(systemd: tuple[socket.socket, str]):
    listener, name = systemd
    asked = threading.Event()

    def well() -> bool:
        if asked.is_set():
            return False
        asked.set()
        raise RuntimeError("the model is gone")

    watchdog = Watchdog(Notifier({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "2000"}), well, lambda: "monitoring")
    watchdog.start()
    assert asked.wait(30)
    watchdog.stop()

    assert heard(listener, 3) == ["READY=1", "STATUS=monitoring", "STOPPING=1"]


def test_a_daemon_that_hangs_is_not_said_to_live(systemd: tuple[socket.socket, str]):
    listener, name = systemd
    hangs, over = threading.Event(), threading.Event()

    def well() -> bool:
        hangs.set()
        return over.wait(60)

    watchdog = Watchdog(Notifier({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "2000"}), well, lambda: "monitoring")
    watchdog.start()
    assert hangs.wait(30)
    assert heard(listener, 2) == ["READY=1", "STATUS=monitoring"]
    listener.setblocking(False)  # noqa: FBT003 - as the socket module has it
    with pytest.raises(BlockingIOError):
        listener.recv(4096)
    over.set()
    listener.settimeout(30)
    assert heard(listener, 1) == ["WATCHDOG=1"]
    watchdog.stop()


@pytest.mark.parametrize(
    "environment",
    [{}, {"WATCHDOG_USEC": "1000"}, {"NOTIFY_SOCKET": "/nowhere/notify", "WATCHDOG_USEC": "1000"}],
)
def test_without_systemd_nothing_happens(environment: dict[str, str]):
    watchdog = Watchdog(Notifier(environment), lambda: True, lambda: "monitoring")

    watchdog.start()
    watchdog.stop()


@pytest.mark.parametrize(
    ("environment", "watchdog_s"),
    [
        ({"WATCHDOG_USEC": "60000000"}, 60.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_the_watchdogs_time_is_this_process_own(environment: dict[str, str], watchdog_s: float | None):
    assert Notifier(environment).watchdog_s == watchdog_s
