"""Reads a report as a reader with the CSV files beside it would, and says what is wrong with it."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass, field
from html.parser import HTMLParser
from statistics import fmean, stdev
from typing import TYPE_CHECKING

from PIL import Image
from scipy.stats import t

if TYPE_CHECKING:
    from pathlib import Path


@dataclass
class Number:
    """A cell of a table that says where it comes from."""

    attributes: dict[str, str]
    text: str = ""
    interval: str = ""


@dataclass
class Page(HTMLParser):
    """What a page has: numbers, pictures, links and names to link to."""

    numbers: list[Number] = field(default_factory=list)
    pictures: list[dict[str, str]] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    tags: set[str] = field(default_factory=set)
    _number: Number | None = None
    _in_interval: bool = False

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.add(tag)
        if "id" in attributes:
            self.names.add(attributes["id"])
        if tag == "img":
            self.pictures.append(attributes)
        if tag == "a":
            self.links.append(attributes["href"])
        if tag == "td" and "data-table" in attributes:
            self._number = Number(attributes)
            self.numbers.append(self._number)
        if tag == "span" and attributes.get("class") == "interval":
            self._in_interval = True

    def handle_endtag(self, tag):
        if tag == "td":
            self._number = None
        if tag == "span":
            self._in_interval = False

    def handle_data(self, data):
        if self._number is None:
            return
        if self._in_interval:
            self._number.interval += data
        else:
            self._number.text += data


def read_page(folder: Path) -> Page:
    page = Page()
    page.feed((folder / "report.html").read_text(encoding="utf-8"))
    page.close()
    return page


def mistakes(folder: Path) -> list[str]:
    """Recompute every number of ours from the CSV files, and look at every picture and link."""
    page = read_page(folder)
    tables = {path.stem: list(csv.DictReader(path.open(newline=""))) for path in (folder / "CSV").glob("*.csv")}
    wrong = []
    for number in page.numbers:
        at = number.attributes
        try:
            rows = list(_rows(tables[at["data-table"]], at["data-rows"]))
            values = [_value(row[at["data-column"]]) for row in rows]
            expected = _shown(values, at["data-statistic"], at)
            interval = " to ".join(_shown([end], "value", at) for end in _ends(rows, values)) if number.interval else ""
        except (KeyError, IndexError) as error:
            wrong.append(f"{at}: there is no {error}")
            continue
        if (number.text, number.interval) != (expected, interval):
            wrong.append(f"{at}: shows {number.text} {number.interval}, the rows give {expected} {interval}")
    for picture in page.pictures:
        try:
            Image.open(folder / picture["src"]).load()
        except OSError as error:
            wrong.append(f"{picture['src']}: {error}")
        if not picture.get("alt"):
            wrong.append(f"{picture['src']}: has no words for who cannot see it")
    for link in page.links:
        there = link[1:] in page.names if link.startswith("#") else (folder / link).is_file()
        if not there:
            wrong.append(f"{link}: leads nowhere")
    return wrong


def _rows(table, ranges):
    for part in ranges.split(","):
        first, _, last = part.partition("-")
        for number in range(int(first), int(last or first) + 1):
            row = table[number - 1]
            assert row["row"] == str(number)
            yield row


def _value(text):
    return {"": None, "True": 1.0, "False": 0.0}[text] if text in {"", "True", "False"} else float(text)


def _shown(values, statistic, at):
    number = None if None in values else _statistic(values, statistic)
    if number is None:
        return "-"
    text = f"{number * float(at['data-factor']):.{at['data-digits']}f}"
    return text.lstrip("-") if float(text) == 0 else text


def _statistic(values, statistic):
    if statistic == "value":
        (value,) = values
        return value
    return {"mean": fmean, "share": fmean, "max": max, "min": min, "sum": sum}[statistic](values)


def _ends(rows, values):
    """The 95 % interval of the mean: over sets of classes, where the rows name them."""
    names = [row.get("classes", row["row"]) for row in rows]
    means = [fmean(v for v, name in zip(values, names, strict=True) if name == one) for one in dict.fromkeys(names)]
    half = t.ppf(0.975, len(means) - 1) * stdev(means) / math.sqrt(len(means))
    return fmean(values) - half, fmean(values) + half
