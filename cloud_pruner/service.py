"""The cloud service: answers devices that ask for the base model or for a cut of it.

==============================  =======================================================================================
`POST /v1/personalize`          a `PersonalizeRequest`; answers manifest, plan and, where wanted, the file
`GET /v1/base`                  the base model with its manifest
`GET /v1/status`                what is served, requests so far, and the cache's statistics, in JSON
`GET /livez`, `GET /readyz`     200: the profile is opened and checked before the service listens
==============================  =======================================================================================

Bodies are msgpack (`application/vnd.msgpack`) or JSON, by `Content-Type` for requests and `Accept` for answers (by
default as the request came); in JSON, plan and model are base64. Every error is `{"error": "one line"}` in JSON.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import logging
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from cloud_pruner.errors import PrunerError, RequestError
from cloud_pruner.personalize import base_manifest
from cloud_pruner.requests import PruneRequest
from edge_runtime.errors import EdgeError, MessageError
from edge_runtime.http_server import bounded_body
from edge_runtime.messages import unpack
from edge_runtime.wire import MSGPACK, PersonalizeAnswer, PersonalizeRequest

if TYPE_CHECKING:
    from cloud_pruner.personalize import Personalized, Personalizer

__all__ = ["make_service"]

_BODY_BYTES_MAX = 1 << 20
_JSON = "application/json"

_log = logging.getLogger(__name__)

_EXAMPLE = {
    "version": 1,
    "base": "<sha256 of the base model>",
    "usage": {"cat": 0.7, "dog": 0.3},
    "variant": "L",
    "epsilon": 0.03,
    "guarantee": "certified",
    "delta": 0.1,
}
_ANSWER_KINDS: dict[int | str, dict[str, Any]] = {
    200: {"content": {MSGPACK: {}, _JSON: {}}, "description": "manifest, plan and model"},
    400: {"description": "a body that breaks the contract, or a wish that cannot be met"},
    409: {"description": "the device holds another base model than the service"},
}


def make_service(personalizer: Personalizer, guarantee: str = "certified") -> FastAPI:  # noqa: C901 - one short function for each route
    """Return the ASGI application that answers with `personalizer`; `guarantee` is for requests that name none."""
    app = FastAPI(
        title="capnn cloud pruner", version="1", description="Cuts of a base model for the classes that a user meets."
    )
    profile = personalizer.profile
    base = PersonalizeAnswer(base_manifest(profile), b"", bytes(profile.base.content))
    answered: Counter[str] = Counter()
    lock = threading.Lock()

    def count(what: str) -> None:
        with lock:
            answered[what] += 1

    @app.post(
        "/v1/personalize",
        responses=_ANSWER_KINDS,
        openapi_extra={"requestBody": {"required": True, "content": {_JSON: {"example": _EXAMPLE}, MSGPACK: {}}}},
    )
    async def personalize(request: Request) -> Response:
        """Cut the base model for the classes in `usage`."""
        body = await bounded_body(request, _BODY_BYTES_MAX, "send class names and weights only")
        kind = _kind(request.headers.get("content-type"), _JSON)
        wish = PersonalizeRequest.from_fields(_decoded(body, kind))
        if wish.base != profile.base.digest:
            ours, theirs = profile.base.digest[:12], wish.base[:12]
            raise HTTPException(
                409, f"this service cuts base model {ours}…, the device holds {theirs}…: fetch /v1/base"
            )
        wishes = _given(variant=wish.variant, epsilon=wish.epsilon, guarantee=wish.guarantee, delta=wish.delta)
        wanted = PruneRequest(wish.usage, **{"guarantee": guarantee, **wishes})
        found = await run_in_threadpool(personalizer.personalize, wanted)
        count(found.manifest.cache_tier)
        _log_answer(wish, found)
        answer = PersonalizeAnswer(found.manifest, found.plan, found.model if wish.want_model else None)
        return _encoded(answer, _kind(request.headers.get("accept"), kind))

    @app.get("/v1/base", responses=_ANSWER_KINDS)
    def base_model(request: Request) -> Response:
        """Return the base model."""
        count("base")
        return _encoded(base, _kind(request.headers.get("accept"), MSGPACK))

    @app.get("/v1/status")
    def status() -> dict[str, Any]:
        """Return what is served and how requests were answered."""
        with lock:
            counts = dict(answered)
        return {
            "base": profile.base.digest,
            "profile": profile.digest,
            "classes": list(profile.classes),
            "answered": counts,
            "cache": None if personalizer.cache is None else dataclasses.asdict(personalizer.cache.statistics()),
        }

    @app.get("/livez")
    def livez() -> dict[str, bool]:
        """Return 200 while the process answers."""
        return {"alive": True}

    @app.get("/readyz")
    def readyz() -> dict[str, bool]:
        """Return 200: a service whose profile could not be opened never listens."""
        return {"ready": True}

    @app.exception_handler(HTTPException)
    async def http_error(_request: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse({"error": error.detail}, error.status_code, headers=error.headers)

    @app.exception_handler(MessageError)
    @app.exception_handler(RequestError)
    async def bad_request(_request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"error": str(error)}, 400)

    @app.exception_handler(PrunerError)
    @app.exception_handler(EdgeError)
    async def failed(request: Request, error: Exception) -> JSONResponse:
        _log.error("%s %s failed: %s", request.method, request.url.path, error)
        return JSONResponse({"error": str(error)}, 500)

    return app


def _kind(header: str | None, default: str) -> str:
    """Return the first of our two content types that a header names, or `default`."""
    for part in (header or "").split(","):
        kind = part.partition(";")[0].strip().lower()
        if kind in (MSGPACK, _JSON):
            return kind
    return default


def _decoded(body: bytes, kind: str) -> dict[str, Any]:
    if kind == MSGPACK:
        return unpack(body)
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise MessageError(f"request is not valid JSON: {error}") from error
    if not isinstance(fields, dict):
        raise MessageError("request is not a JSON object")
    return fields


def _encoded(answer: PersonalizeAnswer, kind: str) -> Response:
    if kind == MSGPACK:
        return Response(answer.to_bytes(), media_type=MSGPACK)
    return JSONResponse(
        {
            "manifest": answer.manifest.to_fields(),
            "plan": base64.b64encode(answer.plan).decode("ascii"),
            "model": None if answer.model is None else base64.b64encode(answer.model).decode("ascii"),
        }
    )


def _given(**wishes: Any) -> dict[str, Any]:
    return {name: value for name, value in wishes.items() if value is not None}


def _log_answer(wish: PersonalizeRequest, found: Personalized) -> None:
    _log.info(
        "%s: %d classes, %s, size %.3f, from %s in %.3f s",
        wish.device,
        len(found.manifest.usage),
        found.manifest.variant,
        found.manifest.relative_size,
        found.manifest.cache_tier,
        found.seconds,
    )
