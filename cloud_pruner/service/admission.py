"""What is let in: so many requests at once, and bodies of so many bytes that are not compressed.

The rest is refused before anything of it is read. A request counts while it is worked on, not while it waits for its
client or for a search: neither slow clients nor long searches keep others out.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from contextlib import nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, TypeAlias

from starlette.exceptions import HTTPException

from cloud_pruner.service.request_log import QUIET

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from cloud_pruner.service.metrics import ServiceMetrics
    from cloud_pruner.service.settings import LimitsSettings

__all__ = ["Admission", "waiting"]

_Headers: TypeAlias = "tuple[tuple[bytes, bytes], ...]"
_Refusal: TypeAlias = "tuple[int, str, _Headers]"

_CLOSE: Final[_Headers] = ((b"connection", b"close"),)
_SHOWN_AFTER_S: Final = 0.1

_log = logging.getLogger(__name__)


class Admission:
    """Middleware: answers 429 at once to what is too much."""

    def __init__(self, app: ASGIApp, limits: LimitsSettings, metrics: ServiceMetrics) -> None:
        self._app, self._limits, self._metrics = app, limits, metrics
        self._working = 0
        self._open = 0
        self._refused = 0
        self._told_at = 0.0
        self._is_shown = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif (refusal := _refusal(scope, self._limits.body_bytes)) is not None:
            await _answer(send, *refusal)
        elif scope["path"] in QUIET:
            await self._app(scope, receive, send)
        elif self._working >= self._limits.in_flight:
            await self._refuse("in_flight", scope, send)
        elif self._open >= self._limits.connections:
            await self._refuse("connections", scope, send)
        else:
            await self._admit(scope, receive, send)

    async def _admit(self, scope: Scope, receive: Receive, send: Send) -> None:
        place = _Place(self._count)
        mark = _PLACE.set(place)
        self._open += 1
        try:
            # All that came at once is counted before any of it is worked on.
            await asyncio.sleep(0)
            await self._app(scope, place.receiver(_bounded(receive, self._limits.body_bytes)), place.sender(send))
        finally:
            self._open -= 1
            _PLACE.reset(mark)
            place.leave()

    def _count(self, change: int) -> None:
        self._working += change
        if self._is_shown:  # not for each of thousands a second
            self._is_shown = False
            asyncio.get_running_loop().call_later(_SHOWN_AFTER_S, self._show)

    def _show(self) -> None:
        self._is_shown = True
        self._metrics.in_flight(self._working)

    async def _refuse(self, reason: str, scope: Scope, send: Send) -> None:
        self._metrics.rejected(reason)
        scope["state"]["notes"].quiet = True  # a line for each would be one more load
        self._refused += 1
        if time.monotonic() - self._told_at >= 1.0:
            _log.warning("%d requests were answered 429 since the last such line: %s is full", self._refused, reason)
            self._told_at, self._refused = time.monotonic(), 0
        await _answer(send, 429, "too many requests are under way: try again in a second", ((b"retry-after", b"1"),))


def waiting() -> AbstractContextManager[None]:
    """Return a context in which the request that is being answered does not count as being worked on."""
    return _PLACE.get() or nullcontext()


class _Place:
    """A request's place among those worked on, which it gives up while it waits for its client."""

    def __init__(self, count: Callable[[int], None]) -> None:
        self._count = count
        self._waits = 0
        count(1)

    def leave(self) -> None:
        if not self._waits:
            self._count(-1)

    def receiver(self, receive: Receive) -> Receive:
        async def waiting() -> Message:
            with self:
                return await receive()

        return waiting

    def sender(self, send: Send) -> Send:
        async def waiting(message: Message) -> None:
            with self:
                await send(message)

        return waiting

    def __enter__(self) -> None:
        """Begin to wait; an answer may be sent while more is awaited."""
        self._waits += 1
        if self._waits == 1:
            self._count(-1)

    def __exit__(self, *_: object) -> None:
        self._waits -= 1
        if not self._waits:
            self._count(1)


_PLACE: ContextVar[_Place | None] = ContextVar("place", default=None)


def _bounded(receive: Receive, limit: int) -> Receive:
    received = 0

    async def bounded() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > limit:
            raise HTTPException(413, _too_long(limit))
        return message

    return bounded


def _refusal(scope: Scope, limit: int) -> _Refusal | None:
    """Return how a request is refused for its headers alone."""
    named = {name for name, _ in scope["headers"]}
    if b"content-length" in named and b"transfer-encoding" in named:
        # Where a proxy goes by the one and this server by the other, a second request can hide in it (RFC 9112, 6.1).
        return 400, "Content-Length and Transfer-Encoding exclude each other: send one of them", _CLOSE
    for name, value in scope["headers"]:
        if name == b"content-length" and int(value) > limit:  # the server has checked that it is a number
            return 413, _too_long(limit), ()
        if name == b"content-encoding" and value.strip().lower() not in (b"", b"identity"):
            return 415, "compressed bodies are not read: send it as it is", ()
    return None


def _too_long(limit: int) -> str:
    return f"the body is longer than {limit} bytes: send class names and weights only"


async def _answer(send: Send, status: int, error: str, headers: _Headers) -> None:
    body = json.dumps({"error": error}).encode()
    lengths = ((b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": [*lengths, *headers]})
    await send({"type": "http.response.body", "body": body})
