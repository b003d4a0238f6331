"""What the service counts, for Prometheus; its workers' counts are added up by files in a folder that they share."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

__all__ = ["TIERS", "ServiceMetrics", "count_in", "counts_folder"]

_FOLDER_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"

TIERS: Final = ("exact", "superset", "thresholds", "search")

_REQUEST_BOUNDS_S: Final = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_SEARCH_BOUNDS_S: Final = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_ROOM_BYTES: Final = 1 << 19
_WORKERS_FILE: Final = re.compile(r"[a-z_]+_(\d+)\.db")


class ServiceMetrics:
    """Counts; for any number of threads.

    Parameters
    ----------
    folder
        Where the workers of one service count, `counts_folder`; None for a service of one process.

    Raises
    ------
    OSError
        There is no room for the counts.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._own = CollectorRegistry()
        self._all = self._own
        if folder is not None:
            _forget_dead_workers(folder)
            _take_room(folder)
            self._all = CollectorRegistry()
            MultiProcessCollector(self._all, str(folder))  # type: ignore[no-untyped-call]
        own = self._own
        self._requests = Counter("capnn_requests", "Requests answered", ("route", "status"), registry=own)
        self._request_s = Histogram(
            "capnn_request_seconds",
            "Time to the first byte of an answer",
            ("route",),
            registry=own,
            buckets=_REQUEST_BOUNDS_S,
        )
        self._answers = Counter("capnn_answers", "Cuts answered, by where they came from", ("tier",), registry=own)
        self._bases = Counter("capnn_bases", "Base models answered", registry=own)
        self._files = Counter("capnn_files", "Files sent, in whole or in part", registry=own)
        self._file_bytes = Counter("capnn_file_bytes", "Bytes of files sent, before compression", registry=own)
        self._rejected = Counter("capnn_rejected", "Requests answered 429, by what was full", ("reason",), registry=own)
        self._search_s = Histogram("capnn_search_seconds", "Time of searches", registry=own, buckets=_SEARCH_BOUNDS_S)
        self._failures = Counter(
            "capnn_certificate_failures",
            "Cuts that could not be certified at all, or only in part",
            ("kind",),
            registry=own,
        )
        self._rolled_back = Counter("capnn_rolled_back", "Cuts that devices took back", registry=own)
        self._jobs = Counter("capnn_jobs", "Jobs that ended, by how", ("state",), registry=own)
        self._state_errors = Counter(
            "capnn_state_errors", "Requests failed by the database or the file store", registry=own
        )
        self._queue = Gauge("capnn_queue", "Searches under way or waiting", registry=own, multiprocess_mode="livesum")
        self._in_flight = Gauge(
            "capnn_in_flight", "Requests being worked on", registry=own, multiprocess_mode="livesum"
        )
        for tier in TIERS:
            self._answers.labels(tier)
        for reason in ("in_flight", "connections", "queue", "rate"):
            self._rejected.labels(reason)
        for kind in ("refused", "shortfall"):
            self._failures.labels(kind)
        for state in ("done", "failed"):
            self._jobs.labels(state)

    def request(self, route: str, status: int, seconds: float) -> None:
        """Count an answer to a request of `route`, as the interface writes it."""
        self._requests.labels(route, status).inc()
        self._request_s.labels(route).observe(seconds)

    def answered(self, tier: str) -> None:
        """Count a cut."""
        self._answers.labels(tier).inc()

    def base(self) -> None:
        """Count a base model's manifest."""
        self._bases.inc()

    def file(self, sent: int) -> None:
        """Count a file, or a part of `sent` bytes."""
        self._files.inc()
        self._file_bytes.inc(sent)

    def rejected(self, reason: str) -> None:
        """Count an answer 429: "in_flight", "connections", "queue" or "rate"."""
        self._rejected.labels(reason).inc()

    def searched(self, seconds: float) -> None:
        """Count a search."""
        self._search_s.observe(seconds)

    def certificate_failed(self, kind: str) -> None:
        """Count a cut that could not be certified: "refused", or only in part, "shortfall"."""
        self._failures.labels(kind).inc()

    def rolled_back(self) -> None:
        """Count a cut that a device took back."""
        self._rolled_back.inc()

    def job(self, state: str) -> None:
        """Count a job that is "done" or "failed"."""
        self._jobs.labels(state).inc()

    def state_error(self) -> None:
        """Count a request that the database or the file store failed."""
        self._state_errors.inc()

    def queue(self, length: int) -> None:
        """Say how many searches are under way or wait."""
        self._queue.set(length)

    def in_flight(self, number: int) -> None:
        """Say how many requests are being worked on."""
        self._in_flight.set(number)

    def exposition(self) -> bytes:
        """Return all workers' counts in Prometheus' text format."""
        return generate_latest(self._all)

    def totals(self) -> dict[str, float]:
        """Return all workers' counts by short names: "tier:exact", "base", "files", "rejected", "queue", ..."""
        totals = dict.fromkeys((*(f"tier:{tier}" for tier in TIERS), *_TOTALS.values()), 0.0)
        for metric in self._all.collect():
            for sample in metric.samples:
                if sample.name == "capnn_answers_total":
                    totals[f"tier:{sample.labels['tier']}"] += sample.value
                elif sample.name in _TOTALS:
                    totals[_TOTALS[sample.name]] += sample.value
        return totals


_TOTALS: Final = {
    "capnn_requests_total": "requests",
    "capnn_bases_total": "base",
    "capnn_files_total": "files",
    "capnn_file_bytes_total": "file_bytes",
    "capnn_rejected_total": "rejected",
    "capnn_search_seconds_sum": "search_seconds",
    "capnn_search_seconds_count": "searches",
    "capnn_certificate_failures_total": "certificate_failures",
    "capnn_rolled_back_total": "rolled_back",
    "capnn_jobs_total": "jobs",
    "capnn_state_errors_total": "state_errors",
    "capnn_queue": "queue",
    "capnn_in_flight": "in_flight",
}


def count_in(folder: Path) -> None:
    """Let the processes that are started from now on count in `folder`: prometheus_client looks when it is imported."""
    os.environ[_FOLDER_VARIABLE] = str(folder)


def counts_folder() -> Path:
    """Return the folder that this process was started to count in."""
    return Path(os.environ[_FOLDER_VARIABLE])


def _forget_dead_workers(folder: Path) -> None:
    """Take what workers that are gone had in hand out of the gauges; what they counted stays."""
    for file in folder.glob("gauge_live*.db"):
        found = _WORKERS_FILE.fullmatch(file.name)
        if found is not None and not _is_running(int(found[1])):
            mark_process_dead(int(found[1]), str(folder))  # type: ignore[no-untyped-call]


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _take_room(folder: Path) -> None:
    """Give this process' files more room than it will need: to count without any, on a full disk, would kill it."""
    for kind in ("counter", "histogram", "gauge_livesum"):
        with (folder / f"{kind}_{os.getpid()}.db").open("ab") as file:
            os.posix_fallocate(file.fileno(), 0, _ROOM_BYTES)
