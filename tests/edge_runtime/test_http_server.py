"""What device and service share of serving HTTP."""

from __future__ import annotations

import os
import socket
import stat
from typing import TYPE_CHECKING

import pytest

from edge_runtime.errors import ConfigError
from edge_runtime.http_server import listen, listen_unix, url_of

if TYPE_CHECKING:
    from pathlib import Path


def test_answers_do_not_wait_for_acknowledgements():
    """Connections have Nagle's algorithm off, which with delayed acknowledgements costs 40 ms an answer."""
    with listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        connection, _ = listener.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_address_in_use():
    with listen("127.0.0.1", 0) as listener, pytest.raises(ConfigError, match="choose another with --port or --host"):
        listen("127.0.0.1", listener.getsockname()[1])


def test_addresses_of_both_families():
    with listen("127.0.0.1", 0) as listener:
        assert url_of(listener) == f"http://127.0.0.1:{listener.getsockname()[1]}"
    if socket.has_dualstack_ipv6():
        with listen("::1", 0) as listener:
            assert url_of(listener) == f"http://[::1]:{listener.getsockname()[1]}"


def test_a_unix_socket_is_for_owner_and_group_and_goes_with_its_server(tmp_path: Path):
    path = tmp_path / "run" / "edge.sock"
    mask = os.umask(0)
    try:
        with listen_unix(path) as listener:
            assert url_of(listener) == f"unix:{path}"
            assert stat.S_IMODE(path.stat().st_mode) == 0o660
    finally:
        os.umask(mask)
    assert not path.exists()


def test_a_unix_socket_that_was_left_behind_is_replaced(tmp_path: Path):
    path = tmp_path / "edge.sock"
    with socket.socket(socket.AF_UNIX) as former:
        former.bind(str(path))
        former.listen()

    with listen_unix(path), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


def test_a_unix_socket_in_use_is_left_alone(tmp_path: Path):
    path = tmp_path / "edge.sock"
    with listen_unix(path), socket.socket(socket.AF_UNIX) as client:
        with pytest.raises(ConfigError, match=r"cannot listen on .*edge.sock \(Address already in use\)"):
            listen_unix(path).__enter__()
        client.connect(str(path))


def test_a_file_is_no_socket_to_replace(tmp_path: Path):
    path = tmp_path / "edge.sock"
    path.write_text("precious")

    with pytest.raises(ConfigError, match=r"choose another name for api.socket"):
        listen_unix(path).__enter__()

    assert path.read_text() == "precious"


def test_a_successors_socket_is_not_removed(tmp_path: Path):
    path = tmp_path / "edge.sock"
    with listen_unix(path):
        path.unlink()
        successor = listen_unix(path)
        successor.__enter__()

    assert path.exists()
    successor.__exit__(None, None, None)
    assert not path.exists()
