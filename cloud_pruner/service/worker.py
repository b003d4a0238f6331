"""One worker process: opens everything, answers until it is told to end, and then ends what is under way."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import multiprocessing
import os
import resource
import signal
import sys
import threading
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final

from uvicorn.config import STARTUP_FAILURE

from cloud_pruner.errors import PrunerError, StateError
from cloud_pruner.service.app import make_app
from cloud_pruner.service.assembly import opened
from cloud_pruner.service.request_log import set_up_logging
from edge_runtime.errors import EdgeError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fastapi import FastAPI
    from starlette.types import ASGIApp

    from cloud_pruner.service.parts import ServiceParts
    from cloud_pruner.service.settings import ServiceSettings

__all__ = ["make_worker"]

# A search computes in Python as well: answers would wait 5 ms, the default, for it to let go of the interpreter.
_SWITCH_S: Final = 0.0005
_STATE_RETRY_S: Final = 1.0

_log = logging.getLogger(__name__)


def make_worker(settings: ServiceSettings) -> ASGIApp:
    """Return the application of one worker: what uvicorn calls in each process.

    Raises
    ------
    SystemExit
        Something cannot be opened, which no new start of this process would mend; the log says what.
    """
    set_up_logging(settings.server.log)
    _end_with_the_parent()
    sys.setswitchinterval(_SWITCH_S)
    _raise_the_limit_of_connections()
    life = ExitStack()
    try:
        parts = _opened(settings, life)
    except (PrunerError, EdgeError, OSError) as error:
        _log.error("%s", " ".join(str(error).split()))
        sys.exit(STARTUP_FAILURE)
    app = make_app(parts)
    _add_draining(app, parts, life)
    gc.collect()
    gc.freeze()  # profiles and code stay: no collection need look at them again
    return app


def _opened(settings: ServiceSettings, life: ExitStack) -> ServiceParts:
    """Open the parts, as soon as the state can be used: it could when the service began."""
    told = False
    while True:
        try:
            with ExitStack() as attempt:
                parts = opened(settings, attempt)
                life.enter_context(attempt.pop_all())
                return parts
        except StateError as error:  # noqa: PERF203 - it is waited for anyway
            if not told:
                _log.error("a new worker waits for its state: %s", error)
                told = True
            time.sleep(_STATE_RETRY_S)


def _add_draining(app: FastAPI, parts: ServiceParts, life: ExitStack) -> None:
    """Let SIGTERM first make the worker not ready, for a while, and then end it; close everything in the end."""
    inner = app.router.lifespan_context
    server = parts.settings.server

    @contextlib.asynccontextmanager
    async def lifespan(of: FastAPI) -> AsyncIterator[Any]:
        loop = asyncio.get_running_loop()
        end: Any = signal.getsignal(signal.SIGTERM)

        def drain(number: int, _frame: object) -> None:
            if not parts.phase.draining:
                parts.phase.draining = True
                loop.call_soon_threadsafe(loop.call_later, server.drain_s, end, number, None)
                # Whoever still waits for a search is answered before the connections are cut.
                give_up_s = server.drain_s + max(0.0, server.stop_s - 1.0)
                loop.call_soon_threadsafe(loop.call_later, give_up_s, parts.searches.close)

        signal.signal(signal.SIGTERM, drain)
        try:
            async with inner(of) as state:
                yield state
        finally:
            parts.phase.draining = True
            under_way = len(parts.searches)
            life.close()
            if under_way:
                # The interpreter cannot be taken down under the search that is left.
                _log.warning("ends with %d searches left", under_way)
                logging.shutdown()
                os._exit(0)

    app.router.lifespan_context = lifespan


def _end_with_the_parent() -> None:
    """End when the process that started this one is gone, however it went: nobody would end this one later."""
    parent = multiprocessing.parent_process()
    if parent is not None:

        def watch() -> None:
            parent.join()
            os.kill(os.getpid(), signal.SIGINT)  # at once: what drains may take long

        threading.Thread(target=watch, name="parent", daemon=True).start()


def _raise_the_limit_of_connections() -> None:
    """Allow as many open files as the system lets this process have: each connection is one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
