"""The cloud service: answers devices that ask for the base model or for a cut of it, and signs what it answers.

================================  =====================================================================================
`POST /v1/personalize`            a `PersonalizeRequest`; answers the `SignedManifest` of a cut, or a job
`GET /v1/jobs/{id}`               a job, and what came of it
`GET /v1/base`                    the `SignedManifest` of the base model
`GET /v1/files/{sha256}`          a file that a manifest has named, a model or a plan; in parts where that is asked for
`GET /v1/keys`                    how the keys came and went: the signed statements, oldest first
`GET /v1/status`                  what is served, and requests so far, in JSON
`/v1/devices`, `/v1/rollouts`     registration and profile versions, for operators
`GET /livez`, `/readyz`           200 while the process lives; while it can answer
`GET /metrics`                    what it counts
`/`                               the dashboard
================================  =====================================================================================

Bodies are msgpack (`application/vnd.msgpack`) or JSON, by `Content-Type` for requests and `Accept` for answers (by
default as the request came). The JSON is for people: it has the manifest in clear, and in base64 what was signed. Every
error is `{"error": "one line"}` in JSON.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI

from cloud_pruner import dashboard
from cloud_pruner.service import (
    routes_devices,
    routes_health,
    routes_jobs,
    routes_models,
    routes_personalize,
    routes_rollouts,
)
from cloud_pruner.service.admission import Admission
from cloud_pruner.service.error_answers import answer_errors
from cloud_pruner.service.job_runner import JobRunner
from cloud_pruner.service.openapi import describe
from cloud_pruner.service.request_log import RequestLog

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from cloud_pruner.service.parts import ServiceParts

__all__ = ["make_app"]

_DESCRIPTION = "Cuts of a base model for the classes that a user meets, signed; made without retraining."


def make_app(parts: ServiceParts) -> FastAPI:
    """Return the ASGI application over `parts`; while it runs, by the lifespan protocol, it works jobs as well."""

    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        runner = JobRunner(parts)
        runner.start()
        try:
            yield
        finally:
            await runner.stop()

    app = FastAPI(title="capnn cloud pruner", version="2", description=_DESCRIPTION, lifespan=lifespan)
    for module in (routes_personalize, routes_jobs, routes_models, routes_devices, routes_rollouts, routes_health):
        app.include_router(module.router(parts))
    app.include_router(dashboard.router(parts), include_in_schema=False)
    answer_errors(app, parts.metrics)

    def openapi() -> dict[str, Any]:
        return describe(app, tokens=parts.access.required)

    app.openapi = openapi  # type: ignore[method-assign]
    # The last one added is the first that a request meets.
    app.add_middleware(Admission, limits=parts.settings.limits, metrics=parts.metrics)
    app.add_middleware(RequestLog, metrics=parts.metrics)
    return app
