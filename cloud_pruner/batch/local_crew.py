"""Workers that are processes of this machine, started afresh: interpreters and their threads do not survive a fork.

They end with the process that started them, however that comes about, and leave Ctrl-C to it.
"""

from __future__ import annotations

import contextlib
import itertools
import signal
from multiprocessing import get_context
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Final

from cloud_pruner.batch.scheduling import Done, Lost, Ready, Unfit
from cloud_pruner.batch.work import Workbench
from cloud_pruner.errors import PrunerError
from cloud_pruner.profile import Profile

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess
    from pathlib import Path
    from types import TracebackType

    from typing_extensions import Self

    from cloud_pruner.batch.scheduling import Event
    from cloud_pruner.batch.work import Task

__all__ = ["LocalCrew"]

_READY: Final = "ready"


class LocalCrew:
    """Processes that open the profile once each and then take one task after the other.

    Parameters
    ----------
    folder
        Of the profile.
    size
        How many processes.
    """

    depth = 1

    def __init__(self, folder: Path, size: int) -> None:
        self.size = size
        self._folder = folder
        self._numbers = itertools.count()
        self._workers: dict[int, tuple[BaseProcess, Connection]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def hire(self) -> int:
        """As `Crew`."""
        context = get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_work, args=(self._folder, theirs), daemon=True)
        # It inherits what is blocked: Ctrl-C, which the terminal sends to all, must not end it with a traceback.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        theirs.close()
        number = next(self._numbers)
        self._workers[number] = process, ours
        return number

    def give(self, worker: int, task: Task) -> None:
        """As `Crew`."""
        with contextlib.suppress(OSError):
            self._workers[worker][1].send(task)

    def wait(self) -> list[Event]:
        """As `Crew`."""
        connections = {connection: number for number, (_, connection) in self._workers.items()}
        return [self._heard(connections[ready]) for ready in wait(list(connections))]  # type: ignore[index]

    def close(self) -> None:
        """As `Crew`."""
        for process, connection in self._workers.values():
            process.terminate()
            connection.close()
        for process, _ in self._workers.values():
            process.join()
        self._workers.clear()

    def _heard(self, number: int) -> Event:
        process, connection = self._workers[number]
        try:
            message = connection.recv()
        except (EOFError, OSError):
            del self._workers[number]
            connection.close()
            process.join()
            return Lost(number, _end_of(process.exitcode or 0))
        if isinstance(message, str):
            return Ready(number) if message == _READY else Unfit(number, message)
        return Done(number, message)


def _end_of(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _work(folder: Path, connection: Connection) -> None:
    with contextlib.suppress(EOFError, OSError):  # whoever gave the tasks has gone
        try:
            bench = Workbench(Profile.open(folder))
        except Exception as error:  # noqa: BLE001 - told where it can be shown
            connection.send(" ".join(f"{type(error).__name__}: {error}".split()))
            return
        connection.send(_READY)
        while True:
            try:
                answer = bench.do(connection.recv())
            except PrunerError as error:
                connection.send(str(error))
                return
            connection.send(answer)
