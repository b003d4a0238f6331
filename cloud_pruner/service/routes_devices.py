"""Devices over HTTP: operators register and revoke them; a device may look at itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

from fastapi import APIRouter, Depends, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from cloud_pruner.errors import RequestError, UnknownNameError
from cloud_pruner.service.bodies import JSON, decoded, sent_kind
from cloud_pruner.service.callers import admitted
from cloud_pruner.service.openapi import errors
from edge_runtime.messages import field

if TYPE_CHECKING:
    from cloud_pruner.service.parts import ServiceParts
    from cloud_pruner.state.devices import Device
    from cloud_pruner.state.history import CutRecord

__all__ = ["router"]

_PAGE_MAX: Final = 1000
_UNSTORED: Final = {"Cache-Control": "no-store"}  # tokens, and what may be revoked in the next moment

_DEVICE: Final[dict[str, Any]] = {
    "name": "porch",
    "model": "birds",
    "registered": "2026-11-21T22:36:27+00:00",
    "last_seen": "2026-11-22T07:00:00+00:00",
    "revoked": False,
    "rolled_back": "",
}
_TOKEN: Final = {"name": "porch", "model": "birds", "token": "q1mT…"}
_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            JSON: {
                "schema": {
                    "type": "object",
                    "properties": {
                        "name": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$"},
                        "model": {"type": "string", "default": "", "description": "where more than one is served"},
                    },
                    "required": ["name"],
                },
                "example": {"name": "porch", "model": "birds"},
            }
        },
    }
}


def router(parts: ServiceParts) -> APIRouter:  # noqa: C901 - one short function for each route
    """Return the routes."""
    routes = APIRouter(prefix="/v1/devices", tags=["devices"])
    operators = [Depends(parts.access.operator)]

    async def own(request: Request, name: str) -> None:
        """Raise unless whoever asks may see the device `name`."""
        caller = await admitted(parts, request)
        if not caller.may_act_for(name):
            raise HTTPException(403, "this is another device's: a device sees itself alone")

    def known(name: str) -> Device:
        device = parts.devices.get(name)
        if device is None:
            raise UnknownNameError("there is no such device here: GET /v1/devices names those there are")
        return device

    @routes.post(
        "",
        status_code=201,
        dependencies=operators,
        operation_id="register_device",
        responses={
            201: _answer("the device and its token, shown this once", _TOKEN),
            **errors(400, 401, 403, 409, 413, 415, 429, 503),
        },
        openapi_extra=_BODY,
    )
    async def register(request: Request) -> JSONResponse:
        """Register a device."""
        fields = decoded(await request.body(), sent_kind(request))
        name = field(fields, "name", str, "registration")
        model = field({"model": "", **fields}, "model", str, "registration")
        if model and model not in parts.catalogue.models:
            raise RequestError(f"model {model!r:.80} is not served: choose one of {', '.join(parts.catalogue.models)}")
        token = await run_in_threadpool(parts.devices.register, name, model)
        location = {"Location": f"/v1/devices/{name}"}
        return JSONResponse({"name": name, "model": model, "token": token}, 201, headers=_UNSTORED | location)

    @routes.get(
        "",
        dependencies=operators,
        operation_id="list_devices",
        responses={
            200: _answer("a page of devices, by name", {"devices": [_DEVICE], "next": None}),
            **errors(400, 401, 403, 413, 415, 429, 503),
        },
    )
    def all_devices(
        after: Annotated[str, Query(description="`next` of the page before")] = "",
        search: Annotated[str, Query(description="part of a name or model")] = "",
        limit: Annotated[int, Query(ge=1, le=_PAGE_MAX)] = 100,
    ) -> JSONResponse:
        """Return the registered devices, page by page."""
        devices = parts.devices.all(after=after, search=search, limit=limit)
        last = devices[-1].name if len(devices) == limit else None
        return JSONResponse({"devices": [_device_fields(device) for device in devices], "next": last})

    @routes.get(
        "/{name}",
        operation_id="get_device",
        responses={200: _answer("the device", _DEVICE), **errors(401, 403, 404, 413, 415, 429, 503)},
    )
    async def one(request: Request, name: str) -> JSONResponse:
        """Return a device."""
        await own(request, name)
        return JSONResponse(_device_fields(await run_in_threadpool(known, name)), headers=_UNSTORED)

    @routes.delete(
        "/{name}",
        dependencies=operators,
        operation_id="revoke_device",
        responses={
            200: _answer("the device", _DEVICE | {"revoked": True}),
            **errors(401, 403, 404, 413, 415, 429, 503),
        },
    )
    def revoke(name: str) -> JSONResponse:
        """Revoke a device: within 2 s no worker takes its token any more."""
        parts.devices.revoke(name)
        return JSONResponse(_device_fields(known(name)), headers=_UNSTORED)

    @routes.post(
        "/{name}/token",
        dependencies=operators,
        operation_id="renew_device_token",
        responses={
            200: _answer("the device and its token, shown this once", _TOKEN),
            **errors(401, 403, 404, 413, 415, 429, 503),
        },
    )
    def renew(name: str) -> JSONResponse:
        """Give a device, revoked or not, a new token; the former one no longer counts."""
        token = parts.devices.new_token(name)
        return JSONResponse({"name": name, "model": known(name).model, "token": token}, headers=_UNSTORED)

    @routes.get(
        "/{name}/cuts",
        operation_id="get_device_cuts",
        responses={
            200: _answer("the cuts that were named to it, newest first", {"device": "porch", "cuts": []}),
            **errors(400, 401, 403, 413, 415, 429, 503),
        },
    )
    async def cuts(request: Request, name: str, limit: Annotated[int, Query(ge=1, le=_PAGE_MAX)] = 100) -> JSONResponse:
        """Return the cuts that were named to a device, with what was certified of each."""
        await own(request, name)
        records = await run_in_threadpool(parts.history.of, name, limit)
        answer = {"device": name, "cuts": [_cut_fields(record) for record in records]}
        return JSONResponse(answer, headers=_UNSTORED)

    return routes


def _answer(description: str, example: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {JSON: {"schema": {"type": "object"}, "example": example}}}


def _device_fields(device: Device) -> dict[str, Any]:
    return {
        "name": device.name,
        "model": device.model,
        "registered": device.registered.isoformat(),
        "last_seen": None if device.last_seen is None else device.last_seen.isoformat(),
        "revoked": device.revoked,
        "rolled_back": device.rolled_back,
    }


def _cut_fields(record: CutRecord) -> dict[str, Any]:
    return {
        "at": record.at.isoformat(),
        "base": record.base,
        "profile": record.profile,
        "shortfall": record.shortfall,
        "manifest": record.manifest.to_fields(),
    }
