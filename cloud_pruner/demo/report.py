"""The demo's report: a folder with a page, a summary for machines, and the logs of the processes."""

from __future__ import annotations

import base64
import json
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cloud_pruner.demo.errors import DemoError
from cloud_pruner.demo.plots import accuracy_plot, savings_plot, timeline_plot
from cloud_pruner.demo.teller import FROM
from cloud_pruner.demo.users import interests_text
from cloud_pruner.page_templates import page_templates
from edge_runtime.durable import replaced_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloud_pruner.demo.device import Timeline
    from cloud_pruner.demo.summary import Summary

__all__ = ["PAGE_FILE", "SUMMARY_FILE", "report_folder", "write_report"]

SUMMARY_FILE: Final = "summary.json"
PAGE_FILE: Final = "report.html"


@contextmanager
def report_folder(output: Path) -> Iterator[Path]:
    """Yield a new folder that becomes `output` at the end, in place of an earlier report, or goes away after an error.

    Raises
    ------
    DemoError
        There is something else at `output`.
    """
    _check_replaceable(output)
    with replaced_folder(output) as scratch:
        yield scratch


def _check_replaceable(output: Path) -> None:
    if output.is_symlink() or (output.exists() and not output.is_dir()):
        raise DemoError(f"{output}: is no folder: give the report another name with -o")
    if output.is_dir() and any(output.iterdir()) and not _is_report(output):
        raise DemoError(f"{output}: exists and is no report of the demo: give another folder with -o")


def _is_report(folder: Path) -> bool:
    try:
        fields = json.loads((folder / SUMMARY_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(fields, dict) and fields.get("demo") == "capnn"


def write_report(folder: Path, summary: Summary, timeline: Timeline) -> None:
    """Write the page and the summary to `folder`."""
    template = page_templates(Path(__file__).parent).get_template(PAGE_FILE)
    page = template.render(
        summary=summary,
        origin=FROM,
        interests_text=interests_text,
        timeline_plot=_data_url(timeline_plot(timeline)),
        savings_plot=_data_url(savings_plot(summary.phases)),
        accuracy_plot=_data_url(accuracy_plot(summary.phases)),
    )
    (folder / PAGE_FILE).write_text(page, encoding="utf-8")
    (folder / SUMMARY_FILE).write_text(json.dumps(summary.to_fields(), indent=2) + "\n", encoding="utf-8")


def _data_url(svg: bytes) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(svg).decode('ascii')}"
