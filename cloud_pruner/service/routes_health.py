"""Whether the process lives, whether it can answer, and what it counts."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST

from cloud_pruner.errors import PrunerError
from cloud_pruner.service.openapi import METRICS_ANSWERS, READY_ANSWERS

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloud_pruner.service.parts import ServiceParts

__all__ = ["router"]

_FRESH_S: Final = 1.0
_PATIENCE_S: Final = 5.0


def router(parts: ServiceParts) -> APIRouter:
    """Return the routes."""
    routes = APIRouter(tags=["operators"])
    readiness = _Readiness(parts)

    @routes.get("/livez", operation_id="livez")
    async def livez() -> dict[str, bool]:
        """Return 200 while the process answers."""
        return {"alive": True}

    @routes.get("/readyz", operation_id="readyz", responses=READY_ANSWERS, response_class=JSONResponse)
    async def readyz() -> JSONResponse:
        """Return 200 while requests can be answered; else 503, and what is in the way."""
        failed = await readiness.failed()
        return JSONResponse({"ready": not failed, "failed": failed}, 503 if failed else 200)

    @routes.get("/metrics", operation_id="metrics", responses=METRICS_ANSWERS, response_class=Response)
    async def metrics(request: Request) -> Response:
        """Return what all workers count, for Prometheus."""
        if parts.settings.server.metrics == "operators":
            await parts.access.operator(request)
        return Response(await run_in_threadpool(parts.metrics.exposition), media_type=CONTENT_TYPE_LATEST)

    return routes


class _Readiness:
    """Looks at what the service needs, at most once a second: anybody may ask."""

    def __init__(self, parts: ServiceParts) -> None:
        self._parts = parts
        self._looks: dict[str, Callable[[], None]] = {"database": parts.database.ping, "files": parts.files.ping}
        self._looked_at = float("-inf")
        self._failed: dict[str, str] = {}
        self._turn = asyncio.Lock()

    async def failed(self) -> dict[str, str]:
        """Return what is not as it should be, and why."""
        if self._parts.phase.draining:
            return {"draining": "the service is about to end"}
        async with self._turn:
            if time.monotonic() - self._looked_at > _FRESH_S:
                looks = [self._look(what, look) for what, look in self._looks.items()]
                self._failed = {what: why for what, why in await asyncio.gather(*looks) if why}
                self._looked_at = time.monotonic()
        return self._failed

    @staticmethod
    async def _look(what: str, look: Callable[[], None]) -> tuple[str, str]:
        try:
            await asyncio.wait_for(run_in_threadpool(look), _PATIENCE_S)
        except PrunerError as error:
            return what, str(error)
        except asyncio.TimeoutError:
            return what, f"no answer within {_PATIENCE_S:g} s"
        return what, ""
