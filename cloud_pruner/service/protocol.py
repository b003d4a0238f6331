"""HTTP as uvicorn speaks it, for bad clients: who is slow to send a request is cut off, and errors are JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    import asyncio

__all__ = ["ImpatientProtocol", "ServiceConfig"]


class ServiceConfig(uvicorn.Config):
    """uvicorn's settings, and how long after its first byte a request has to be complete, in s."""

    def __init__(self, app: Any, *, receive_s: float, **options: Any) -> None:
        super().__init__(app, http=ImpatientProtocol, **options)
        self.receive_s = receive_s


class ImpatientProtocol(H11Protocol):
    """A connection whose requests have to come in time."""

    config: ServiceConfig
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request."""
        super().connection_made(transport)
        self._expect()

    def data_received(self, data: bytes) -> None:
        """Take some bytes; the first of a request start its time."""
        if self._deadline is None:
            self._expect()
        super().data_received(data)

    def on_response_complete(self) -> None:
        """Go on with the next request, whose time starts with its first byte; the rest of this one has to come."""
        if not self.cycle.more_body:
            self._relax()
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._relax()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, where an answer can still be sent, and end."""
        body = json.dumps({"error": f"{msg} See that it is HTTP/1.1, with at most 16 kB of headers."}).encode()
        headers = [("content-type", "application/json"), ("content-length", str(len(body))), ("connection", "close")]
        if self.conn.our_state is h11.IDLE or self.conn.our_state is h11.SEND_RESPONSE:
            answer = h11.Response(status_code=400, headers=headers, reason=b"Bad Request")
            for event in (answer, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _expect(self) -> None:
        self._deadline = self.loop.call_later(self.config.receive_s, self._give_up)

    def _relax(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self) -> None:
        """Cut off a client whose request is not complete."""
        self._deadline = None
        if self.cycle is None or self.cycle.response_complete or self.cycle.more_body:
            self.transport.close()
