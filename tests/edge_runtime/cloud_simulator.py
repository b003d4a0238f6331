"""The cloud service as a device sees it: a real HTTP server on loopback, with the faults of networks and services."""

from __future__ import annotations

import enum
import json
import threading
from collections import deque
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

from edge_runtime.certificate import Certificate
from edge_runtime.messages import pack, unpack
from edge_runtime.wire import MSGPACK, PersonalizeAnswer, PersonalizeRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from typing_extensions import Self

    from edge_runtime.slots import StoredModel


class Fault(enum.Enum):
    """What goes wrong with one answer."""

    ERROR_500 = "internal error, in JSON"
    OVERLOADED = "status 429"
    REFUSED = "status 422, in msgpack"
    TRUNCATED = "the connection breaks in the middle"
    STALL = "nothing comes, until `break_stalled`; then the connection breaks"
    GARBAGE = "status 200 and a web page, as behind a hotel's login"
    FLIPPED_BIT = "one bit of the file is wrong"
    NO_MODEL = "the answer holds no file"
    NO_TFLITE = "a file with the right digest that no interpreter loads"
    OTHER_BASE = "a cut of a base that the device does not hold"
    OTHER_CLASSES = "the classes have other names"
    OTHER_USAGE = "a cut for other classes than asked for"
    OTHER_CERTIFICATE = "the certificate is of another file"


class CloudSimulator:
    """Serves `base`, and to a request for a cut the one of `cuts` that was made for its classes; 422 without such.

    Attributes
    ----------
    base_requests, cut_requests
        How often each was asked for, and with what.
    faults
        What is to go wrong with the next answers, one each; cleared from the left.
    """

    def __init__(self, base: StoredModel, cuts: Iterable[StoredModel]) -> None:
        self.base = base
        self.cuts = list(cuts)
        self.base_requests = 0
        self.cut_requests: list[PersonalizeRequest] = []
        self.faults: deque[Fault] = deque()
        self._changed = threading.Condition()
        self._stall_over = threading.Event()
        self._server: ThreadingHTTPServer | None = None
        self._port = 0
        self.come_back()
        self.url = f"http://127.0.0.1:{self._port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.break_stalled()
        self.go_away()

    def go_away(self) -> None:
        """Stop listening: connections are refused."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def come_back(self) -> None:
        """Listen again, on the same port."""
        simulator = self

        class Handler(_Handler):
            cloud = simulator

        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), Handler)
        self._server.daemon_threads = True
        self._port = self._server.server_port
        # How often the loop looks for `shutdown`, in s.
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def wait_until(self, condition: Callable[[], bool], timeout: float = 30.0) -> None:
        """Wait for a condition on the requests that came; fail after `timeout` s."""
        with self._changed:
            assert self._changed.wait_for(condition, timeout), "the cloud did not get the requests that were expected"

    def asked(self, request: PersonalizeRequest | None) -> tuple[StoredModel | None, Fault | None]:
        with self._changed:
            if request is None:
                self.base_requests += 1
                model: StoredModel | None = self.base
            else:
                self.cut_requests.append(request)
                model = next((cut for cut in self.cuts if cut.manifest.usage.keys() >= request.usage.keys()), None)
                if model is not None:
                    model = replace(model, manifest=replace(model.manifest, usage=request.usage))
            fault = self.faults.popleft() if self.faults else None
            self._changed.notify_all()
        return model, fault

    def break_stalled(self) -> None:
        """Break the connections that stall; none does from now on."""
        self._stall_over.set()

    def stall(self) -> None:
        self._stall_over.wait(60)


class _Handler(BaseHTTPRequestHandler):
    cloud: CloudSimulator

    def do_GET(self) -> None:
        self._answer_with(None)

    def do_POST(self) -> None:
        assert self.headers["content-type"] == MSGPACK
        body = self.rfile.read(int(self.headers["content-length"]))
        self._answer_with(PersonalizeRequest.from_fields(unpack(body)))

    def log_message(self, *_: object) -> None:
        pass

    def _answer_with(self, request: PersonalizeRequest | None) -> None:
        if self.path.partition("?")[0] != ("/v1/base" if request is None else "/v1/personalize"):
            self._send(404, b"nothing here", "text/plain")
            return
        model, fault = self.cloud.asked(request)
        if fault is Fault.STALL:
            self.cloud.stall()
        elif fault is Fault.ERROR_500:
            self._send(500, json.dumps({"error": "the search\nfailed"}).encode(), "application/json")
        elif fault is Fault.OVERLOADED:
            self._send(429, b"slow down", "text/plain")
        elif fault is Fault.REFUSED or model is None:
            self._send(422, pack({"error": "these classes cannot be served"}), MSGPACK)
        elif fault is Fault.GARBAGE:
            self._send(200, b"<html>please log in</html>", "text/html")
        else:
            content = _damaged(model, fault)
            self._send(200, content, MSGPACK, sent=len(content) // 2 if fault is Fault.TRUNCATED else None)

    def _send(self, status: int, content: bytes, kind: str, sent: int | None = None) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[:sent])


def _damaged(model: StoredModel, fault: Fault | None) -> bytes:
    from edge_runtime.digests import digest_of

    manifest, content = model.manifest, model.content
    if fault is Fault.FLIPPED_BIT:
        content = bytes([*content[:100], content[100] ^ 1, *content[101:]])
    elif fault is Fault.NO_TFLITE:
        content = b"not a model"
        own = manifest.is_base
        manifest = replace(manifest, digest=digest_of(content))
        manifest = replace(manifest, base=manifest.digest) if own else manifest
    elif fault is Fault.OTHER_BASE:
        manifest = replace(manifest, base="0" * 64)
    elif fault is Fault.OTHER_CLASSES:
        manifest = replace(manifest, classes=manifest.classes[::-1])
    elif fault is Fault.OTHER_USAGE:
        manifest = replace(manifest, usage={"something else": 1.0})
    elif fault is Fault.OTHER_CERTIFICATE:
        manifest = replace(manifest, certificate=Certificate("0" * 64, "1" * 64, "binomial", 0.03, 0.1, {}))
    return PersonalizeAnswer(manifest, b"", None if fault is Fault.NO_MODEL else content).to_bytes()
