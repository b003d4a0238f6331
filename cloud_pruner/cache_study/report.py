"""The study's report: a folder with a page, the plots, every row as CSV, and a summary as JSON."""

from __future__ import annotations

import errno
import json
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cloud_pruner.cache_study.plots import changes_plot, clusters_plot, policies_plot, tiers_plot
from cloud_pruner.cache_study.study import rows_csv
from cloud_pruner.cache_study.summary import summarise
from cloud_pruner.cache_study.trace import SCENARIOS
from cloud_pruner.page_templates import page_templates
from edge_runtime.durable import replaced_folder

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cloud_pruner.cache_study.clusterings import Clustering
    from cloud_pruner.cache_study.study import Row, StudySettings
    from cloud_pruner.cache_study.summary import Source

__all__ = ["PAGE_FILE", "ROWS_FILE", "SUMMARY_FILE", "report_folder", "write_report"]

PAGE_FILE: Final = "report.html"
ROWS_FILE: Final = "rows.csv"
SUMMARY_FILE: Final = "summary.json"


@contextmanager
def report_folder(output: Path) -> Iterator[Path]:
    """Yield a new folder that becomes `output` at the end, in place of an earlier report, or goes away after an error.

    Raises
    ------
    FileExistsError
        There is something else at `output`.
    """
    if output.is_symlink() or (output.exists() and not output.is_dir()):
        raise FileExistsError(errno.EEXIST, "is no folder: give the report another name with -o", str(output))
    if output.is_dir() and any(output.iterdir()) and not _is_report(output):
        raise FileExistsError(
            errno.EEXIST, "exists and is no report of this study: give another folder with -o", str(output)
        )
    with replaced_folder(output) as scratch:
        yield scratch


def _is_report(folder: Path) -> bool:
    try:
        fields = json.loads((folder / SUMMARY_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(fields, dict) and fields.get("study") == "cache"


def write_report(
    folder: Path, rows: Sequence[Row], settings: StudySettings, clusterings: Sequence[Clustering], source: Source
) -> None:
    """Write all files of the report to `folder`."""
    plots = {
        "tiers.png": tiers_plot(rows),
        "changes.png": changes_plot(rows),
        "policies.png": policies_plot(rows),
        "clusters.png": clusters_plot(rows, clusterings),
    }
    for name, image in plots.items():
        (folder / name).write_bytes(image)
    summary = summarise(rows, settings)
    template = page_templates(Path(__file__).parent).get_template(PAGE_FILE)
    page = template.render(
        summary=summary,
        settings=settings,
        clusterings=clusterings,
        source=source,
        rows=rows,
        scenarios=SCENARIOS,
        rows_file=ROWS_FILE,
        summary_file=SUMMARY_FILE,
        percent=lambda share: f"{100 * share:.1f}",
    )
    (folder / PAGE_FILE).write_text(page, encoding="utf-8")
    (folder / ROWS_FILE).write_text(rows_csv(rows), encoding="utf-8")
    fields = summary.to_fields(source, settings, clusterings)
    (folder / SUMMARY_FILE).write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")
