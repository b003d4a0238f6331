"""A batch from a file of requests to a folder of results: read, group, look up, search what is left, write.

Requests are read twice, once for their keys and once for their rows, so that no more is held than one entry for each
key. What is searched is on the disk before it counts as done: a batch that ends, in whatever way, goes on from there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from cache import SqliteStore
from cloud_pruner.batch.output import OutputFolder
from cloud_pruner.batch.requests_file import BadRow, BatchDefaults, check_requests_file, read_requests
from cloud_pruner.batch.results import CutFigures, ResultsWriter
from cloud_pruner.batch.scheduling import answers
from cloud_pruner.batch.summary import BatchSummary
from cloud_pruner.batch.work import Answer, task_for
from cloud_pruner.errors import PrunerError, RequestError
from cloud_pruner.progress import no_progress
from edge_runtime.digests import digest_of_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from cache import PlanCache
    from cloud_pruner.batch.requests_file import BatchRow
    from cloud_pruner.batch.scheduling import Crew
    from cloud_pruner.batch.work import Task
    from cloud_pruner.profile import Profile
    from cloud_pruner.progress import Progress

__all__ = ["BatchSettings", "run_batch"]

_TOLD_EVERY: Final = 5_000  # rows


@dataclass(frozen=True, slots=True)
class BatchSettings:
    """How a batch is run.

    Attributes
    ----------
    engine
        What the crew is called in the summary.
    defaults
        For rows that do not say.
    keep_going
        Whether rows that are no requests are passed over; without, they end the batch before anything is searched.
    restart
        Whether to begin anew in a folder that has results, or was begun for something else.
    """

    engine: str
    defaults: BatchDefaults = field(default_factory=BatchDefaults)
    keep_going: bool = False
    restart: bool = False


@dataclass(slots=True)
class _Groups:
    """What the rows come to: one task for each key, in the order in which keys come up."""

    tasks: dict[str, Task] = field(default_factory=dict)
    rows: int = 0
    bad: int = 0
    first_error: str = ""


@dataclass(slots=True)
class _Found:
    """What is known of each key."""

    figures: dict[str, CutFigures] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    resumed: int = 0
    cached: int = 0
    search_seconds: float = 0.0


def run_batch(
    profile: Profile,
    requests: Path,
    output: Path,
    crew: Callable[[], AbstractContextManager[Crew]],
    settings: BatchSettings,
    *,
    cache: PlanCache | None = None,
    progress: Progress = no_progress,
) -> BatchSummary:
    """Answer all requests of a file.

    Parameters
    ----------
    requests
        As `requests_file` reads them.
    output
        A folder, as `output` describes it; where it was begun for the same, the batch goes on.
    crew
        Makes the workers, if there is anything to search.
    cache
        Where answers of other runs are looked for, and all of this one are put; None: nowhere.
    progress
        Called with "reading", "searching" or "writing", how much of it is done, and how much there is (0: not known).

    Raises
    ------
    RequestError
        The file cannot be read as requests; or rows of it, unless the batch keeps going.
    PrunerError
        The folder is another's, or the workers cannot work.
    CacheError, OSError
        The folder cannot be written.
    """
    start = time.perf_counter()
    check_requests_file(requests)
    with OutputFolder.opened(output, restart=settings.restart) as folder:
        purpose = {
            "profile": profile.digest,
            "requests": digest_of_file(requests),
            "defaults": dataclasses.asdict(settings.defaults),
        }
        folder.check(purpose)
        rows = _Rows(requests, profile, settings.defaults)
        groups = _grouped(rows, folder, progress)
        if groups.bad and not settings.keep_going:
            raise RequestError(
                f"{groups.bad} of {groups.rows + groups.bad} rows are no requests, the first: {groups.first_error}; "
                f"all are in {folder.rejected}: mend them, or go on without them with --keep-going"
            )
        folder.begin(purpose)
        with SqliteStore(folder.plans) as done:
            found = _looked_up(groups.tasks, profile, done, cache)
            left = [task for key, task in groups.tasks.items() if key not in found.figures]
            workers = _search(left, profile, crew, found, done, cache, progress) if left else 0
        with ResultsWriter(folder.results) as results:
            changed = RequestError(f"{requests}: changed while the batch ran: put it back, or give another folder")
            for row in rows.all("writing", progress):
                if not isinstance(row, BadRow):
                    key = row.asked.key
                    result = found.figures.get(key) or found.errors.get(key)
                    if result is None:
                        raise changed
                    results.add(row.number, row.device, row.asked, result)
            if digest_of_file(requests) != purpose["requests"]:
                raise changed
        answered = results.rows - results.failed
        summary = BatchSummary(
            requests=results.rows,
            rejected=groups.bad,
            failed=results.failed,
            keys=len(groups.tasks),
            resumed=found.resumed,
            cached=found.cached,
            searched=len(left) - len(found.errors),
            shared=(answered - len(found.figures)) / answered if answered else 0.0,
            certified=results.certified / answered if answered else 0.0,
            mean_relative_size=results.size_sum / answered if answered else None,
            bytes_saved=answered * len(profile.base.content) - results.bytes_sum,
            seconds=time.perf_counter() - start,
            search_seconds=found.search_seconds,
            engine=settings.engine,
            workers=workers,
            digest=results.digest(),
        )
        folder.conclude({**summary.to_fields(), "of": {**purpose, "base": profile.base.digest}})
    return summary


class _Rows:
    """The rows of a file of requests, as often as they are wanted."""

    def __init__(self, path: Path, profile: Profile, defaults: BatchDefaults) -> None:
        self._source = (path, profile, defaults)
        self._count = 0

    def all(self, what: str, progress: Progress) -> Iterator[BatchRow | BadRow]:
        """Yield them all; the second time it is known how many there are."""
        total, number = self._count, 0
        for number, row in enumerate(read_requests(*self._source), 1):
            if number % _TOLD_EVERY == 0:
                progress(what, number, total)
            yield row
        self._count = number
        progress(what, number, number)


def _grouped(rows: _Rows, folder: OutputFolder, progress: Progress) -> _Groups:
    """Read all rows for their keys."""
    groups = _Groups()
    with folder.rejecting() as reject:
        for row in rows.all("reading", progress):
            if isinstance(row, BadRow):
                groups.bad += 1
                groups.first_error = groups.first_error or row.error
                reject(dataclasses.asdict(row))
                continue
            groups.rows += 1
            if row.asked.key not in groups.tasks:
                groups.tasks[row.asked.key] = task_for(row.asked)
    return groups


def _looked_up(tasks: dict[str, Task], profile: Profile, done: SqliteStore, cache: PlanCache | None) -> _Found:
    """Find what an earlier run or the cache has answered, and see that both have it."""
    found = _Found()
    for key in tasks:
        entry = done.fetch(key)
        figures = None if entry is None else CutFigures.of(entry.value, profile)
        known = None if cache is None else cache.lookup(key)
        if entry is not None and figures is not None:
            found.resumed += 1
            if cache is not None and known is None:
                cache.store(key, entry.value, seconds=entry.cost)
        elif known is not None and (figures := CutFigures.of(known.value, profile)) is not None:
            found.cached += 1
            done.put(key, known.value, known.seconds)
        if figures is not None:
            found.figures[key] = figures
    return found


def _search(
    left: list[Task],
    profile: Profile,
    crew: Callable[[], AbstractContextManager[Crew]],
    found: _Found,
    done: SqliteStore,
    cache: PlanCache | None,
    progress: Progress,
) -> int:
    """Search what is left, and keep each answer as it comes; return how many workers there were."""
    progress("searching", 0, len(left))
    with crew() as workers, contextlib.closing(answers(left, workers)) as answered:
        for number, (task, answer) in enumerate(answered, 1):
            _keep(task, answer, profile, found, done, cache)
            progress("searching", number, len(left))
        return workers.size


def _keep(
    task: Task, answer: Answer, profile: Profile, found: _Found, done: SqliteStore, cache: PlanCache | None
) -> None:
    found.search_seconds += answer.seconds
    if answer.value is None:
        # Not kept: when the batch is started again, what lacked memory or time may have it.
        found.errors[task.key] = answer.error
        return
    figures = CutFigures.of(answer.value, profile)
    if figures is None:
        raise PrunerError("a worker's answer is not of this profile: install the same version of capnn on all machines")
    done.put(task.key, answer.value, answer.seconds)
    found.figures[task.key] = figures
    if cache is not None:
        cache.store(task.key, answer.value, seconds=answer.seconds)
