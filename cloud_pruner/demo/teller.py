"""Tells what happens: a line for each event, a bar where something takes a while, and the table at the end."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from rich import box
from rich import progress as rich_progress
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloud_pruner.demo.summary import Phase, Summary
    from cloud_pruner.progress import Progress

__all__ = ["FROM", "Teller"]

FROM: Final = {
    "none": "base",
    "search": "search",
    "exact": "cache",
    "superset": "near hit",
    "thresholds": "near hit",
}
"""Tier of the cloud's cache -> where a model came from, in a word."""

_WIDTH: Final = 100


class Teller:
    """Tells it on stdout, or on stderr where stdout is for JSON; plain lines where that is no terminal."""

    def __init__(self, *, to_stderr: bool) -> None:
        stream = sys.stderr if to_stderr else sys.stdout
        # Where there is no terminal there is no width to keep to, and a line stays a line.
        width = None if stream.isatty() else _WIDTH
        self._console = Console(file=stream, width=width, highlight=False)

    def tell(self, line: str) -> None:
        """Print a line."""
        self._console.print(line, markup=False, soft_wrap=True)

    @contextmanager
    def bar(self, title: str) -> Iterator[Progress]:
        """Show a progress bar on a terminal; yields what to call with (what, done, total)."""
        columns = (
            rich_progress.TextColumn("{task.description}"),
            rich_progress.BarColumn(),
            rich_progress.TimeElapsedColumn(),
        )
        hidden = not self._console.is_terminal
        with rich_progress.Progress(*columns, console=self._console, transient=True, disable=hidden) as bar:
            task = bar.add_task(title, total=None)

            def show(what: str, done: int, total: int) -> None:
                bar.update(task, description=f"{title}: {done} of {total} {what}", completed=done, total=total)

            yield show

    def table(self, summary: Summary) -> None:
        """Print one line a phase."""
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        table.add_column("phase", no_wrap=True)
        table.add_column("classes")
        for column in ("bytes", "size", "MACs", "energy", "latency", "base", "cut"):
            table.add_column(column, justify="right", no_wrap=True)
        table.add_column("from")
        for phase in summary.phases:
            table.add_row(*_row(phase))
        self._console.print(table)
        unseen = min(phase.figures.unseen_images for phase in summary.phases)
        self.tell(
            "size (parameters), MACs, energy (modelled) and latency are relative to the base model's; "
            f"base, cut: top-1 accuracy on {unseen} or more unseen images"
        )


def _row(phase: Phase) -> tuple[str, ...]:
    figures = phase.figures
    return (
        phase.name,
        " ".join(phase.interests),
        f"{phase.bytes:,}",
        f"{phase.relative_size:.0%}",
        f"{figures.macs_ratio:.0%}",
        f"{figures.energy_ratio:.0%}",
        f"{figures.latency_ratio:.0%}",
        f"{100 * figures.accuracy_base:.1f} %",
        f"{100 * figures.accuracy_cut:.1f} %",
        FROM[phase.cache_tier],
    )
