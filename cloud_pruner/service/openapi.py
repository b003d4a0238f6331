"""The service's own description: the bodies and errors that a program may meet, with examples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fastapi.openapi.utils import get_openapi

from cloud_pruner.service.bodies import JSON
from cloud_pruner.service.openapi_schemas import SCHEMAS
from edge_runtime.wire import MSGPACK

if TYPE_CHECKING:
    from fastapi import FastAPI

__all__ = [
    "BASE_ANSWERS",
    "CUT_ANSWERS",
    "FILE_ANSWERS",
    "JOB_ANSWERS",
    "KEYS_ANSWERS",
    "METRICS_ANSWERS",
    "PERSONALIZE_BODY",
    "READY_ANSWERS",
    "STATUS_ANSWERS",
    "describe",
    "errors",
]

Answers = dict[int | str, dict[str, Any]]

_SECURITY: Final = "token"

_ERROR_TEXTS: Final = {
    400: ("a request that makes no sense, or that cannot be met", "unknown class 'ct': the model knows cat, dog"),
    401: ("no token, or one that does not count", "no valid token: send Authorization: Bearer TOKEN"),
    403: ("a token that does not go so far", "this token may not do that: an operator's is needed"),
    404: ("there is no such thing here", "file 3f2a9c1be04d… is not kept here any more: ask for a manifest anew"),
    409: (
        "it does not fit what is there",
        "this service cuts base model 3f2a…, the device holds 77b1…: fetch /v1/base",
    ),
    413: ("a body that is too long", "the body is longer than 262144 bytes: send class names and weights only"),
    415: ("a body of another kind, or a compressed one", "compressed bodies are not read: send it as it is"),
    416: ("the range begins behind the end", "the file has 81920 bytes: ask for a part of them"),
    429: ("too much at once; `Retry-After` says when to try again", "32 searches wait already: try again later"),
    503: (
        "not now; `Retry-After` says when to try again",
        "the search takes longer than a request may wait: ask again",
    ),
}
_RETRY: Final = {"Retry-After": {"description": "seconds", "schema": {"type": "integer", "minimum": 1}}}
_HEADERS: Final[dict[int, dict[str, Any]]] = {
    401: {"WWW-Authenticate": {"schema": {"type": "string"}}},
    416: {"Content-Range": {"schema": {"type": "string"}}},
    429: _RETRY,
    503: _RETRY,
}


def errors(*statuses: int) -> Answers:
    """Return the declarations of errors by their status."""
    answers: Answers = {}
    for status in statuses:
        meaning, example = _ERROR_TEXTS[status]
        content = {JSON: {"schema": {"$ref": "#/components/schemas/Error"}, "example": {"error": example}}}
        answers[status] = {"description": meaning, "content": content, "headers": _HEADERS.get(status, {})}
    return answers


def describe(app: FastAPI, *, tokens: bool) -> dict[str, Any]:
    """Return the document of `/openapi.json`; `tokens`: whether callers must show one."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes, tags=app.openapi_tags
        )
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)
        schemas |= SCHEMAS
        document["components"]["securitySchemes"] = {
            _SECURITY: {"type": "http", "scheme": "bearer", "description": "a device's token, or an operator's"}
        }
        for path, operations in document["paths"].items():
            for operation in operations.values():
                operation["responses"].pop("422", None)  # answered 400 here
                if path.startswith("/v1/") and path != "/v1/keys":
                    operation["security"] = [{_SECURITY: []}] if tokens else [{}, {_SECURITY: []}]
        app.openapi_schema = document
    return app.openapi_schema


def _content(schema: str) -> dict[str, Any]:
    return {"schema": {"$ref": f"#/components/schemas/{schema}"}}


_MSGPACK: Final[dict[str, Any]] = {"schema": {"type": "string", "format": "binary"}}
_MANIFEST: Final[dict[str, Any]] = {
    "description": "the signed manifest",
    "content": {MSGPACK: _MSGPACK, JSON: _content("SignedManifest")},
}

PERSONALIZE_BODY: Final[dict[str, Any]] = {
    "parameters": [
        {
            "name": "Prefer",
            "in": "header",
            "required": False,
            "schema": {"type": "string"},
            "description": "`respond-async`: answer 202 with a job",
        }
    ],
    "requestBody": {
        "required": True,
        "content": {JSON: _content("PersonalizeRequest"), MSGPACK: _MSGPACK},
    },
}
CUT_ANSWERS: Final[Answers] = {
    200: _MANIFEST,
    202: {
        "description": "a job, where `Prefer: respond-async` asked for one",
        "content": {MSGPACK: _MSGPACK, JSON: _content("Job")},
        "headers": {"Location": {"description": "where the job is", "schema": {"type": "string"}}},
    },
    **errors(400, 401, 403, 404, 409, 413, 415, 429, 503),
}
BASE_ANSWERS: Final[Answers] = {200: _MANIFEST, **errors(400, 401, 403, 404, 413, 415, 429, 503)}
JOB_ANSWERS: Final[Answers] = {
    200: {
        "description": "the job, and of one that is done the signed manifest: in msgpack as `answer`",
        "content": {
            MSGPACK: _MSGPACK,
            JSON: _content("Job"),
        },
    },
    **errors(400, 401, 403, 404, 413, 415, 429, 503),
}
_TAG_HEADERS: Final[dict[str, Any]] = {
    name: {"schema": {"type": "string"}} for name in ("ETag", "Cache-Control", "Accept-Ranges")
}
_FILE: Final[dict[str, Any]] = {"content": {"application/octet-stream": _MSGPACK}, "headers": _TAG_HEADERS}
FILE_ANSWERS: Final[Answers] = {
    200: {"description": "the whole file", **_FILE},
    206: {
        "description": "the part that `Range` asks for",
        "content": _FILE["content"],
        "headers": {**_TAG_HEADERS, "Content-Range": {"schema": {"type": "string"}}},
    },
    304: {"description": "the file with the tag in `If-None-Match` is still the same", "headers": _TAG_HEADERS},
    **errors(400, 401, 403, 404, 413, 415, 416, 429, 503),
}
KEYS_ANSWERS: Final[Answers] = {
    200: {
        "description": "the signed statements on keys, oldest first",
        "content": {
            MSGPACK: _MSGPACK,
            JSON: _content("Statements"),
        },
    },
    **errors(413, 415, 429),
}
STATUS_ANSWERS: Final[Answers] = {
    200: {
        "description": "what is served, and how often what was answered",
        "content": {JSON: _content("Status")},
    },
    **errors(401, 403, 413, 415, 429, 503),
}
READY_ANSWERS: Final[Answers] = {
    200: {"description": "ready", "content": {JSON: _content("Ready")}},
    503: {
        "description": "not ready: `failed` names what is not, and why",
        "content": {JSON: _content("Ready")},
    },
}
METRICS_ANSWERS: Final[Answers] = {
    200: {"description": "Prometheus' text format", "content": {"text/plain": {"schema": {"type": "string"}}}},
    **errors(401, 403, 503),
}
