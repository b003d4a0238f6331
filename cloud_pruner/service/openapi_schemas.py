"""What the service's own description says of bodies: their schemas, and an example of each."""

from __future__ import annotations

from typing import Any, Final

__all__ = ["DIGEST_PATTERN", "JOB_PATTERN", "SCHEMAS"]

DIGEST_PATTERN: Final = "^[0-9a-f]{64}$"
JOB_PATTERN: Final = "^[0-9a-f]{32}$"
_DIGEST: Final[dict[str, Any]] = {"type": "string", "pattern": DIGEST_PATTERN}
_DIGEST_EXAMPLE: Final = "3f2a9c1be04d5a7788c6b1d2e3f405162738495a6b7c8d9e0f1a2b3c4d5e6f70"
_JOB_ID: Final = "8c1f6e0b5d2a49379e6f0a1b2c3d4e5f"
_TIME_EXAMPLE: Final = "2026-11-21T22:36:27+00:00"


def _object(required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"type": "object", "properties": {**required, **(optional or {})}, "required": list(required)}


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}]}


_SHARE: Final = {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}
_BODIES: Final[dict[str, Any]] = {
    "Error": _object({"error": {"type": "string", "description": "one line"}}),
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
            "variant": _or_null({"type": "string", "description": "how to prune: L, W, M, B, or a baseline"}),
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
_JOB_EXAMPLE: Final = {
    "id": _JOB_ID,
    "device": "porch",
    "state": "queued",
    "submitted": _TIME_EXAMPLE,
    "finished": None,
    "error": "",
}

_STATEMENTS_EXAMPLE: Final = {
    "serial": 1,
    "keys": {"8f434346648f6b96": "ed25519:…"},
    "signing": "8f434346648f6b96",
    "statements": ["hKZwYWNrZWQ="],
}
_STATUS_EXAMPLE: Final = {
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
}
_READY_EXAMPLE: Final[dict[str, Any]] = {"ready": False, "failed": {"database": "cannot be reached"}}

_EXAMPLES: Final[dict[str, list[dict[str, Any]]]] = {
    "Error": [{"error": "unknown class 'ct': the model knows cat, dog"}],
    "PersonalizeRequest": [_REQUEST_EXAMPLE],
    "SignedManifest": [_MANIFEST_EXAMPLE],
    "Job": [_JOB_EXAMPLE, {**_JOB_EXAMPLE, "state": "done", "finished": _TIME_EXAMPLE}],
    "Statements": [_STATEMENTS_EXAMPLE],
    "Status": [_STATUS_EXAMPLE],
    "Ready": [_READY_EXAMPLE],
}

SCHEMAS: Final[dict[str, Any]] = {
    name: {**schema, "examples": _EXAMPLES[name]} if name in _EXAMPLES else schema for name, schema in _BODIES.items()
}
"""By name; whole bodies have examples. They join the document late: FastAPI drops null from what it is given."""
