"""Whatever is sent to the service is refused with one line, cheaply, and others are answered meanwhile."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import struct
from contextlib import ExitStack

import httpx
import msgpack
import pytest

from edge_runtime.messages import pack
from edge_runtime.wire import MSGPACK
from tests.support.service import running_service, wait_until

JSON = "application/json"
MEGABYTE = 1 << 20


@pytest.fixture(scope="module")
def service(digits_profile, tmp_path_factory):
    limits = {"receive_s": 2.0, "keep_alive_s": 5.0, "device_rate": "100000/minute"}
    folder = tmp_path_factory.mktemp("hostile")
    with running_service(folder, digits_profile, limits=limits, server={"workers": 1}) as service:
        yield service
        assert "Traceback" not in service.process.log


@pytest.fixture(scope="module")
def device(service):
    device = service.device("porch")
    device.ask({"one": 1.0})
    return device


@pytest.fixture(autouse=True)
def nothing_is_broken(service, device):
    """After each test all workers still live, none has taken much memory, and devices are answered as ever."""
    workers, memory, failed = service.process.workers, service.process.memory, failures(service)
    yield
    assert service.process.workers == workers
    assert service.process.memory < memory + 64 * MEGABYTE
    wait_until(lambda: device.ask({"one": 1.0}))
    assert {status for status, _ in device.refusals} <= {429}
    assert failures(service) == failed


def failures(service):
    """Return how many requests were answered 5xx."""
    counts = service.metrics().items()
    return sum(count for name, count in counts if "capnn_requests_total" in name and 'status="5' in name)


def refused(answer, *statuses):
    assert answer.status_code in statuses, (answer.status_code, answer.text[:300])
    error = answer.json()["error"]
    assert error.isprintable()
    assert len(error) < 1000
    return error


def raw(service, sent, *, limit=MEGABYTE):
    """Send bytes as they are; return all that comes back until the service closes, or answers no more."""
    with socket.create_connection(("127.0.0.1", service.process.port), 30) as connection:
        got = bytearray()
        try:
            connection.sendall(sent)
            connection.settimeout(3)
            while len(got) < limit and (piece := connection.recv(1 << 16)):
                got += piece
        except (ConnectionError, TimeoutError):
            pass
        return bytes(got)


def statuses(answers):
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", answers)]


class TestPaths:
    def test_no_name_in_a_path_leads_anywhere_else(self, service):
        """Every route of the interface that has a name in its path, as an operator, who may do everything."""
        with service.client(service.operator) as http:
            paths = http.get("/openapi.json").json()["paths"]
            routes = [(path, method) for path, methods in paths.items() if "{" in path for method in methods]
            assert len(routes) >= 8
            for path, method in routes:
                for name in (
                    "..%2f..%2f..%2fetc%2fpasswd", "%2e%2e", "..%5c..%5cwin.ini", "%00", "a%0d%0aSet-Cookie:%20a=b",
                    "%ff%fe", "%E2%80%AE", "'%20OR%201=1--", "x" * 4000, "{}", "%25s%25n", "file:%2f%2f%2fetc",
                ):  # fmt: skip
                    body = {"json": {"candidate": name, "share": 0.1}} if method in ("put", "post") else {}
                    answer = http.request(method, re.sub(r"\{.*?\}", name, path), **body)
                    if answer.status_code == 200:  # where no tokens are required devices call themselves as they like
                        assert path == "/v1/devices/{name}/cuts"
                        assert answer.json()["cuts"] == []
                        continue
                    assert answer.status_code in (400, 404, 405), (method, path, name, answer.status_code)
                    assert "set-cookie" not in answer.headers
                    assert "root:" not in answer.text
                    assert answer.json()["error"].isprintable()


class TestBodies:
    @pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "gzip, gzip"])
    def test_compressed_ones_are_not_unpacked(self, device, encoding):
        answer = device.http.post("/v1/personalize", content=b"\x1f\x8b" * 100, headers={"content-encoding": encoding})
        refused(answer, 415)

    def test_endless_ones_end(self, device):
        """Without a Content-Length, 256 MB in pieces: it is not read to its end."""

        def pieces():
            for _ in range(256):
                yield bytes(MEGABYTE)

        with contextlib.suppress(httpx.WriteError, httpx.ReadError):  # it may close while we are sending
            refused(device.http.post("/v1/personalize", content=pieces()), 413)

    @pytest.mark.parametrize(
        "body",
        [
            b"\xdf\xff\xff\xff\xff",  # a map of four thousand million
            b"\xdd\xff\xff\xff\xff",
            b"\xdb\xff\xff\xff\xff",
            b"\xc6\xff\xff\xff\xff",
            b"\xc9\xff\xff\xff\xff\x00",
            b"\x81\xa5usage\xdf\xff\xff\xff\xff",
            b"\xdd\x00\x01\x00\x00" * 50_000,
            b"\x81\xa1a" * 80_000,
            b"\x91" * 200_000,
            b"\x81\xa1a\xd6\xff\xff\xff\xff\xff",  # a time
            b"\x81\xa1a\xc1",
            b"\x81\x01\x02",
            b"\x81\xa1\xff\x01",
        ],
    )
    def test_lengths_and_depths_of_msgpack(self, device, body):
        refused(device.http.post("/v1/personalize", content=body, headers={"content-type": MSGPACK}), 400)

    @pytest.mark.parametrize(
        "body",
        [
            b"[" * 200_000,
            b'{"a":' * 50_000,
            b'{"usage": ' + b"9" * 200_000 + b"}",
            b'{"usage": {"one": 1e999999999}}',
            b'{"usage": {"one": NaN}}',
            b'{"usage": {"one": -Infinity}}',
            b"\xff\xfe{\x00}\x00",
            b'{"usage": "\\ud800"}',
            b'{"\\u0000": "\\u0000"}',
            b"",
            b"null",
            b'"usage"',
            b"\x00" * 1000,
        ],
    )
    def test_lengths_and_depths_of_json(self, device, body):
        refused(device.http.post("/v1/personalize", content=body, headers={"content-type": JSON}), 400)

    @pytest.mark.parametrize(
        "change",
        [
            {"usage": {f"class {number}": 1.0 for number in range(10_000)}},
            {"usage": {"one\n\x1b[31m" + "e" * 100_000: 1.0}},
            {"usage": {"one": 1.7e308, "two": 1.7e308}},
            {"usage": {"one": 2**63}, "epsilon": 2**63},
            {"usage": {"one": -5e-324, "two": 1.0}},
            {"epsilon": 5e-325},
            {"usage": {"one": True}},
            {"usage": {"one": [1.0]}},
            {"variant": "Z" * 100_000},
            {"variant": "L\n"},
            {"guarantee": "\u202e" * 1000},
            {"delta": float("nan")},
            {"base": "\x00" * 64},
            {"version": 2.0},
            {"version": -(2**63)},
            {"device": "../" * 10_000, "usage": {}},
        ],
    )
    def test_fields(self, service, device, change):
        fields = msgpack.unpackb(device.wish({"one": 1.0})) | change
        answer = device.http.post("/v1/personalize", content=pack(fields), headers={"content-type": MSGPACK})
        refused(answer, 400, 403, 409)
        # An operator asks for any device: the same, by another way in, and as a job.
        with service.client(service.operator) as http:
            headers = {"content-type": JSON, "prefer": "respond-async"}
            refused(http.post("/v1/personalize", content=json.dumps(fields), headers=headers), 400, 409)

    def test_a_hundred_thousand_classes(self, device):
        """More than the limit for a body: refused before it is read."""
        fields = msgpack.unpackb(device.wish({"one": 1.0})) | {"usage": {str(n): 1.0 for n in range(100_000)}}
        answer = device.http.post("/v1/personalize", content=pack(fields), headers={"content-type": MSGPACK})
        refused(answer, 413)

    def test_the_same_field_twice(self, device):
        fields = json.dumps(msgpack.unpackb(device.wish({"one": 1.0})))
        twice = fields[:-1] + ', "usage": {"one": 2.0}, "usage": {"one": 1.0}}'
        answer = device.http.post("/v1/personalize", content=twice, headers={"content-type": JSON})
        assert answer.status_code == 200
        packed = b"\x82\xa5usage\x80\xa5usage\x80"
        refused(device.http.post("/v1/personalize", content=packed, headers={"content-type": MSGPACK}), 400)

    @pytest.mark.parametrize(
        "kind",
        ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/xml", "x" * 4000],
    )
    def test_content_types_that_are_none_of_ours(self, device, kind):
        body = device.wish({"one": 1.0})
        refused(device.http.post("/v1/personalize", content=body, headers={"content-type": kind}), 400, 415)

    def test_what_is_registered_has_a_plain_name(self, service):
        with service.client(service.operator) as http:
            for name in ("", "a b", "a\nb", "../x", "x" * 65, "ä", "\x00", None, 5, ["a"], {"a": 1}):
                refused(http.post("/v1/devices", json={"name": name}), 400)
            refused(http.post("/v1/devices", content=b"[" * 100_000, headers={"content-type": JSON}), 400)


class TestConnections:
    def test_header_floods(self, service):
        for headers in (
            b"".join(b"x-%d: y\r\n" % number for number in range(5_000)),
            b"x: " + b"y" * MEGABYTE,
            b"authorization: Bearer " + b"t" * 60_000 + b"\r\n",
            b"x-request-id: " + b"i" * 10_000 + b"\r\n",
            b"cookie: " + b"a=b; " * 5_000 + b"\r\n",
        ):
            answer = raw(service, b"GET /v1/base HTTP/1.1\r\nhost: a\r\n" + headers + b"connection: close\r\n\r\n")
            assert statuses(answer) in ([], [400], [401], [431])
            assert len(answer) < 2000

    @pytest.mark.parametrize(
        "sent",
        [
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),  # somebody speaks TLS
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"GET /livez\r\n\r\n",
            b"GET  /livez  HTTP/1.1\r\nhost: a\r\n\r\n",
            b"GET /livez HTTP/1.1\r\nhost: a\r\nx: a\x00b\r\n\r\n",
            b"GET /livez HTTP/1.1\r\nhost : a\r\n\r\n",
            b"GET /livez HTTP/1.1\r\nhost: a\r\ncontent-length: -1\r\n\r\n",
            b"GET /livez HTTP/1.1\r\nhost: a\r\ncontent-length: 1e3\r\n\r\n",
            b"GET /livez HTTP/1.1\r\nhost: a\r\ncontent-length: " + b"9" * 5000 + b"\r\n\r\n",
            b"POST /v1/personalize HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\ncontent-length: 5\r\n\r\nabcde",
            b"POST /v1/personalize HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
            b"POST /v1/personalize HTTP/1.1\r\nhost: a\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
            b"POST /v1/personalize HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n-5\r\nabc\r\n0\r\n\r\n",
            b"POST /v1/personalize HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n" + b"f" * 100 + b"\r\n",
        ],
    )
    def test_what_is_no_http(self, service, sent):
        answer = raw(service, sent)
        assert all(400 <= status < 500 for status in statuses(answer))

    def test_no_request_hides_in_another(self, service):
        """With both lengths stated, two servers in a row may disagree on where a request ends."""
        hidden = b"GET /v1/keys HTTP/1.1\r\nhost: a\r\n\r\n"
        lengths = b"content-length: %d\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n" % (len(hidden) + 5)
        smuggled = b"POST /v1/personalize HTTP/1.1\r\nhost: a\r\n" + lengths + hidden
        answer = raw(service, smuggled)
        assert len(statuses(answer)) == 1
        assert 400 <= statuses(answer)[0] < 500

    def test_pipelined_requests_are_answered_in_order(self, service):
        one = b"GET /v1/files/%s HTTP/1.1\r\nhost: a\r\n\r\n"
        livez = b"GET /livez HTTP/1.1\r\nhost: a\r\n\r\n"
        sent = one % (b"0" * 64) + livez + one % (b"1" * 64) + livez
        assert statuses(raw(service, sent)) == [401, 200, 401, 200]

    def test_slow_clients_hold_up_nobody(self, service, device):
        """Hundreds who begin a request and never end it: others are answered, and in the end they are let go."""
        begun = (
            b"GET /v1/base HT",
            b"POST /v1/personalize HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n",
            b"POST /v1/personalize HTTP/1.1\r\nhost: a\r\nauthorization: Bearer %s\r\ncontent-length: 50\r\n\r\n{"
            % service.tokens["porch"].encode(),
        )
        with ExitStack() as slow:
            connections = [
                slow.enter_context(socket.create_connection(("127.0.0.1", service.process.port), 30))
                for _ in range(300)
            ]
            for number, connection in enumerate(connections):
                connection.sendall(begun[number % 3])
            for _ in range(5):
                wait_until(lambda: device.ask({"one": 1.0}))
            wait_until(lambda: all(map(is_closed, connections)))

    def test_those_who_do_not_read_hold_up_nobody(self, service, device, digits_profile):
        request = b"GET /v1/files/%s HTTP/1.1\r\nhost: a\r\nauthorization: Bearer %s\r\n\r\n" % (
            digits_profile.base.digest.encode(),
            service.tokens["porch"].encode(),
        )
        with ExitStack() as deaf:
            for _ in range(50):
                connection = deaf.enter_context(socket.socket())
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                connection.settimeout(30)
                connection.connect(("127.0.0.1", service.process.port))
                connection.sendall(request * 20)
            for _ in range(5):
                wait_until(lambda: device.ask({"one": 1.0}))

    def test_those_who_break_off_hurt_nobody(self, service, device):
        whole = device.http.build_request("POST", "/v1/personalize", content=device.wish({"one": 1.0}))
        lines = [f"{name}: {value}" for name, value in whole.headers.items()]
        sent = "\r\n".join(["POST /v1/personalize HTTP/1.1", *lines, "", ""]).encode() + whole.read()
        for length in range(0, len(sent), 40):
            connection = socket.create_connection(("127.0.0.1", service.process.port), 30)
            connection.sendall(sent[:length])
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset
            connection.close()


def is_closed(connection):
    """Whether the service has closed a connection, reading what it may have said before."""
    connection.settimeout(0)
    try:
        while connection.recv(4096):
            pass
    except BlockingIOError:
        return False
    except ConnectionError:
        pass
    return True
