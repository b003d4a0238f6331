"""`GET /v1/jobs/{id}`: how far a job is, and what came of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Path, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from cloud_pruner.service.bodies import JSON, accepted_kind, manifest_fields
from cloud_pruner.service.callers import admitted
from cloud_pruner.service.openapi import JOB_ANSWERS
from cloud_pruner.service.openapi_schemas import JOB_PATTERN
from edge_runtime.messages import pack, unpack
from edge_runtime.wire import MSGPACK, Manifest

if TYPE_CHECKING:
    from cloud_pruner.service.parts import ServiceParts
    from cloud_pruner.state.jobs import Job
    from edge_runtime.signing import SignedManifest

__all__ = ["job_response", "router"]


def router(parts: ServiceParts) -> APIRouter:
    """Return the route."""
    routes = APIRouter(tags=["devices"])

    @routes.get("/v1/jobs/{id}", operation_id="job", responses=JOB_ANSWERS, response_class=Response)
    async def job(request: Request, id: Annotated[str, Path(pattern=JOB_PATTERN)]) -> Response:  # noqa: A002 - its name in the interface
        """Return a job, and the signed manifest of one that is done."""
        caller = await admitted(parts, request)
        found = await run_in_threadpool(parts.jobs.get, id)
        # To strangers, another's job is one that is not there.
        if found is None or not caller.may_act_for(found.device):
            raise HTTPException(404, f"there is no job {id} here, or it ended long ago: send the request anew")
        return await job_response(parts, found, accepted_kind(request, MSGPACK), 200)

    return routes


async def job_response(parts: ServiceParts, job: Job, kind: str, status: int) -> Response:
    """Answer with a job. One that is done is signed now: its serial is above those of what was sent meanwhile."""
    fields: dict[str, Any] = {
        "id": job.id,
        "device": job.device,
        "state": job.state,
        "submitted": job.submitted.isoformat(),
        "finished": None if job.finished is None else job.finished.isoformat(),
        "error": job.error,
    }
    signed: SignedManifest | None = None
    if job.answer is not None:
        signed = await run_in_threadpool(parts.signer.sign, Manifest.from_fields(unpack(job.answer)))
    headers = {"location": f"/v1/jobs/{job.id}"} if status == 202 else None
    if kind == JSON:
        return JSONResponse(fields | ({} if signed is None else manifest_fields(signed)), status, headers)
    if signed is not None:
        fields["answer"] = signed.to_bytes()
    return Response(pack(fields), status, headers, media_type=MSGPACK)
