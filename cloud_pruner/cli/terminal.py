"""What commands show on a terminal: progress on stderr, tables and JSON on stdout."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich import progress as rich_progress
from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cloud_pruner.progress import Progress

__all__ = ["print_json", "print_table", "progress_bar"]


@contextmanager
def progress_bar(title: str) -> Iterator[Progress]:
    """Show a progress bar on stderr, where that is a terminal; yields what to call with (what, done, total)."""
    columns = (
        rich_progress.TextColumn("{task.description}"),
        rich_progress.BarColumn(),
        rich_progress.MofNCompleteColumn(),
        rich_progress.TimeRemainingColumn(),
    )
    console, hidden = Console(stderr=True), not sys.stderr.isatty()
    with rich_progress.Progress(*columns, console=console, transient=True, disable=hidden) as bar:
        task = bar.add_task(title, total=None)

        def show(what: str, done: int, total: int) -> None:
            bar.update(task, description=f"{title}: {what}", completed=done, total=total)

        yield show


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a title and a table; the first column is text, the others are numbers."""
    table = Table()
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right")
    for row in rows:
        table.add_row(*map(escape, row))  # a class may be called [b]
    # Where stdout is no terminal there is no width to keep to: nothing must be cut off or wrapped in a file.
    console = Console() if sys.stdout.isatty() else Console(width=160)
    # The title is a line of its own: a table's own title wraps at the table's width.
    console.print(title, style="bold", markup=False, highlight=False, soft_wrap=True)
    console.print(table)


def print_json(fields: Mapping[str, Any]) -> None:
    """Print `fields` as one indented JSON object."""
    print(json.dumps(fields, indent=2, ensure_ascii=False))
