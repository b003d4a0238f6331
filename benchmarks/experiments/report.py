"""Writes the report: a page, every row as CSV, all of the page as JSON, and the plots.

On the page each number of ours says where it comes from: table, rows, column and statistic are attributes of its cell.
"""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from markupsafe import Markup

from benchmarks.experiments.cells import Paper, number_ranges
from benchmarks.experiments.section import Plot, Table
from benchmarks.experiments.store import columns_of
from cloud_pruner.page_templates import page_templates
from edge_runtime.durable import replaced_folder, write_durably

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks.experiments.lab import Settings
    from benchmarks.experiments.run import Outcome
    from benchmarks.experiments.section import Entry
    from benchmarks.experiments.store import Store

__all__ = ["CSV_FOLDER", "PAGE_FILE", "PLOTS_FOLDER", "SUMMARY_FILE", "write_report"]

PAGE_FILE: Final = "report.html"
SUMMARY_FILE: Final = "summary.json"
CSV_FOLDER: Final = "CSV"
PLOTS_FOLDER: Final = "plots"


def write_report(
    folder: Path, outcomes: Sequence[Outcome], store: Store, settings: Settings, left_out: Mapping[str, str]
) -> None:
    """Write all files of the report to `folder`, the page last.

    Parameters
    ----------
    left_out
        Networks that were wanted and not there -> why.
    """
    sections = [outcome.section for outcome in outcomes if outcome.section is not None]
    with replaced_folder(folder / CSV_FOLDER) as scratch:
        for table in store.tables():
            (scratch / f"{table}.csv").write_text(_csv(store, table), encoding="utf-8")
    with replaced_folder(folder / PLOTS_FOLDER) as scratch:
        for plot in (plot for section in sections for plot in section.plots()):
            (scratch / f"{plot.name}.png").write_bytes(plot.png)
    summary = {
        "report": "capnn reproduce",
        "settings": asdict(settings),
        "left_out": dict(left_out),
        "experiments": [_fields(outcome, store) for outcome in outcomes],
    }
    write_durably(folder / SUMMARY_FILE, (json.dumps(summary, indent=1, ensure_ascii=False) + "\n").encode())
    template = page_templates(Path(__file__).parent).get_template(PAGE_FILE)
    page = template.render(
        outcomes=outcomes,
        settings=settings,
        left_out=left_out,
        tables=store.tables(),
        csv_folder=CSV_FOLDER,
        plots_folder=PLOTS_FOLDER,
        summary_file=SUMMARY_FILE,
        kind=lambda part: type(part).__name__.lower(),
        entry=lambda one: _entry(one, store),
    )
    write_durably(folder / PAGE_FILE, page.encode())


def _entry(entry: Entry, store: Store) -> Markup:
    """Return a table's cell."""
    if isinstance(entry, str):
        return Markup("<td>{}</td>").format(entry)
    if isinstance(entry, Paper):
        return Markup('<td class="paper">{}</td>').format(entry.text)
    rows = number_ranges(entry.rows)
    source = f"{entry.statistic} of {entry.column}, {entry.table}.csv, rows {rows}"
    attributes = {
        "data-table": entry.table,
        "data-rows": rows,
        "data-column": entry.column,
        "data-statistic": entry.statistic,
        "data-factor": f"{entry.factor:g}",
        "data-digits": entry.digits,
        "title": source,
    }
    written = Markup(" ").join(Markup('{}="{}"').format(name, value) for name, value in attributes.items())
    opening = Markup("<td {}>{}").format(written, entry.text(store))
    if not entry.interval or entry.value(store, "low") is None:
        return opening + Markup("</td>")
    low, high = entry.text(store, "low"), entry.text(store, "high")
    return opening + Markup('<span class="interval">{} to {}</span></td>').format(low, high)


def _csv(store: Store, table: str) -> str:
    rows = store.table(table)
    out = io.StringIO()
    writer = csv.DictWriter(out, columns_of(rows), restval="", extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _fields(outcome: Outcome, store: Store) -> dict[str, Any]:
    """Return an experiment as plain values, fit for JSON."""
    fields: dict[str, Any] = {"name": outcome.name, "title": outcome.title, "seconds": round(outcome.seconds, 1)}
    if outcome.section is None:
        return fields | {"error": outcome.error}
    section = outcome.section
    return fields | {
        "source": section.source,
        "intro": section.intro,
        "tables": [_table_fields(part, store) for part in section.parts if isinstance(part, Table)],
        "plots": [
            {"file": f"{PLOTS_FOLDER}/{part.name}.png", "caption": part.caption}
            for part in section.parts
            if isinstance(part, Plot)
        ],
        "differences": list(section.differences),
    }


def _table_fields(table: Table, store: Store) -> dict[str, Any]:
    return {
        "caption": table.caption,
        "columns": list(table.columns),
        "lines": [[_entry_fields(entry, store) for entry in line] for line in table.lines],
    }


def _entry_fields(entry: Entry, store: Store) -> Any:
    if isinstance(entry, str):
        return entry
    if isinstance(entry, Paper):
        return {"paper": entry.text}
    fields: dict[str, Any] = {
        "value": entry.value(store),
        "table": entry.table,
        "rows": number_ranges(entry.rows),
        "column": entry.column,
        "statistic": entry.statistic,
    }
    return fields | ({"low": entry.value(store, "low"), "high": entry.value(store, "high")} if entry.interval else {})
