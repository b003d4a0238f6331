"""Starts the workers, starts anew those that die, and ends them all: uvicorn's supervisor, with words for the log."""

from __future__ import annotations

import functools
import logging
import os
import ssl
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors.multiprocess import Multiprocess, Process

from cloud_pruner.profile import Profile
from cloud_pruner.service.metrics import count_in
from cloud_pruner.service.protocol import ServiceConfig
from cloud_pruner.service.request_log import set_up_logging
from cloud_pruner.service.worker import make_worker
from cloud_pruner.signer import Signer
from cloud_pruner.state.database import Database
from cloud_pruner.state.files import FileStore
from edge_runtime.errors import ConfigError
from edge_runtime.http_server import listen, url_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import ExitStack
    from socket import socket

    from cloud_pruner.service.settings import ServerSettings, ServiceSettings

__all__ = ["PreparedService", "prepared"]

# A search or a garbage collection may keep a worker from answering its supervisor for a while.
_HUNG_S: Final = 60.0
_BACKLOG: Final = 2048
_THREADS: Final = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")

_log = logging.getLogger(__name__)


def prepared(settings: ServiceSettings, life: ExitStack) -> PreparedService:
    """Check all that the settings name, and listen; `life` ends that.

    Raises
    ------
    PrunerError, EdgeError, OSError
        The settings, or what they name, will not do.
    """
    key = _check(settings)
    listener = life.enter_context(listen(settings.server.host, settings.server.port))
    _make_room_for_counts(settings, life)
    return PreparedService(settings, listener, key)


@dataclass(frozen=True, slots=True)
class PreparedService:
    """A service that can be started: nobody else has its address, and its files are as they should be.

    Attributes
    ----------
    settings
        As they were given.
    listener
        Where its workers will listen.
    key
        What it signs with.
    """

    settings: ServiceSettings
    listener: socket
    key: str

    @property
    def url(self) -> str:
        """Where it is reached."""
        return url_of(self.listener, tls=self.settings.server.tls_cert is not None)

    def run(self, started: Callable[[], None]) -> int:
        """Serve until SIGTERM: return 0, or 1 where a worker could not start. Raise KeyboardInterrupt after SIGINT.

        `started` is called once all workers answer.
        """
        set_up_logging(self.settings.server.log)
        for name in _THREADS:
            os.environ.setdefault(name, "1")  # of each worker: their number is what uses the processor's cores
        workers = _Workers(_config(self.settings), [self.listener], started)
        workers.run()
        if workers.interrupted:
            raise KeyboardInterrupt
        return 1 if workers.failed else 0


class _Workers(Multiprocess):
    """Says when all have started, and remembers why they ended."""

    def __init__(self, config: ServiceConfig, sockets: list[socket], started: Callable[[], None]) -> None:
        super().__init__(config, sockets)
        self.interrupted = False
        self.failed = False
        self._started = started
        self._asked_at: dict[int, float] = {}  # worker -> since when it owes an answer

    def init_processes(self) -> None:
        """Start the workers, and wait until they answer."""
        super().init_processes()
        for worker in self.processes:
            while not self.should_exit.is_set() and not worker.wait_until_ready(0.5):
                self.handle_signals()
                if not worker.process.is_alive():
                    self.failed = True
                    self.should_exit.set()
        if not self.should_exit.is_set():
            self._started()

    def keep_subprocess_alive(self) -> None:
        """Start anew what died or hangs; end where a worker could not start."""
        if self.should_exit.is_set():
            return
        for place, worker in enumerate(self.processes):
            if not self._is_gone(worker):
                continue
            worker.kill()
            worker.join()
            if worker.exitcode == STARTUP_FAILURE:
                self.failed = True
                self.should_exit.set()
                return
            _log.warning("worker %s is gone, another is started", worker.pid)
            self.processes[place] = Process(self.config, self.sockets)
            self.processes[place].start()

    def _is_gone(self, worker: Process) -> bool:
        """Look whether a worker died, or has not answered for long, without waiting for it."""
        if not worker.process.is_alive():
            return True
        assert worker.pid is not None
        line, asked_at = worker.parent_conn, self._asked_at.get(worker.pid)
        try:
            if asked_at is not None and line.poll():
                line.recv()
                asked_at = None
            if asked_at is None:
                self._asked_at[worker.pid] = time.monotonic()
                line.send(b"ping")
                return False
        except (OSError, EOFError):
            return True
        return time.monotonic() - asked_at > _HUNG_S

    def handle_int(self) -> None:
        """End at once, but for what is under way."""
        self.interrupted = True
        super().handle_int()

    def handle_term(self) -> None:
        """End, and let the workers drain first."""
        _log.info("told to end: what is under way is answered first")
        super().handle_term()

    def handle_hup(self) -> None:
        """Do nothing: profiles and settings are read at the start."""

    def handle_ttin(self) -> None:
        """Do nothing: the settings say how many workers there are."""

    def handle_ttou(self) -> None:
        """Do nothing, likewise."""


def _config(settings: ServiceSettings) -> ServiceConfig:
    server, limits = settings.server, settings.limits
    return ServiceConfig(
        functools.partial(make_worker, settings),
        factory=True,
        workers=server.workers,
        receive_s=limits.receive_s,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="on",
        backlog=_BACKLOG,
        timeout_keep_alive=int(limits.keep_alive_s),
        timeout_graceful_shutdown=int(server.stop_s),
        ssl_certfile=server.tls_cert,
        ssl_keyfile=server.tls_key,
    )


def _check(settings: ServiceSettings) -> str:
    """Open once what every worker opens, so that what is wrong is said once, and before anything is started.

    Returns the public key.
    """
    _check_tls(settings.server)
    with Signer(settings.keys.folder) as signer:
        key = signer.keys.public
    for folders in settings.models.values():
        for folder in folders:
            Profile.open(folder)
    Database.open(settings.state.database).close()
    FileStore(settings.state.files).ping()
    return key


def _check_tls(server: ServerSettings) -> None:
    if server.tls_cert is None or server.tls_key is None:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(server.tls_cert, server.tls_key)
    except OSError as error:  # SSLError is one
        raise ConfigError(
            f"{server.tls_cert}, {server.tls_key}: no certificate and its key in PEM ({error.strerror or error}): "
            "check tls_cert and tls_key"
        ) from error


def _make_room_for_counts(settings: ServiceSettings, life: ExitStack) -> None:
    """Make the folder in which the workers count, empty, and tell them where it is."""
    folder = settings.state.metrics
    if folder is None:
        folder = Path(life.enter_context(tempfile.TemporaryDirectory(prefix="capnn-metrics-")))
    else:
        folder.mkdir(parents=True, exist_ok=True)
        for file in folder.glob("*.db"):
            file.unlink()
    count_in(folder)
