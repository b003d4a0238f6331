"""Every error as one line of JSON, with the status that it has."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from cloud_pruner.errors import NameTakenError, PrunerError, RequestError, StateError, UnknownNameError
from cloud_pruner.service.answering import SlowError
from cloud_pruner.service.one_line import one_line
from cloud_pruner.service.searches import BusyError
from edge_runtime.errors import EdgeError, MessageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastapi import FastAPI
    from starlette.requests import Request

    from cloud_pruner.service.metrics import ServiceMetrics

__all__ = ["answer_errors"]

_STATE_RETRY_S = 2

_log = logging.getLogger(__name__)


def answer_errors(app: FastAPI, metrics: ServiceMetrics) -> None:  # noqa: C901 - one short function for each kind
    """Let every error be answered by its one line."""

    @app.exception_handler(HTTPException)
    async def http_error(_request: Request, error: HTTPException) -> JSONResponse:
        return _line(error.status_code, error.detail, error.headers)

    @app.exception_handler(RequestValidationError)
    async def not_valid(_request: Request, error: RequestValidationError) -> JSONResponse:
        first: dict[str, Any] = dict(error.errors()[0])
        where = ".".join(str(part) for part in first["loc"][1:])
        return _line(400, f"{where}: {first['msg']}" if where else str(first["msg"]))

    @app.exception_handler(MessageError)
    @app.exception_handler(RequestError)
    async def bad_request(_request: Request, error: Exception) -> JSONResponse:
        return _line(400, str(error))

    @app.exception_handler(UnknownNameError)
    async def unknown(_request: Request, error: UnknownNameError) -> JSONResponse:
        return _line(404, str(error))

    @app.exception_handler(NameTakenError)
    async def taken(_request: Request, error: NameTakenError) -> JSONResponse:
        return _line(409, str(error))

    @app.exception_handler(BusyError)
    async def busy(_request: Request, error: BusyError) -> JSONResponse:
        metrics.rejected("queue")
        return _line(429, str(error), {"retry-after": str(error.retry_after_s)})

    @app.exception_handler(SlowError)
    async def slow(_request: Request, error: SlowError) -> JSONResponse:
        return _line(503, str(error), {"retry-after": str(error.retry_after_s)})

    @app.exception_handler(StateError)
    async def away(request: Request, error: StateError) -> JSONResponse:
        metrics.state_error()
        _log.error("%s %s: %s", request.method, one_line(request.url.path), error)
        return _line(503, str(error), {"retry-after": str(_STATE_RETRY_S)})

    @app.exception_handler(ClientDisconnect)
    async def gone(_request: Request, _error: ClientDisconnect) -> JSONResponse:
        return _line(400, "the connection was closed before the request was complete")

    @app.exception_handler(PrunerError)
    @app.exception_handler(EdgeError)
    @app.exception_handler(OSError)
    async def failed(request: Request, error: Exception) -> JSONResponse:
        _log.error("%s %s failed: %s", request.method, one_line(request.url.path), error)
        return _line(500, str(error))

    @app.exception_handler(Exception)
    async def unforeseen(_request: Request, error: Exception) -> JSONResponse:
        return _line(500, f"{type(error).__name__}: this is a fault of the service: its log says more")


def _line(status: int, text: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": one_line(text)}, status, None if headers is None else dict(headers))
