"""Does tasks in other processes, each of which prepares once and then takes one task after the other.

The processes are started afresh, not forked: interpreters and their threads do not survive that. They leave Ctrl-C to
the caller, and end with it, however that comes about.
"""

from __future__ import annotations

import signal
from multiprocessing import get_context
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any, TypeVar

from cloud_pruner.errors import PrunerError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from multiprocessing.connection import Connection

__all__ = ["answers"]

Task = TypeVar("Task")
Answer = TypeVar("Answer")


def answers(
    prepare: Callable[[], Callable[[Task], Answer]], tasks: Sequence[Task], jobs: int
) -> Generator[tuple[int, Answer], None, None]:
    """Yield each task's position and answer, as they become ready.

    Parameters
    ----------
    prepare
        Called once in each process; returns what answers a task. It, tasks and answers must be picklable, unless
        `jobs` is 1: then all is done here, in order.
    jobs
        Processes at most.

    Raises
    ------
    PrunerError
        A process died. What a task raises is raised here.
    """
    jobs = min(jobs, len(tasks))
    if jobs <= 1:
        do = prepare()
        yield from ((position, do(task)) for position, task in enumerate(tasks))
        return
    context = get_context("spawn")
    processes = []
    at_work: dict[Connection, int] = {}
    try:
        for position in range(jobs):
            ours, theirs = context.Pipe()
            processes.append(context.Process(target=_work, args=(prepare, theirs), daemon=True))
            processes[-1].start()
            theirs.close()
            ours.send(tasks[position])
            at_work[ours] = position
        waiting = iter(range(jobs, len(tasks)))
        while at_work:
            ready = wait(list(at_work))
            for connection in [one for one in at_work if one in ready]:
                position, answer = at_work.pop(connection), _received(connection)
                following = next(waiting, None)
                if following is not None:
                    connection.send(tasks[following])
                    at_work[connection] = following
                yield position, answer
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()


def _received(connection: Connection) -> Any:
    try:
        answer = connection.recv()
    except (EOFError, OSError):
        raise PrunerError("a worker process died, perhaps for want of memory: ask for fewer jobs") from None
    if isinstance(answer, Exception):
        raise answer
    return answer


def _work(prepare: Callable[[], Callable[[Task], Answer]], connection: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    do: Callable[[Task], Answer] | None = None
    while True:
        try:
            task = connection.recv()
        except EOFError:  # the caller has gone
            return
        try:
            do = do or prepare()
            connection.send(do(task))
        except Exception as error:  # noqa: BLE001 - the caller raises it again
            connection.send(error)
