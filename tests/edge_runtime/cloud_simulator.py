"""The cloud service as a device sees it: a real HTTP server on loopback, with the faults of networks and services."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections import deque
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import msgpack

from edge_runtime.digests import digest_of
from edge_runtime.messages import pack, unpack
from edge_runtime.wire import MSGPACK, PersonalizeRequest
from tests.edge_runtime.faults import Fault, of_file, wrong_file, wrong_manifest
from tests.support.signing import TestKey

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterable

    from typing_extensions import Self

    from edge_runtime.signing import SignedManifest
    from edge_runtime.slots import StoredModel
    from edge_runtime.wire import Manifest


@dataclass(frozen=True)
class FileRequest:
    """A request for a file: its digest, the first byte asked for, and how many bytes of it were sent."""

    digest: str
    offset: int
    sent: int


class CloudSimulator:
    """Serves `base`, and to a request for a cut the one of `cuts` that was made for its classes; 422 without such.

    Attributes
    ----------
    key, statements
        What answers are signed with, and the key statements.
    base_requests, cut_requests, file_requests, key_requests
        How often, or with what, each was asked for.
    files
        Digest -> content, also of plans.
    faults, file_faults
        What is to go wrong with the next manifests and files, one each, from the left.
    always, file_always
        What goes wrong with all of them.
    error
        What it says of internal errors.
    authorizations
        The headers that it was shown.
    pieces
        Files are sent so many bytes at a time, with a pause of 1 ms after each; None for at once.
    """

    def __init__(self, base: StoredModel, cuts: Iterable[StoredModel], plans: Iterable[bytes] = ()) -> None:
        self.base = base
        self.cuts = list(cuts)
        self.files = {digest_of(plan): plan for plan in plans}
        self.key = TestKey()
        self._stranger = TestKey()
        self.statements: list[bytes] = []
        self.base_requests = 0
        self.key_requests = 0
        self.cut_requests: list[PersonalizeRequest] = []
        self._file_requests: list[FileRequest] = []
        self._files_under_way = 0
        self.faults: deque[Fault] = deque()
        self.file_faults: deque[Fault] = deque()
        self.always: Fault | None = None
        self.file_always: Fault | None = None
        self.pieces: int | None = None
        self.error = "the search\nfailed"
        self.authorizations: set[str | None] = set()
        self._serial = 0
        self._given: list[SignedManifest] = []
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

    @property
    def requests(self) -> int:
        """How many there were of any kind."""
        return self.base_requests + self.key_requests + len(self.cut_requests) + len(self._file_requests)

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

    def speak_tls(self, context: ssl.SSLContext) -> None:
        """Speak TLS from now on; `url` changes."""
        assert self._server is not None
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"https://localhost:{self._port}"

    def wait_until(self, condition: Callable[[], bool], timeout: float = 60.0) -> None:
        """Wait for a condition on the requests that came; fail after `timeout` s."""
        with self._changed:
            assert self._changed.wait_for(condition, timeout), "the cloud did not get the requests that were expected"

    def break_stalled(self) -> None:
        """Break the connections that stall or drip; none does from now on."""
        self._stall_over.set()

    def behave(self) -> None:
        """Let nothing go wrong from now on."""
        self.always = self.file_always = None
        self.faults.clear()
        self.file_faults.clear()
        self.break_stalled()

    def asked_for_keys(self) -> bytes:
        with self._changed:
            self.key_requests += 1
            self._changed.notify_all()
        return bytes(msgpack.packb(self.statements))

    def asked(self, request: PersonalizeRequest | None) -> tuple[SignedManifest | None, Fault | None]:
        """Take down a request for a cut, or without one for the base, and return what it is answered."""
        with self._changed:
            if request is None:
                self.base_requests += 1
                model: StoredModel | None = self.base
            else:
                self.cut_requests.append(request)
                model = next((cut for cut in self.cuts if cut.manifest.usage.keys() >= request.usage.keys()), None)
            fault = self.faults.popleft() if self.faults else self.always
            self._changed.notify_all()
            if model is None:
                return None, fault
            manifest = model.manifest if request is None else replace(model.manifest, usage=request.usage)
            return self._signed(manifest, bytes(model.content), fault), fault

    def _signed(self, manifest: Manifest, content: bytes, fault: Fault | None) -> SignedManifest:
        if fault is Fault.REPLAYED:
            return self._given[0]
        if fault is Fault.NO_TFLITE:
            content = b"not a model" * 100
            manifest = of_file(manifest, content)
        elif fault is Fault.OTHER_SHAPE:
            content = content.replace(b"\x08\x00\x00\x00\x08\x00\x00\x00", b"\x04\x00\x00\x00\x10\x00\x00\x00")
            manifest = of_file(manifest, content)
        self.files[manifest.digest] = content
        self._serial = max(self._serial + 1, time.time_ns() // 1000)
        manifest = replace(wrong_manifest(manifest, fault), serial=self._serial)
        if fault is Fault.OTHER_KEY:
            return self._stranger.sign(manifest)
        signed = self.key.sign(manifest)
        if fault is Fault.WRONG_SIGNATURE:
            return replace(signed, packed=pack({**manifest.to_fields(), "relative_size": 0.1}))
        self._given.append(signed)
        return signed

    @property
    def file_requests(self) -> list[FileRequest]:
        """The requests for files; one whose last byte has just reached the device is waited for."""
        with self._changed:
            self._changed.wait_for(lambda: not self._files_under_way, timeout=1)
            return self._file_requests

    def asked_for_file(self) -> Fault | None:
        with self._changed:
            self._files_under_way += 1
            return self.file_faults.popleft() if self.file_faults else self.file_always

    def sent_file(self, request: FileRequest) -> None:
        with self._changed:
            self._file_requests.append(request)
            self._files_under_way -= 1
            self._changed.notify_all()

    def stall(self) -> None:
        self._stall_over.wait(60)

    def stalls(self) -> bool:
        """Wait a little; return whether what stalls goes on stalling."""
        return not self._stall_over.wait(0.005)


class _Handler(BaseHTTPRequestHandler):
    cloud: CloudSimulator

    def do_GET(self) -> None:
        self.cloud.authorizations.add(self.headers["authorization"])
        if self.path == "/v1/base":
            self._answer_manifest(None)
        elif self.path == "/v1/keys":
            self._send(200, self.cloud.asked_for_keys(), MSGPACK)
        elif self.path.startswith("/v1/files/"):
            self._answer_file(self.path.removeprefix("/v1/files/"))
        else:
            self._send(404, b"nothing here", "text/plain")

    def do_POST(self) -> None:
        assert self.path == "/v1/personalize"
        assert self.headers["content-type"] == MSGPACK
        self.cloud.authorizations.add(self.headers["authorization"])
        body = self.rfile.read(int(self.headers["content-length"]))
        self._answer_manifest(PersonalizeRequest.from_fields(unpack(body)))

    def log_message(self, *_: object) -> None:
        pass

    def handle(self) -> None:
        # A device that gives up closes the connection under the server's hands.
        with contextlib.suppress(OSError):
            super().handle()

    def _answer_manifest(self, request: PersonalizeRequest | None) -> None:
        signed, fault = self.cloud.asked(request)
        if self._misbehaves(fault):
            return
        if fault is Fault.REFUSED or signed is None:
            self._send(422, pack({"error": "these classes cannot be served"}), MSGPACK)
        elif fault is Fault.GARBAGE:
            self._send(200, b"<html>please log in</html>", "text/html")
        else:
            self._send(200, signed.to_bytes(), MSGPACK, fault)

    def _answer_file(self, digest: str) -> None:
        fault = self.cloud.asked_for_file()
        content = self.cloud.files.get(digest)
        offset = int((self.headers["range"] or "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        sent = 0
        try:
            if self._misbehaves(fault):
                return
            if fault is Fault.GONE or content is None:
                self._send(404, json.dumps({"error": "this file is not held any more"}).encode(), "application/json")
                return
            if fault is Fault.NOT_SATISFIABLE:
                self._send(416, b"", "text/plain")
                return
            assert not offset or self.headers["if-range"] == f'"{digest}"'
            headers = {"etag": f'"{digest}"'}
            begin = 0 if fault is Fault.NO_RANGE else offset
            if begin:
                headers["content-range"] = f"bytes {begin}-{len(content) - 1}/{len(content)}"
            if fault is Fault.OTHER_RANGE:
                headers["content-range"] = f"bytes {begin + 1}-{len(content) - 1}/{len(content)}"
            status = 206 if "content-range" in headers else 200
            body = wrong_file(content, fault)[begin:]
            sent = self._send(status, body, "application/octet-stream", fault, headers)
        finally:
            self.cloud.sent_file(FileRequest(digest, offset, sent))

    def _misbehaves(self, fault: Fault | None) -> bool:
        """Answer as a fault says that has nothing to do with what was asked for; return whether it was one."""
        if fault is Fault.STALL:
            self.cloud.stall()
        elif fault is Fault.ERROR_500:
            self._send(500, json.dumps({"error": self.cloud.error}).encode(), "application/json")
        elif fault is Fault.OVERLOADED:
            self._send(429, b"slow down", "text/plain")
        elif fault is Fault.REDIRECT:
            self._send(302, b"", "text/plain", headers={"location": self.path})
        elif fault is Fault.DRIP_HEAD:
            self.wfile.write(b"HTTP/1.1 200 OK\r\nx-endless: ")
            while self.cloud.stalls():
                self.wfile.write(b"x")
        else:
            return False
        self.close_connection = True
        return True

    def _send(
        self,
        status: int,
        content: bytes,
        kind: str,
        fault: Fault | None = None,
        headers: dict[str, str] | None = None,
    ) -> int:
        """Send an answer, and return how many bytes of its body were."""
        self.send_response(status)
        assert self.headers["cookie"] is None, "a device keeps no cookies"
        self.send_header("set-cookie", "device=tracked; path=/")
        self.send_header("content-type", kind)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if fault is not Fault.ENDLESS:
            self.send_header("content-length", str(len(content)))
        self.end_headers()
        half = len(content) // 2
        if fault is Fault.TRUNCATED:
            self._send_body(content[:half])
            self.connection.shutdown(socket.SHUT_RDWR)
            return half
        if fault is Fault.STALL_MIDDLE:
            self.wfile.write(content[:half])
            self.cloud.stall()
            return half
        if fault is Fault.DRIP:
            for number in range(len(content)):
                if not self.cloud.stalls():
                    return number
                self.wfile.write(content[number : number + 1])
        elif fault is Fault.ENDLESS:
            while self.cloud.stalls():
                self.wfile.write(bytes(1 << 20))
        else:
            self._send_body(content)
        return len(content)

    def _send_body(self, content: bytes) -> None:
        pieces = self.cloud.pieces
        for at in range(0, len(content), pieces or len(content) or 1):
            self.wfile.write(content[at : at + (pieces or len(content))])
            if pieces:
                time.sleep(0.001)
