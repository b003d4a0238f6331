"""Rollouts over HTTP, for operators: a new profile for a share of the devices, for more, for all, or for none."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Final

from fastapi import APIRouter, Depends, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse

from cloud_pruner.service.bodies import JSON, decoded, sent_kind
from cloud_pruner.service.openapi import errors
from edge_runtime.messages import field

if TYPE_CHECKING:
    from cloud_pruner.service.parts import ServiceParts
    from cloud_pruner.state.rollouts import Rollout

__all__ = ["router"]

_CURRENT: Final = "3f2a9c1be04d5a7788c6b1d2e3f405162738495a6b7c8d9e0f1a2b3c4d5e6f70"
_CANDIDATE: Final = "77b1d0a4c39e8f1265307b9d4e2f6c81a05d3e7f9b2c4a6880e1d3f5a7b9c2e4"
_ROLLOUT: Final = {"model": "birds", "current": _CURRENT, "candidate": _CANDIDATE, "share": 0.1}
_OBJECT: Final = {"type": "object"}
_CHANGED: Final[dict[int | str, dict[str, Any]]] = {
    200: {"description": "what is served now", "content": {JSON: {"schema": _OBJECT, "example": _ROLLOUT}}}
}
_LISTED: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "what is served of each model, and which profiles could be",
        "content": {
            JSON: {"schema": _OBJECT, "example": {"rollouts": [{**_ROLLOUT, "profiles": [_CURRENT, _CANDIDATE]}]}}
        },
    }
}
_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            JSON: {
                "schema": {
                    "type": "object",
                    "properties": {
                        "candidate": {"type": "string", "description": "digest of the profile, or its beginning"},
                        "share": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
                    },
                    "required": ["candidate", "share"],
                },
                "example": {"candidate": _CANDIDATE, "share": 0.1},
            }
        },
    }
}


def router(parts: ServiceParts) -> APIRouter:
    """Return the routes."""
    routes = APIRouter(prefix="/v1/rollouts", tags=["rollouts"], dependencies=[Depends(parts.access.operator)])
    rollouts = parts.rollouts

    @routes.get(
        "",
        operation_id="list_rollouts",
        responses={**_LISTED, **errors(401, 403, 413, 415, 429, 503)},
    )
    def all_rollouts() -> JSONResponse:
        """Return which profiles of each model are served to whom, and which could be."""
        listed = [{**_fields(one), "profiles": rollouts.listed(one.model)} for one in rollouts.all().values()]
        return JSONResponse({"rollouts": listed})

    @routes.put(
        "/{model}",
        operation_id="start_rollout",
        responses={**_CHANGED, **errors(400, 401, 403, 404, 409, 413, 415, 429, 503)},
        openapi_extra=_BODY,
    )
    async def start(request: Request, model: str) -> JSONResponse:
        """Serve a share of the devices with another profile; the same one again sets its share anew."""
        fields = decoded(await request.body(), sent_kind(request))
        candidate = field(fields, "candidate", str, "rollout")
        share = field(fields, "share", float, "rollout")
        return JSONResponse(_fields(await run_in_threadpool(rollouts.start, model, candidate, share)))

    @routes.post(
        "/{model}/finish",
        operation_id="finish_rollout",
        responses={**_CHANGED, **errors(401, 403, 404, 413, 415, 429, 503)},
    )
    def finish(model: str) -> JSONResponse:
        """Serve all devices with the profile on trial."""
        return JSONResponse(_fields(rollouts.finish(model)))

    @routes.post(
        "/{model}/take-back",
        operation_id="take_back_rollout",
        responses={**_CHANGED, **errors(401, 403, 404, 413, 415, 429, 503)},
    )
    def take_back(model: str) -> JSONResponse:
        """Serve all devices with the current profile again."""
        return JSONResponse(_fields(rollouts.take_back(model)))

    return routes


def _fields(rollout: Rollout) -> dict[str, Any]:
    return dataclasses.asdict(rollout)
