"""One line a request in the log, plain or in JSON, with an id that is also in the answer."""

from __future__ import annotations

import json
import logging
import re
import time
import uuid
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Final

from cloud_pruner.service.one_line import one_line

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from cloud_pruner.service.metrics import ServiceMetrics

__all__ = ["QUIET", "JsonLines", "RequestLog", "RequestNotes", "note_device", "set_up_logging"]

QUIET: Final = frozenset({"/livez", "/readyz", "/metrics"})
"""Asked for every few seconds by machines: not logged, and answered whatever the load."""

_ID: Final = re.compile(rb"[!-~]{1,64}")

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class RequestNotes:
    """What is noted of a request on its way.

    Attributes
    ----------
    id
        Its own, or one made here.
    device, tier, about
        Who asked; where its answer came from; more in words.
    quiet
        Whether it gets no line.
    """

    id: str
    device: str = ""
    tier: str = ""
    about: str = ""
    quiet: bool = False


def note_device(request: Request, name: str) -> None:
    """Note who asks."""
    request.state.notes.device = name


class RequestLog:
    """Middleware: gives each request its id and notes, counts its answer and logs it."""

    def __init__(self, app: ASGIApp, metrics: ServiceMetrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, and log how."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = time.perf_counter()
        notes = RequestNotes(_id_of(scope))
        scope.setdefault("state", {})["notes"] = notes
        status, seconds = 500, 0.0

        async def answer(message: Message) -> None:
            nonlocal status, seconds
            if message["type"] == "http.response.start":
                status, seconds = message["status"], time.perf_counter() - start
                message = {**message, "headers": [*message.get("headers", ()), (b"x-request-id", notes.id.encode())]}
            await send(message)

        try:
            await self._app(scope, receive, answer)
        finally:
            if scope["path"] not in QUIET:
                seconds = seconds or time.perf_counter() - start
                route = getattr(scope.get("route"), "path", "other")
                self._metrics.request(route, status, seconds)
                if not notes.quiet:
                    _write(scope, notes, status, seconds)


class JsonLines(logging.Formatter):
    """Writes a record as one JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's line."""
        fields: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "process": record.process,
        }
        fields |= getattr(record, "fields", None) or {"event": one_line(record.getMessage(), 2000)}
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return json.dumps(fields)


def set_up_logging(kind: str) -> None:
    """Log to stderr, in "plain" lines or as "json"."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if kind == "json" else logging.Formatter("capnn serve: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)


def _id_of(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _ID.fullmatch(value):
            return str(value.decode("ascii"))
    return uuid.uuid4().hex


def _write(scope: Scope, notes: RequestNotes, status: int, seconds: float) -> None:
    if not _log.isEnabledFor(logging.INFO):
        return
    method, path, device = one_line(scope["method"], 20), one_line(scope["path"], 200), one_line(notes.device, 64)
    fields = {
        "event": "request",
        "id": notes.id,
        "method": method,
        "path": path,
        "status": status,
        "seconds": round(seconds, 6),
        "device": device,
        "tier": notes.tier,
        "about": notes.about,
    }
    words = ", ".join(filter(None, (notes.about, notes.tier and f"from {notes.tier}")))
    _log.info(
        "%s: %d %s %s%s, %.3f s [%s]",
        device or "-",
        status,
        method,
        path,
        f", {words}" if words else "",
        seconds,
        notes.id,
        extra={"fields": fields},
    )
