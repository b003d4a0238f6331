"""`POST /v1/personalize`: a cut for the classes that a user meets, now or as a job."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool

from cloud_pruner.asked import Asked
from cloud_pruner.service.answering import check_base, request_of, signed_answer
from cloud_pruner.service.bodies import accepted_kind, decoded, manifest_response, sent_kind
from cloud_pruner.service.callers import admitted, asker_of
from cloud_pruner.service.one_line import one_line
from cloud_pruner.service.openapi import CUT_ANSWERS, PERSONALIZE_BODY
from cloud_pruner.service.routes_jobs import job_response
from edge_runtime.messages import pack
from edge_runtime.wire import PersonalizeRequest

if TYPE_CHECKING:
    from cloud_pruner.service.access import Caller
    from cloud_pruner.service.parts import ServiceParts

__all__ = ["router"]

_log = logging.getLogger(__name__)


def router(parts: ServiceParts) -> APIRouter:
    """Return the route."""
    routes = APIRouter(tags=["devices"])
    guarantee = parts.settings.server.guarantee

    @routes.post("/v1/personalize", operation_id="personalize", responses=CUT_ANSWERS, openapi_extra=PERSONALIZE_BODY)
    async def personalize(request: Request) -> Response:
        """Cut the base model for the classes in `usage`."""
        caller = await admitted(parts, request)
        kind = sent_kind(request)
        wish = PersonalizeRequest.from_fields(decoded(await request.body(), kind))
        asker = await asker_of(parts, caller, wish)
        request.state.notes.device = asker.name
        _hear(parts, caller, wish, asker.name)
        kind = accepted_kind(request, kind)
        check_base(wish, asker.served)
        wanted = request_of(wish, guarantee)
        if _prefers_a_job(request):
            Asked.of(asker.served.profile, wanted)  # what makes no sense is refused now
            job = await run_in_threadpool(parts.jobs.submit, asker.name, pack(wish.to_fields()))
            parts.phase.job_submitted.set()
            return await job_response(parts, job, kind, 202)
        found, signed = await signed_answer(parts, asker.served, wanted, asker.name)
        request.state.notes.tier = found.manifest.cache_tier
        request.state.notes.about = (
            f"{len(found.manifest.usage)} classes, {found.manifest.variant}, size {found.manifest.relative_size:.3f}"
        )
        parts.metrics.answered(found.manifest.cache_tier)
        return manifest_response(signed, kind)

    return routes


def _hear(parts: ServiceParts, caller: Caller, wish: PersonalizeRequest, device: str) -> None:
    """Note that a device was there, and what it says of the cut that it took back."""
    if caller.device is not None:
        parts.devices.saw(caller.device.name, wish.rolled_back)
    if wish.rolled_back is not None:
        parts.metrics.rolled_back()
        _log.warning("%s: rolled back: %s", device, one_line(wish.rolled_back))


def _prefers_a_job(request: Request) -> bool:
    wishes = ",".join(request.headers.getlist("prefer")).lower().split(",")
    return any(wish.partition(";")[0].strip() == "respond-async" for wish in wishes)
