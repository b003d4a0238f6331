"""How far a batch is: a bar with rate and remaining time on a terminal, a line now and then elsewhere; on stderr."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from rich import progress as rich_progress
from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cloud_pruner.progress import Progress

__all__ = ["ProgressLines", "batch_progress"]

_LINE_EVERY_S: Final = 10.0


@contextmanager
def batch_progress() -> Iterator[Progress]:
    """Yield what a batch is to call with (what, done, total); a total of 0 is not known."""
    if not sys.stderr.isatty():
        yield ProgressLines(lambda line: print(line, file=sys.stderr, flush=True))
        return
    columns = (
        rich_progress.TextColumn("batch: {task.description}"),
        rich_progress.BarColumn(),
        rich_progress.MofNCompleteColumn(),
        _RateColumn(),
        rich_progress.TimeRemainingColumn(),
    )
    with rich_progress.Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        tasks: dict[str, rich_progress.TaskID] = {}

        def show(what: str, done: int, total: int) -> None:
            if what not in tasks:
                for former in tasks.values():
                    bar.update(former, visible=False)
                tasks[what] = bar.add_task(what, total=None)
            bar.update(tasks[what], completed=done, total=total or None)

        yield show


class ProgressLines:
    """A line at most every 10 s, none for what is over before that.

    Parameters
    ----------
    show
        Is called with each line.
    clock
        Monotonic, in s.
    """

    def __init__(self, show: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._show, self._clock = show, clock
        self._what = ""
        self._begun, self._told = (0.0, 0), 0.0

    def __call__(self, what: str, done: int, total: int) -> None:
        """Take note of how far it is."""
        now = self._clock()
        if what != self._what:
            self._what, self._begun, self._told = what, (now, done), now
        if now - self._told >= _LINE_EVERY_S:
            self._told = now
            self._show(self._line(now, done, total))
        if not self._begun[1]:
            self._begun = now, done  # before the first is done, workers start

    def _line(self, now: float, done: int, total: int) -> str:
        line = f"capnn batch: {self._what}: {done:,}" + (f" of {total:,}" if total else "")
        since, before = self._begun
        if not before or done == before:
            return line
        rate = (done - before) / (now - since)
        return f"{line}, {rate:.3g}/s" + (f", {_duration((total - done) / rate)} left" if total else "")


class _RateColumn(rich_progress.ProgressColumn):
    def render(self, task: rich_progress.Task) -> Text:
        """Return how many are done in a second."""
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.3g}/s", style="progress.data.speed")


def _duration(seconds: float) -> str:
    minutes, whole = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {whole} s" if minutes else f"{whole} s"
