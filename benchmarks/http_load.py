"""Load on an HTTP server at a rate that does not wait for its answers, from a process of its own.

Requests fall due at random, as those of many clients do (a Poisson process), whether or not earlier ones were answered.
A latency runs from the moment when its request was due, so that a server that stalls is charged for everybody whom it
kept waiting, also for those whom this client could not send for at once.
"""

from __future__ import annotations

import asyncio
import functools
import math
import multiprocessing
import re
from collections import deque
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Future

    from numpy.typing import NDArray

__all__ = ["LOST", "Answers", "Phase", "post", "quantile", "start_load"]

LOST: Final = 0
"""The status of a request whose connection broke, or could not be made, before it was answered."""

_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
# Beyond so many connections requests wait for one that is free; that is part of their latency.
_CONNECTIONS_MAX: Final = 1000
# What was idle for longer is not used again: the server may be about to close it.
_IDLE_S: Final = 2.0
_AFTERWARDS_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Phase:
    """So many requests a second (1/s) for so long (s)."""

    rate: float
    seconds: float


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """What became of each request, in the order in which they were due.

    Attributes
    ----------
    start
        When the load began, by the monotonic clock, which all processes of a machine share, in s.
    due, done
        `(requests,) float64`, in s since then; `done` is NaN where no answer came.
    status
        `(requests,) int64`: of HTTP, or `LOST`.
    """

    start: float
    due: NDArray[np.float64]
    done: NDArray[np.float64]
    status: NDArray[np.int64]

    def between(self, start: float, stop: float) -> Answers:
        """Return those that were due from `start` on and before `stop`, in s."""
        chosen = (self.due >= start) & (self.due < stop)
        return Answers(self.start, self.due[chosen], self.done[chosen], self.status[chosen])

    def latencies(self, status: int) -> NDArray[np.float64]:
        """Return the latencies of those with a status, in s."""
        chosen = self.status == status
        latencies: NDArray[np.float64] = self.done[chosen] - self.due[chosen]
        return latencies

    @property
    def statuses(self) -> dict[int, int]:
        """How often each status was answered."""
        found, counts = np.unique(self.status, return_counts=True)
        return dict(zip(found.tolist(), counts.tolist(), strict=True))


def quantile(latencies: NDArray[np.float64], share: float) -> float:
    """Return the latency that a share of them is within, in s; infinite where there are none."""
    return float(np.quantile(latencies, share)) if len(latencies) else math.inf


def post(path: str, body: bytes, headers: dict[str, str]) -> bytes:
    """Return the bytes of a POST for a connection that stays open."""
    lines = [f"POST {path} HTTP/1.1", "host: service", f"content-length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join((*lines, "", "")).encode("ascii") + body


def start_load(port: int, requests: Sequence[bytes], phases: Sequence[Phase], seed: int = 0) -> Future[Answers]:
    """Send `requests` in turn, phase after phase, to a port of this machine."""
    pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
    load = pool.submit(_loaded, port, list(requests), _due(phases, seed))
    pool.shutdown(wait=False)
    return load


def _due(phases: Sequence[Phase], seed: int) -> NDArray[np.float64]:
    rng, start, due = np.random.default_rng(seed), 0.0, []
    for phase in phases:
        count = round(phase.rate * phase.seconds)
        # The times of a Poisson process of which the number is known.
        due.append(start + np.sort(rng.uniform(0.0, phase.seconds, count)))
        start += phase.seconds
    return np.concatenate(due)


def _loaded(port: int, requests: list[bytes], due: NDArray[np.float64]) -> Answers:
    return asyncio.run(_Client(port, requests, due).run())


class _Client:
    """Sends what is due on whichever connection is free, and makes another where none is."""

    def __init__(self, port: int, requests: list[bytes], due: NDArray[np.float64]) -> None:
        self._port, self._requests, self._due = port, requests, due
        self._done = np.full(len(due), math.nan)
        self._status = np.full(len(due), LOST)
        self._free: deque[_Connection] = deque()
        self._waiting: deque[int] = deque()
        self._connections = 0
        self._left = len(due)
        self._making: set[asyncio.Task[None]] = set()
        self._ended = asyncio.Event()

    async def run(self) -> Answers:
        """Send everything; wait for what is outstanding, but not for ever."""
        self._loop = asyncio.get_running_loop()
        self._start = self._loop.time() + 0.1
        for number, due in enumerate(self._due.tolist()):
            wait = self._start + due - self._loop.time()
            if wait > 0:
                await asyncio.sleep(wait)
            elif number % 16 == 0:
                await asyncio.sleep(0)  # behind time: answers are read all the same
            self._send(number)
        await asyncio.wait([self._loop.create_task(self._ended.wait())], timeout=_AFTERWARDS_S)
        return Answers(self._start, self._due, self._done, self._status)

    def _send(self, number: int) -> None:
        while self._free:
            # The one that was free the longest: load spreads over all, and so over the server's processes.
            connection = self._free.popleft()
            if self._loop.time() - connection.free_since < _IDLE_S:
                connection.send(number, self._requests[number % len(self._requests)])
                return
            connection.close()
        self._waiting.append(number)
        if self._connections < _CONNECTIONS_MAX:
            self._connections += 1
            task = self._loop.create_task(self._connect())
            self._making.add(task)
            task.add_done_callback(self._making.discard)

    async def _connect(self) -> None:
        try:
            await self._loop.create_connection(functools.partial(_Connection, self), "127.0.0.1", self._port)
        except OSError:
            self._connections -= 1
            if self._waiting:
                self.answered(self._waiting.popleft(), LOST)

    def free(self, connection: _Connection) -> None:
        """Hear that a connection may be used."""
        if self._waiting:
            number = self._waiting.popleft()
            connection.send(number, self._requests[number % len(self._requests)])
        else:
            connection.free_since = self._loop.time()
            self._free.append(connection)

    def gone(self, connection: _Connection) -> None:
        """Hear that a connection is no more."""
        self._connections -= 1
        if connection in self._free:
            self._free.remove(connection)

    def answered(self, number: int, status: int) -> None:
        """Hear what became of a request."""
        if status != LOST:
            self._done[number] = self._loop.time() - self._start
        self._status[number] = status
        self._left -= 1
        if not self._left:
            self._ended.set()


class _Connection(asyncio.Protocol):
    """One request at a time; answers have a Content-Length, as all of the service's are."""

    def __init__(self, client: _Client) -> None:
        self.free_since = 0.0
        self._client = client
        self._number: int | None = None
        self._got = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._client.free(self)

    def send(self, number: int, request: bytes) -> None:
        """Send a request; there is none under way."""
        self._number = number
        self._transport.write(request)

    def close(self) -> None:
        """Let go of the connection."""
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        self._got += data
        end = self._got.find(b"\r\n\r\n")
        if end < 0:
            return
        length = _LENGTH.search(self._got, 0, end)
        if length is None or len(self._got) < end + 4 + int(length[1]):
            return
        status, number = int(self._got[9:12]), self._number
        closing = b"\r\nconnection: close" in self._got[:end].lower()
        self._got.clear()
        self._number = None
        if number is not None:
            self._client.answered(number, status)
        if closing:
            self.close()
        else:
            self._client.free(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's name
        self._client.gone(self)
        if self._number is not None:
            self._client.answered(self._number, LOST)
            self._number = None
