"""What is served: base models, the files that manifests name, the keys, and a summary."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from cloud_pruner.service.bodies import accepted_kind, manifest_response, statements_response
from cloud_pruner.service.callers import admitted, served_to_device
from cloud_pruner.service.file_responses import file_response
from cloud_pruner.service.openapi import (
    BASE_ANSWERS,
    FILE_ANSWERS,
    KEYS_ANSWERS,
    STATUS_ANSWERS,
)
from cloud_pruner.service.openapi_schemas import DIGEST_PATTERN
from edge_runtime.wire import MSGPACK

if TYPE_CHECKING:
    from cloud_pruner.service.access import Caller
    from cloud_pruner.service.parts import ServiceParts

__all__ = ["router"]


def router(parts: ServiceParts) -> APIRouter:
    """Return the routes."""
    routes = APIRouter()
    bases = {served.base.digest for served in parts.catalogue.all()}

    def named(caller: Caller, digest: str) -> bytes | memoryview | None:
        """Return a file where its caller was told of it."""
        if caller.device is not None and digest not in bases and not parts.history.named_to(caller.device.name, digest):
            return None
        return parts.files.get(digest)

    @routes.get("/v1/base", tags=["devices"], operation_id="base", responses=BASE_ANSWERS, response_class=Response)
    async def base(request: Request, model: Annotated[str, Query(max_length=64)] = "") -> Response:
        """Return the base model's manifest: the device's own, or one of `model`."""
        caller = await admitted(parts, request)
        served = served_to_device(parts, caller.device, model)
        if caller.device is not None:
            parts.devices.saw(caller.device.name)
        signed = await run_in_threadpool(parts.signer.sign, served.base)
        parts.metrics.base()
        return manifest_response(signed, accepted_kind(request, MSGPACK))

    @routes.get(
        "/v1/files/{sha256}", tags=["devices"], operation_id="file", responses=FILE_ANSWERS, response_class=Response
    )
    async def file(request: Request, sha256: Annotated[str, Path(pattern=DIGEST_PATTERN)]) -> Response:
        """Return a file that a manifest has named."""
        caller = await admitted(parts, request)
        content = await run_in_threadpool(named, caller, sha256)
        if content is None:
            raise HTTPException(404, f"file {sha256[:12]}… is not kept here any more: ask for a manifest anew")
        response, sent = file_response(content, sha256, request.headers)
        parts.metrics.file(sent)
        return response

    @routes.get("/v1/keys", tags=["devices"], operation_id="keys", responses=KEYS_ANSWERS, response_class=Response)
    def keys(request: Request) -> Response:
        """Return the statements that lead from any key that was ever trusted to those trusted now."""
        return statements_response(parts.signer.keys, accepted_kind(request, MSGPACK))

    @routes.get("/v1/status", tags=["operators"], operation_id="status", responses=STATUS_ANSWERS)
    async def status(request: Request) -> dict[str, Any]:
        """Return what is served and how requests were answered."""
        await parts.access.operator(request)
        return await run_in_threadpool(_status, parts)

    return routes


def _status(parts: ServiceParts) -> dict[str, Any]:
    models = {}
    for model in parts.catalogue.models:
        served, rollout = parts.catalogue.for_device(None, model), parts.rollouts.get(model)
        models[model] = {
            "base": served.base.digest,
            "profile": served.digest,
            "classes": list(served.profile.classes),
            "candidate": None if rollout is None else rollout.candidate,
            "share": 0.0 if rollout is None else rollout.share,
            "served": [one.digest for one in parts.catalogue.profiles(model)],
        }
    answered = {name.removeprefix("tier:"): count for name, count in parts.metrics.totals().items()}
    return {"models": models, "key": parts.signer.keys.public, "answered": answered}
