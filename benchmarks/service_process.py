"""`capnn serve` and its workers as real processes, on a free port of this machine."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from typing_extensions import Self

__all__ = ["ServiceProcess", "capnn"]

_START_S: Final = 120.0
_STOP_S: Final = 60.0


def capnn(*arguments: str | Path) -> str:
    """Run another command of `capnn` to its end; return what it prints.

    Raises
    ------
    AssertionError
        It fails.
    """
    done = subprocess.run(_command(*arguments), capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"capnn {arguments[0]} failed: {done.stderr}"
    return done.stdout


class ServiceProcess:
    """A context in which the service runs, and can be killed in part.

    Parameters
    ----------
    *arguments
        Of `capnn serve`, but for the port.
    environment
        What it finds there besides what is here.
    """

    def __init__(self, *arguments: str | Path, environment: Mapping[str, str] | None = None) -> None:
        self._arguments = arguments
        self._environment = dict(environment or {})
        self._log: list[str] = []
        self._lines: queue.Queue[str] = queue.Queue()
        self.url = ""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            _command("serve", *self._arguments),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **self._environment},
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            self._wait_until_ready(time.monotonic() + _START_S)
        except BaseException:
            self._process.kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.url.rpartition(":")[2])

    @property
    def log(self) -> str:
        """What it has printed so far."""
        return "\n".join(self._log)

    @property
    def workers(self) -> tuple[int, ...]:
        """Process ids of its workers; of itself where it has none."""
        own = [child for child in _children(self._process.pid) if b"resource_tracker" not in _command_line(child)]
        return tuple(own) or (self._process.pid,)

    @property
    def memory(self) -> int:
        """Bytes of memory that its workers have to themselves or share, added up."""
        return sum(_resident(worker) for worker in self.workers)

    @property
    def processor_s(self) -> float:
        """Processor time that its present workers have taken, in s."""
        return sum(_processor(worker) for worker in self.workers)

    def kill_a_worker(self) -> int:
        """Kill one of its workers, as a lack of memory would; return its process id."""
        worker = self.workers[0]
        os.kill(worker, signal.SIGKILL)
        return worker

    def ready(self) -> bool:
        """Whether `/readyz` says so."""
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def stop(self) -> int:
        """End it as an operator would; return its exit code."""
        if self._process.poll() is None:
            self._process.terminate()
        try:
            code = self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            workers = self.workers
            self._process.kill()
            for worker in workers:
                os.kill(worker, signal.SIGKILL)
            raise
        self._reader.join(_STOP_S)
        return code

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as output:
            for line in output:
                self._log.append(line.rstrip())
                self._lines.put(line)
        self._lines.put("")

    def _wait_until_ready(self, deadline: float) -> None:
        while not self.url:
            line = self._lines.get(timeout=max(deadline - time.monotonic(), 0.1))
            assert line, f"the service did not start:\n{self.log}"
            if "serving on http" in line:
                self.url = line.rpartition("serving on ")[2].split()[0]
        while not self.ready():
            assert time.monotonic() < deadline, f"the service is not ready:\n{self.log}"
            assert self._process.poll() is None, f"the service has ended:\n{self.log}"
            time.sleep(0.05)


def _command(*arguments: str | Path) -> list[str]:
    rest = ["--port", "0"] if arguments[0] == "serve" and "--config" not in arguments else []
    program = "import sys; from cloud_pruner.cli import main; sys.exit(main())"
    return [sys.executable, "-c", program, *map(str, arguments), *rest]


def _children(process: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{process}/task").iterdir():
        found += map(int, (task / "children").read_text().split())
    return sorted(found)


def _command_line(process: int) -> bytes:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return b""


def _resident(process: int) -> int:
    try:
        pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def _processor(process: int) -> float:
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
