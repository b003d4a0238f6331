"""The cloud service: answers devices that ask for the base model or for a cut of it, and signs what it answers.

==============================  =======================================================================================
`POST /v1/personalize`          a `PersonalizeRequest`; answers the `SignedManifest` of a cut
`GET /v1/base`                  the `SignedManifest` of the base model
`GET /v1/files/{digest}`        a file that a manifest has named, a model or a plan; in parts where that is asked for
`GET /v1/keys`                  how the keys came and went: the signed statements, oldest first
`GET /v1/status`                what is served, requests so far, and the cache's statistics, in JSON
`GET /livez`, `GET /readyz`     200: the profile is opened and checked before the service listens
==============================  =======================================================================================

Bodies are msgpack (`application/vnd.msgpack`) or JSON, by `Content-Type` for requests and `Accept` for answers (by
default as the request came). The JSON is for people: it has the manifest in clear, and in base64 what was signed. Every
error is `{"error": "one line"}` in JSON.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any, Final

from fastapi import FastAPI, Path, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from cloud_pruner.errors import PrunerError, RequestError
from cloud_pruner.file_responses import file_response
from cloud_pruner.manifests import base_manifest
from cloud_pruner.released_files import ReleasedFiles
from cloud_pruner.requests import PruneRequest
from cloud_pruner.service_bodies import JSON, decoded, kind_of, manifest_response, statements_response
from edge_runtime.errors import EdgeError, MessageError
from edge_runtime.http_server import bounded_body
from edge_runtime.wire import MSGPACK, PersonalizeRequest

if TYPE_CHECKING:
    from cloud_pruner.personalize import Personalized, Personalizer
    from cloud_pruner.signer import Signer

__all__ = ["make_service"]

_BODY_BYTES_MAX: Final = 1 << 20
_LOGGED_TEXT_MAX: Final = 300

_log = logging.getLogger(__name__)

_EXAMPLE: Final = {
    "version": 2,
    "base": "<sha256 of the base model>",
    "usage": {"cat": 0.7, "dog": 0.3},
    "variant": "L",
    "epsilon": 0.03,
    "guarantee": "certified",
    "delta": 0.1,
}
_ERROR: Final[dict[str, Any]] = {
    "content": {
        JSON: {"schema": {"type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"]}}
    }
}
_ANY_ERROR: Final[dict[int | str, dict[str, Any]]] = {"default": {"description": "any other error", **_ERROR}}
_MANIFEST_KINDS: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": {MSGPACK: {}, JSON: {}}, "description": "the signed manifest"},
    **_ANY_ERROR,
}
_CUT_KINDS: Final[dict[int | str, dict[str, Any]]] = {
    **_MANIFEST_KINDS,
    400: {"description": "a body that breaks the contract, or a wish that cannot be met", **_ERROR},
    409: {"description": "the device holds another base model than the service", **_ERROR},
}
_FILE_KINDS: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": {"application/octet-stream": {}}, "description": "the whole file"},
    206: {"content": {"application/octet-stream": {}}, "description": "the part that `Range` asks for"},
    400: {"description": "this is no sha256", **_ERROR},
    404: {"description": "no such file is kept: ask for a manifest anew", **_ERROR},
    416: {"description": "`Range` begins behind the end", **_ERROR},
    **_ANY_ERROR,
}
_KEYS_KINDS: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": {MSGPACK: {}, JSON: {}}, "description": "a list of signed statements"},
    **_ANY_ERROR,
}


def make_service(  # noqa: C901 - one short function for each route
    personalizer: Personalizer, signer: Signer, guarantee: str = "certified"
) -> FastAPI:
    """Return the ASGI application that answers with `personalizer`; `guarantee` is for requests that name none.

    Raises
    ------
    ModelFileError
        The interpreter refuses the base model, or fails.
    """
    app = FastAPI(
        title="capnn cloud pruner", version="2", description="Cuts of a base model for the classes that a user meets."
    )
    profile = personalizer.profile
    base = base_manifest(profile)
    files = ReleasedFiles(profile.base)
    counted = _Counted()

    def cut(wish: PersonalizeRequest) -> Personalized:
        if wish.base != profile.base.digest:
            ours, theirs = profile.base.digest[:12], wish.base[:12]
            raise HTTPException(
                409, f"this service cuts base model {ours}…, the device holds {theirs}…: fetch /v1/base"
            )
        wishes = _given(variant=wish.variant, epsilon=wish.epsilon, guarantee=wish.guarantee, delta=wish.delta)
        found = personalizer.personalize(PruneRequest(wish.usage, **{"guarantee": guarantee, **wishes}))
        files.release(found)
        return found

    @app.post(
        "/v1/personalize",
        responses=_CUT_KINDS,
        openapi_extra={"requestBody": {"required": True, "content": {JSON: {"example": _EXAMPLE}, MSGPACK: {}}}},
    )
    async def personalize(request: Request) -> Response:
        """Cut the base model for the classes in `usage`."""
        body = await bounded_body(request, _BODY_BYTES_MAX, "send class names and weights only")
        kind = kind_of(request.headers.get("content-type"), JSON)
        wish = PersonalizeRequest.from_fields(decoded(body, kind))
        if wish.rolled_back is not None:
            counted.add("rolled_back")
            _log.warning("%s: rolled back: %s", _line(wish.device), _line(wish.rolled_back))
        found = await run_in_threadpool(cut, wish)
        signed = await run_in_threadpool(signer.sign, found.manifest)
        counted.add(found.manifest.cache_tier)
        _log_answer(wish, found)
        return manifest_response(signed, kind_of(request.headers.get("accept"), kind))

    @app.get("/v1/base", responses=_MANIFEST_KINDS)
    def base_model(request: Request) -> Response:
        """Return the base model's manifest."""
        counted.add("base")
        return manifest_response(signer.sign(base), kind_of(request.headers.get("accept"), MSGPACK))

    @app.get("/v1/files/{digest}", responses=_FILE_KINDS)
    def file(request: Request, digest: Annotated[str, Path(pattern="^[0-9a-f]{64}$")]) -> Response:
        """Return a file that a manifest has named."""
        content = files.get(digest)
        if content is None:
            raise HTTPException(404, f"file {digest[:12]}… is not kept here any more: ask for a manifest anew")
        response = file_response(content, digest, request.headers)
        counted.add("files")
        return response

    @app.get("/v1/keys", responses=_KEYS_KINDS)
    def keys(request: Request) -> Response:
        """Return the statements that lead from any key that was ever trusted to those trusted now."""
        return statements_response(signer.keys, kind_of(request.headers.get("accept"), MSGPACK))

    @app.get("/v1/status")
    def status() -> dict[str, Any]:
        """Return what is served and how requests were answered."""
        return {
            "base": profile.base.digest,
            "profile": profile.digest,
            "classes": list(profile.classes),
            "key": signer.keys.public,
            "answered": counted.all(),
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

    _answer_errors(app)
    return app


def _answer_errors(app: FastAPI) -> None:
    """Let every error be answered by its one line."""

    @app.exception_handler(HTTPException)
    async def http_error(_request: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse({"error": error.detail}, error.status_code, headers=error.headers)

    @app.exception_handler(RequestValidationError)
    async def no_digest(request: Request, _error: RequestValidationError) -> JSONResponse:
        name = _line(request.url.path.rpartition("/")[2])
        return JSONResponse({"error": f"'{name}' is no sha256: 64 lower-case hex digits are expected"}, 400)

    @app.exception_handler(MessageError)
    @app.exception_handler(RequestError)
    async def bad_request(_request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"error": str(error)}, 400)

    @app.exception_handler(PrunerError)
    @app.exception_handler(EdgeError)
    async def failed(request: Request, error: Exception) -> JSONResponse:
        _log.error("%s %s failed: %s", request.method, _line(request.url.path), error)
        return JSONResponse({"error": str(error)}, 500)


class _Counted:
    """How often what was answered, or told."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._turn = threading.Lock()

    def add(self, what: str) -> None:
        with self._turn:
            self._counts[what] += 1

    def all(self) -> dict[str, int]:
        with self._turn:
            return dict(self._counts)


def _given(**wishes: Any) -> dict[str, Any]:
    return {name: value for name, value in wishes.items() if value is not None}


def _log_answer(wish: PersonalizeRequest, found: Personalized) -> None:
    _log.info(
        "%s: %d classes, %s, size %.3f, from %s in %.3f s",
        _line(wish.device),
        len(found.manifest.usage),
        found.manifest.variant,
        found.manifest.relative_size,
        found.manifest.cache_tier,
        found.seconds,
    )


def _line(text: str) -> str:
    """Return what somebody else wrote as part of one line of a log."""
    return "".join(letter if letter.isprintable() else " " for letter in text[:_LOGGED_TEXT_MAX])
