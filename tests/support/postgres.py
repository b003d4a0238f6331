"""A real PostgreSQL server of one's own, on a free port here, that can be killed, frozen and started again."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from typing_extensions import Self

_FOLDERS = [path for path in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True) if path.is_dir()]
_PATH = os.pathsep.join([*map(str, _FOLDERS), os.environ.get("PATH", "")])
_QUICK = ["-c", "shared_buffers=16MB", "-c", "max_connections=60", "-c", "listen_addresses=127.0.0.1"]


class PostgresServer:
    """A context manager: the server lives in a folder of its own, which goes with it."""

    def __init__(self) -> None:
        if shutil.which("initdb", path=_PATH) is None or shutil.which("postgres", path=_PATH) is None:
            pytest.skip("PostgreSQL is not installed")
        pytest.importorskip("psycopg", reason="the package psycopg is not installed (extra 'postgres')")
        self.port = 0
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"postgresql+psycopg://capnn@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        """Start it, on the port that it had before, and return when it answers."""
        import psycopg

        self.port = self.port or _free_port()
        self.process = subprocess.Popen(
            [*self._as_owner(), shutil.which("postgres", path=_PATH), "-D", self.data, "-p", str(self.port),
             "-k", self.folder, *_QUICK],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        deadline = time.monotonic() + 60
        while True:
            assert self.process.poll() is None, "the PostgreSQL server ended"
            assert time.monotonic() < deadline, "the PostgreSQL server did not start"
            address = self.url.replace("+psycopg", "")
            with contextlib.suppress(psycopg.Error), psycopg.connect(address, connect_timeout=2):
                return
            time.sleep(0.05)

    def kill(self) -> None:
        """End it as a power cut would: it and its workers, without a word."""
        if self.process is not None:
            self._signal(signal.SIGKILL)
            self.process.wait()
            self.process = None

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def __enter__(self) -> Self:
        # Not below pytest's own folders, which other users may not enter: the server refuses to run as root.
        self.folder = tempfile.mkdtemp(prefix="capnn-postgres-")
        self.data = f"{self.folder}/data"
        if os.geteuid() == 0:
            shutil.chown(self.folder, "postgres")
        subprocess.run(
            [*self._as_owner(), shutil.which("initdb", path=_PATH), "-D", self.data, "-U", "capnn", "--auth=trust",
             "--no-sync", "--encoding=UTF8", "--no-locale"],
            check=True, stdout=subprocess.DEVNULL, cwd="/",
        )  # fmt: skip
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _signal(self, number: signal.Signals) -> None:
        """Signal the server and the processes that it has started, which are in groups of their own."""
        assert self.process is not None
        server = self.process.pid
        children = Path(f"/proc/{server}/task/{server}/children").read_text().split()
        for process in (server, *map(int, children)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, number)

    @staticmethod
    def _as_owner() -> list[str]:
        return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.geteuid() == 0 else []


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
