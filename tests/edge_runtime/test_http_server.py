"""What device and service share of serving HTTP."""

from __future__ import annotations

import socket

import pytest

from edge_runtime.errors import ConfigError
from edge_runtime.http_server import listen, url_of


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
