"""Bodies of the service's requests and answers: msgpack for devices, JSON for people."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any, Final

import msgpack
from fastapi import Response
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from edge_runtime.errors import MessageError
from edge_runtime.messages import unpack
from edge_runtime.signing import public_text
from edge_runtime.wire import MSGPACK

if TYPE_CHECKING:
    from starlette.requests import Request

    from cloud_pruner.signing_keys import SigningKeys
    from edge_runtime.signing import SignedManifest

__all__ = [
    "JSON",
    "accepted_kind",
    "decoded",
    "kind_of",
    "manifest_fields",
    "manifest_response",
    "sent_kind",
    "statements_response",
]

JSON: Final = "application/json"

_DIGITS_MAX: Final = 19


def kind_of(header: str | None, default: str) -> str:
    """Return the first of our two content types that a header names, or `default`."""
    for part in (header or "").split(","):
        kind = part.partition(";")[0].strip().lower()
        if kind in (MSGPACK, JSON):
            return kind
    return default


def sent_kind(request: Request) -> str:
    """Return the content type of a request's body, JSON where it states none; raise HTTPException, 415, for another."""
    header = request.headers.get("content-type")
    if header and not kind_of(header, ""):
        raise HTTPException(415, f"bodies are {MSGPACK} or {JSON}: state the one that you send as Content-Type")
    return kind_of(header, JSON)


def accepted_kind(request: Request, default: str) -> str:
    """Return the content type that a request wants its answer in."""
    return kind_of(request.headers.get("accept"), default)


def decoded(body: bytes, kind: str) -> dict[str, Any]:
    """Return the fields of a request, or raise MessageError."""
    if kind == MSGPACK:
        return unpack(body)
    try:
        fields = json.loads(body, parse_int=_whole, parse_constant=_no_number)
        if b"\\ud" in body.lower():  # halves of characters can be written so, but not be passed on
            json.dumps(fields, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise MessageError(f"request is not valid JSON: {error}") from error
    if not isinstance(fields, dict):
        raise MessageError("request is not a JSON object")
    return fields


def manifest_fields(signed: SignedManifest) -> dict[str, Any]:
    """Return a signed manifest as JSON has it: what it says, and in base64 what was signed."""
    return {"manifest": unpack(signed.packed), "signed": _base64(signed.to_bytes())}


def manifest_response(signed: SignedManifest, kind: str) -> Response:
    """Answer with a signed manifest; in JSON also with what it says."""
    if kind == MSGPACK:
        return Response(signed.to_bytes(), media_type=MSGPACK)
    return JSONResponse(manifest_fields(signed))


def statements_response(keys: SigningKeys, kind: str) -> Response:
    """Answer with the statements on keys; in JSON also with the keys that they lead to."""
    if kind == MSGPACK:
        return Response(msgpack.packb(list(keys.statements), use_bin_type=True), media_type=MSGPACK)
    return JSONResponse(
        {
            "serial": keys.trusted.serial,
            "keys": {key: public_text(public) for key, public in keys.trusted.keys.items()},
            "signing": keys.signing,
            "statements": [_base64(statement) for statement in keys.statements],
        }
    )


def _whole(digits: str) -> int:
    if len(digits) > _DIGITS_MAX:
        raise ValueError(f"a number has {len(digits)} digits, at most {_DIGITS_MAX} are read")
    return int(digits)


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
