"""Works the jobs: each worker takes one after the other, as fast as its searches go."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Final

from fastapi.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from cloud_pruner.errors import PrunerError, RequestError, StateError
from cloud_pruner.service.answering import check_base, release, request_of, search
from cloud_pruner.service.searches import BusyError
from edge_runtime.errors import EdgeError
from edge_runtime.messages import pack, unpack
from edge_runtime.wire import PersonalizeRequest

if TYPE_CHECKING:
    from cloud_pruner.personalized import Personalized
    from cloud_pruner.service.parts import ServiceParts
    from cloud_pruner.state.jobs import Job

__all__ = ["JobRunner"]

_LOOK_S: Final = 1.0
_LEASE_S: Final = 15.0
_FORGET_AFTER: Final = timedelta(days=7)
_FORGET_EVERY_S: Final = 3600.0

_log = logging.getLogger(__name__)


class JobRunner:
    """Takes jobs until it is stopped, and then gives back the one that it has."""

    def __init__(self, parts: ServiceParts) -> None:
        self._parts = parts
        self._name = f"{os.getpid()}-{secrets.token_hex(8)}"
        self._loop: asyncio.Task[None] | None = None
        self._stopping = False

    def start(self) -> None:
        """Begin, in the running event loop."""
        self._loop = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Take no more; give back what is under way, for others to take at once."""
        self._stopping = True
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.wait([self._loop])

    async def _run(self) -> None:
        jobs, submitted = self._parts.jobs, self._parts.phase.job_submitted
        forgot_at = float("-inf")
        clock = asyncio.get_running_loop().time
        while not self._stopping:
            submitted.clear()
            try:
                if clock() - forgot_at > _FORGET_EVERY_S:
                    forgot_at = clock()
                    await run_in_threadpool(jobs.forget, datetime.now(timezone.utc) - _FORGET_AFTER)
                job = await run_in_threadpool(jobs.take, self._name, _LEASE_S)
                if job is not None:
                    await self._work(job)
                    continue
            except StateError as error:
                _log.warning("jobs cannot be looked at, or not be ended: %s", error)
            except Exception:  # noqa: BLE001 - the next job may fare better
                _log.exception("a fault of the service in its jobs")
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(submitted.wait(), _LOOK_S)

    async def _work(self, job: Job) -> None:
        """Bring one job to its end, or give it back."""
        jobs, error = self._parts.jobs, ""
        try:
            answer = await self._answer(job)
        except asyncio.CancelledError:
            await run_in_threadpool(jobs.give_back, job.id, self._name)
            raise
        except StateError:
            await run_in_threadpool(jobs.give_back, job.id, self._name)
            raise
        except BusyError:  # this worker's queue is full: another may have room
            await run_in_threadpool(jobs.give_back, job.id, self._name)
            await asyncio.sleep(_LOOK_S)
            return
        except HTTPException as refusal:
            error = str(refusal.detail)
        except (PrunerError, EdgeError) as failure:
            error = str(failure)
            if not isinstance(failure, RequestError):
                _log.exception("job %s of %s failed", job.id, job.device)
        except Exception as failure:  # noqa: BLE001 - a job that nobody ends would be tried again and again
            error = f"{type(failure).__name__}: a fault of the service"
            _log.exception("job %s of %s failed", job.id, job.device)
        if error:
            ours = await run_in_threadpool(jobs.fail, job.id, self._name, error)
        else:
            ours = await run_in_threadpool(jobs.finish, job.id, self._name, answer)
        if ours:
            self._parts.metrics.job("failed" if error else "done")
        _log.info("%s: job %s %s", job.device, job.id, f"failed: {error}" if error else "done")

    async def _answer(self, job: Job) -> bytes:
        """Return the manifest, packed and unsigned; its files can be had."""
        parts = self._parts
        wish = PersonalizeRequest.from_fields(unpack(job.request))
        device = await run_in_threadpool(parts.devices.get, job.device)
        served = parts.catalogue.for_base(wish.base) if device is None else parts.catalogue.for_device(device)
        check_base(wish, served)
        request = request_of(wish, parts.settings.server.guarantee)
        found = await run_in_threadpool(served.personalizer.exact, request)
        if found is None:
            found = await self._leased(job, asyncio.wrap_future(search(parts, served, request)))
        await run_in_threadpool(release, parts, found, job.device)
        parts.metrics.answered(found.manifest.cache_tier)
        return pack(found.manifest.to_fields())

    async def _leased(self, job: Job, searching: asyncio.Future[Personalized]) -> Personalized:
        """Keep the job while it is searched."""
        while True:
            done, _ = await asyncio.wait([searching], timeout=_LEASE_S / 3)
            if done:
                return searching.result()
            try:
                await run_in_threadpool(self._parts.jobs.renew, job.id, self._name, _LEASE_S)
            except StateError as error:
                _log.warning("job %s cannot be renewed: %s", job.id, error)
