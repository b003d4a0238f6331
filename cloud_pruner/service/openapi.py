"""The service's own description: the bodies and errors that a program may meet, with examples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fastapi.openapi.utils import get_openapi

from cloud_pruner.service.bodies import JSON
from edge_runtime.wire import MSGPACK

if TYPE_CHECKING:
    from fastapi import FastAPI

__all__ = [
    "BASE_ANSWERS",
    "CUT_ANSWERS",
    "DIGEST_PATTERN",
    "FILE_ANSWERS",
    "JOB_ANSWERS",
    "JOB_PATTERN",
    "KEYS_ANSWERS",
    "METRICS_ANSWERS",
    "PERSONALIZE_BODY",
    "READY_ANSWERS",
    "STATUS_ANSWERS",
    "describe",
    "errors",
]

Answers = dict[int | str, dict[str, Any]]

DIGEST_PATTERN: Final = "^[0-9a-f]{64}$"
JOB_PATTERN: Final = "^[0-9a-f]{32}$"
_DIGEST: Final[dict[str, Any]] = {"type": "string", "pattern": DIGEST_PATTERN}
_DIGEST_EXAMPLE: Final = "3f2a9c1be04d5a7788c6b1d2e3f405162738495a6b7c8d9e0f1a2b3c4d5e6f70"
_JOB_EXAMPLE: Final = "8c1f6e0b5d2a49379e6f0a1b2c3d4e5f"
_TIME_EXAMPLE: Final = "2026-11-21T22:36:27+00:00"
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
        schemas |= {"Error": _ERROR_SCHEMA, **_SCHEMAS}
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


def _object(required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"type": "object", "properties": {**required, **(optional or {})}, "required": list(required)}


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}]}


_SHARE: Final = {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}
_ERROR_SCHEMA: Final = _object({"error": {"type": "string", "description": "one line"}})
_SCHEMAS: Final[dict[str, Any]] = {
    "PersonalizeRequest": _object(
        {
            "version": {"type": "integer", "const": 2},
            "base": {**_DIGEST, "description": "sha256 of the base model that the device holds"},
            "usage": {
                "type": "object",
                "additionalProperties": {"type": "number", "minimum": 0},
                "minProperties": 1,
                "description": "class name -> how often it comes up, on any scale",
            },
        },
        {
            "device": {"type": "string", "default": "device"},
            "variant": _or_null({"enum": ["L", "W", "M", "B"]}),
            "epsilon": _or_null(_SHARE),
            "guarantee": _or_null({"enum": ["certified", "empirical"]}),
            "delta": _or_null(_SHARE),
            "rolled_back": _or_null({"type": "string", "description": "the last cut taken back: which, and why"}),
        },
    ),
    "SignedManifest": _object(
        {
            "manifest": {
                **_object(
                    {
                        "version": {"type": "integer"},
                        "digest": _DIGEST,
                        "bytes": {"type": "integer"},
                        "base": _DIGEST,
                        "profile": {"type": "string"},
                        "classes": {"type": "array", "items": {"type": "string"}},
                        "usage": {"type": "object", "additionalProperties": {"type": "number"}},
                        "variant": {"type": "string"},
                        "epsilon": {"type": "number"},
                        "guarantee": {"type": "string"},
                        "relative_size": {"type": "number"},
                        "parameters": {"type": "integer"},
                        "cache_tier": {"type": "string"},
                        "serial": {"type": "integer"},
                    },
                    {
                        "plan": _or_null(_object({"digest": _DIGEST, "bytes": {"type": "integer"}})),
                        "certificate": _or_null({"type": "object"}),
                        "self_test": _or_null({"type": "object"}),
                    },
                ),
                "description": "what is signed, in clear",
            },
            "signed": {"type": "string", "format": "byte", "description": "the msgpack answer in base64"},
        }
    ),
    "Job": _object(
        {
            "id": {"type": "string", "pattern": JOB_PATTERN},
            "device": {"type": "string"},
            "state": {"enum": ["queued", "running", "done", "failed"]},
            "submitted": {"type": "string", "format": "date-time"},
            "finished": _or_null({"type": "string", "format": "date-time"}),
            "error": {"type": "string", "description": "why it failed; empty unless it did"},
        },
        {
            "manifest": {"type": "object", "description": "of a job that is done, as /v1/personalize answers it"},
            "signed": {"type": "string", "format": "byte"},
        },
    ),
    "Statements": _object(
        {
            "serial": {"type": "integer"},
            "keys": {"type": "object", "additionalProperties": {"type": "string"}},
            "signing": {"type": "string"},
            "statements": {"type": "array", "items": {"type": "string", "format": "byte"}},
        }
    ),
    "Status": _object(
        {
            "models": {"type": "object", "additionalProperties": {"$ref": "#/components/schemas/ModelStatus"}},
            "key": {"type": "string"},
            "answered": {"type": "object", "additionalProperties": {"type": "number"}},
        }
    ),
    "ModelStatus": _object(
        {
            "base": _DIGEST,
            "profile": {"type": "string"},
            "classes": {"type": "array", "items": {"type": "string"}},
            "candidate": _or_null({"type": "string"}),
            "share": {"type": "number"},
            "served": {"type": "array", "items": {"type": "string"}},
        }
    ),
    "Ready": _object(
        {"ready": {"type": "boolean"}, "failed": {"type": "object", "additionalProperties": {"type": "string"}}}
    ),
}


def _content(schema: str, example: dict[str, Any]) -> dict[str, Any]:
    return {"schema": {"$ref": f"#/components/schemas/{schema}"}, "example": example}


_MSGPACK: Final[dict[str, Any]] = {"schema": {"type": "string", "format": "binary"}}
_REQUEST_EXAMPLE: Final = {
    "version": 2,
    "base": _DIGEST_EXAMPLE,
    "usage": {"cat": 0.7, "dog": 0.3},
    "variant": "L",
    "epsilon": 0.03,
    "guarantee": "certified",
    "delta": 0.1,
}
_MANIFEST_EXAMPLE: Final[dict[str, Any]] = {
    "manifest": {
        "version": 2,
        "digest": _DIGEST_EXAMPLE,
        "bytes": 81920,
        "base": _DIGEST_EXAMPLE,
        "profile": _DIGEST_EXAMPLE,
        "classes": ["cat", "dog", "fox"],
        "usage": {"cat": 0.7, "dog": 0.3},
        "variant": "L",
        "epsilon": 0.03,
        "guarantee": "certified",
        "relative_size": 0.41,
        "parameters": 20480,
        "cache_tier": "search",
        "serial": 1795300000000000,
        "plan": {"digest": _DIGEST_EXAMPLE, "bytes": 2048},
    },
    "signed": "hKZwYWNrZWQ=",
}
_JOB_FIELDS: Final = {
    "id": _JOB_EXAMPLE,
    "device": "porch",
    "state": "queued",
    "submitted": _TIME_EXAMPLE,
    "finished": None,
    "error": "",
}
_MANIFEST: Final[dict[str, Any]] = {
    "description": "the signed manifest",
    "content": {MSGPACK: _MSGPACK, JSON: _content("SignedManifest", _MANIFEST_EXAMPLE)},
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
        "content": {JSON: _content("PersonalizeRequest", _REQUEST_EXAMPLE), MSGPACK: _MSGPACK},
    },
}
CUT_ANSWERS: Final[Answers] = {
    200: _MANIFEST,
    202: {
        "description": "a job, where `Prefer: respond-async` asked for one",
        "content": {MSGPACK: _MSGPACK, JSON: _content("Job", _JOB_FIELDS)},
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
            JSON: _content("Job", {**_JOB_FIELDS, "state": "done", "finished": _TIME_EXAMPLE}),
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
            JSON: _content(
                "Statements",
                {
                    "serial": 1,
                    "keys": {"8f434346648f6b96": "ed25519:…"},
                    "signing": "8f434346648f6b96",
                    "statements": ["hKZwYWNrZWQ="],
                },
            ),
        },
    },
    **errors(413, 415, 429),
}
STATUS_ANSWERS: Final[Answers] = {
    200: {
        "description": "what is served, and how often what was answered",
        "content": {
            JSON: _content(
                "Status",
                {
                    "models": {
                        "birds": {
                            "base": _DIGEST_EXAMPLE,
                            "profile": _DIGEST_EXAMPLE,
                            "classes": ["cat", "dog"],
                            "candidate": None,
                            "share": 0.0,
                            "served": [_DIGEST_EXAMPLE],
                        }
                    },
                    "key": "ed25519:…",
                    "answered": {"exact": 120, "search": 7, "base": 12},
                },
            )
        },
    },
    **errors(401, 403, 413, 415, 429, 503),
}
READY_ANSWERS: Final[Answers] = {
    200: {"description": "ready", "content": {JSON: _content("Ready", {"ready": True, "failed": {}})}},
    503: {
        "description": "not ready: `failed` names what is not, and why",
        "content": {JSON: _content("Ready", {"ready": False, "failed": {"database": "cannot be reached"}})},
    },
}
METRICS_ANSWERS: Final[Answers] = {
    200: {"description": "Prometheus' text format", "content": {"text/plain": {"schema": {"type": "string"}}}},
    **errors(401, 403, 503),
}
