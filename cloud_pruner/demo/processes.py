"""The cloud service and the devices of the demo, each a process of its own that does not outlive the demo."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Final

from cloud_pruner.demo.errors import DemoError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from types import TracebackType

    from typing_extensions import Self

__all__ = ["ServerProcess", "capnn", "capnn_edge"]

_START_S: Final = 60.0
_STOP_S: Final = 10.0
_POLL_S: Final = 0.05
_SERVING = re.compile(r"serving on (http://\S+)\n")


def capnn(*arguments: str) -> list[str]:
    """Return the command line of `capnn`, which need not be on the path."""
    return _python("cloud_pruner.cli", arguments)


def capnn_edge(*arguments: str) -> list[str]:
    """Return the command line of `capnn-edge`, likewise."""
    return _python("edge_runtime.cli", arguments)


def _python(module: str, arguments: Sequence[str]) -> list[str]:
    return [sys.executable, "-c", f"import sys; from {module} import main; sys.exit(main())", *arguments]


class ServerProcess:
    """A server that says "serving on http://..." when it listens; use as a context manager, which stops it.

    It shares the demo's process group: an interrupt from the terminal reaches it, too.

    Parameters
    ----------
    name
        What messages call it.
    command
        Its command line.
    log
        Where its output goes.

    Raises
    ------
    DemoError
        On entering: it ended, or did not say where it serves within a minute.
    """

    def __init__(self, name: str, command: Sequence[str], log: Path) -> None:
        self.name = name
        self.log = log
        self.url = ""
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        with self.log.open("wb") as output:
            self._process = subprocess.Popen(  # noqa: S603 - our own command line
                self._command, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        try:
            self.url = self._wait_for_url()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """Stop the process by SIGTERM, and by SIGKILL if that takes too long; stopping twice is no error."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            pass
        finally:
            # Also where a second interrupt ends the wait.
            self._process.kill()
            self._process.wait()

    def last_line(self) -> str:
        """Return the last line of the log, for a message."""
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"

    def _wait_for_url(self) -> str:
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline:
            running = self.running  # before the log is read: its last words count
            found = _SERVING.search(self.log.read_text(errors="replace"))
            if found:
                return found.group(1)
            if not running:
                raise DemoError(f"{self.name} ended before it served: {self.last_line()}")
            with contextlib.suppress(subprocess.TimeoutExpired):
                assert self._process is not None
                self._process.wait(_POLL_S)
        raise DemoError(f"{self.name} did not say where it serves within {_START_S:.0f} s: {self.last_line()}")
