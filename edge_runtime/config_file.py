"""Reads the settings: a TOML file, options of the command line over it, every wrong value named with its line.

Nothing here looks at the machine; `config_check` does.
"""

from __future__ import annotations

import dataclasses
import difflib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_runtime.config import (
    ApiConfig,
    CloudConfig,
    DownloadConfig,
    EdgeConfig,
    MonitorConfig,
    MqttConfig,
    ProbationConfig,
    WatchConfig,
)
from edge_runtime.errors import ConfigError
from edge_runtime.toml_file import TomlFileError, read_toml

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["OPTIONS", "Problem", "Settings", "read_settings"]

_TABLES: dict[str, type] = {
    "cloud": CloudConfig,
    "api": ApiConfig,
    "monitor": MonitorConfig,
    "download": DownloadConfig,
    "probation": ProbationConfig,
    "watch": WatchConfig,
    "mqtt": MqttConfig,
}
_ONLY_WHERE_GIVEN = ("watch", "mqtt")

OPTIONS = {"cloud": "cloud.url", "key": "cloud.keys", "state": "state", "host": "api.host", "port": "api.port"}
"""Options of the command line, without their dashes, and the settings that they stand for."""


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with one setting.

    Attributes
    ----------
    where
        "edge.toml:12", or the option of the command line.
    setting
        Its name, with its table's: "cloud.url"; empty where none is meant.
    text
        What is wrong, and what to do.
    """

    where: str
    setting: str
    text: str

    def __str__(self) -> str:
        return ": ".join(filter(None, (self.where, " ".join(filter(None, (self.setting, self.text))))))


@dataclass
class Settings:
    """What a file and options say, as far as each value is one that its setting may have.

    Attributes
    ----------
    values
        Setting, such as "cloud.url", -> its value.
    problems
        What is wrong with the others.
    places
        Setting or table -> where it is given.
    file
        Name of the file; empty without one.
    """

    values: dict[str, Any] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    places: dict[str, str] = field(default_factory=dict)
    file: str = ""

    def where(self, setting: str) -> str:
        """Return where `setting` is given, or should be."""
        table = setting.rpartition(".")[0]
        return self.places.get(setting) or self.places.get(table) or (f"{self.file}:1" if self.file else "")

    def wrong(self, setting: str, text: str) -> None:
        """Note a problem: `text` goes after the setting's name."""
        self.problems.append(Problem(self.where(setting), setting, text))

    def config(self) -> EdgeConfig:
        """Return the settings as the daemon takes them.

        Raises
        ------
        ConfigError
            Something is wrong with them: the first problem, and how many more there are.
        """
        if self.problems:
            more = len(self.problems) - 1
            also = f" (and {more} more: capnn-edge check names them all)" if more else ""
            raise ConfigError(f"{self.problems[0]}{also}")
        given = {name.partition(".")[0] for name in self.values}
        tables = {
            name: kind(**_part(self.values, name))
            for name, kind in _TABLES.items()
            if name in given or name not in _ONLY_WHERE_GIVEN
        }
        plain = {name: value for name, value in self.values.items() if "." not in name}
        return EdgeConfig(**plain, **tables)


def read_settings(path: Path | None, options: Mapping[str, Any]) -> Settings:
    """Read the TOML file `path`, where there is one, and put `options` (names as in `OPTIONS`; those not None) over it.

    A relative name of a file or folder in the file is relative to the file's folder.
    """
    settings = Settings(file="" if path is None else str(path))
    if path is not None:
        _read_file(settings, path)
    for option, value in options.items():
        if value is not None:
            settings.places[OPTIONS[option]] = f"--{option}"
            _take(settings, OPTIONS[option], value, Path())
            if option in {"host", "port"}:
                settings.values.pop("api.socket", None)
    _check_together(settings)
    _check_complete(settings)
    return settings


def _read_file(settings: Settings, path: Path) -> None:
    try:
        given, places = read_toml(path)
    except TomlFileError as error:
        settings.problems.append(Problem(error.where, "", error.text))
    else:
        settings.places.update(places)
        _read_table(settings, given, "", EdgeConfig, path.parent)


def _read_table(settings: Settings, given: Mapping[str, Any], table: str, kind: type, folder: Path) -> None:
    known = [setting.name for setting in dataclasses.fields(kind)]
    for name, value in given.items():
        full = f"{table}.{name}" if table else name
        if name not in known:
            settings.wrong(full, f"is not known: {_meant(name, known, table)}")
        elif full not in _TABLES:
            _take(settings, full, value, folder)
        elif isinstance(value, dict):
            _read_table(settings, value, full, _TABLES[full], folder)
        else:
            settings.wrong(full, f"is {value!r}: expected a table: write [{full}] and its settings below")


def _meant(name: str, known: list[str], table: str) -> str:
    """Return what may have been meant by an unknown setting: one of its table rather than another's."""
    elsewhere: dict[str, str] = {}
    for other, kind in {"": EdgeConfig, **_TABLES}.items():
        if other != table:
            for setting in dataclasses.fields(kind):
                elsewhere.setdefault(setting.name, other)
    if name in elsewhere:
        return f"it belongs {f'below [{elsewhere[name]}]' if elsewhere[name] else 'above all tables'}"
    near = difflib.get_close_matches(name, [*known, *elsewhere], n=1, cutoff=0.7)
    if not near:
        return f"known here are {', '.join(known)}"
    other = "" if near[0] in known else elsewhere[near[0]]
    return f"did you mean {near[0]}{f' below [{other}]' if other else ''}?"


def _take(settings: Settings, full: str, value: Any, folder: Path) -> None:
    """Keep a value that will do; else note what is wrong."""
    table, _, name = full.rpartition(".")
    kind = _TABLES.get(table, EdgeConfig)
    rule = next(setting for setting in dataclasses.fields(kind) if setting.name == name).metadata["rule"]
    read = rule.read(value)
    if not rule.holds(read):
        settings.values.pop(full, None)
        settings.wrong(full, f"is {value!r}: expected {rule.expected}")
    else:
        settings.values[full] = folder / read if isinstance(read, Path) else read


def _part(values: Mapping[str, Any], table: str) -> dict[str, Any]:
    """Return the settings of one table, by their names in it."""
    prefix = f"{table}."
    return {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}


def _check_together(settings: Settings) -> None:
    """Note values that will do each by itself, but not together."""
    for table in ("cloud", "download"):
        part = _part(settings.values, table)
        kind = _TABLES[table]
        if all(name in part for name in _required(kind)):
            try:
                kind(**part)
            except ConfigError as error:
                name, _, text = str(error).partition(" ")
                settings.wrong(f"{table}.{name}", text)
    values = settings.values
    if "api.socket" in values and {"api.host", "api.port"} & values.keys():
        settings.wrong("api.socket", "is given beside host or port: remove the one or the other")
    if "mqtt.password_file" in values and "mqtt.user" not in values:
        settings.wrong("mqtt.password_file", "is given without user: name the user too")
    if "mqtt.ca_file" in values and not values.get("mqtt.tls"):
        settings.wrong("mqtt.ca_file", "is given without tls: add tls = true")


def _check_complete(settings: Settings) -> None:
    """Note each setting that must be given and is not; one given wrongly has been noted already."""
    noted = {problem.setting for problem in settings.problems}
    if any(not problem.setting for problem in settings.problems):
        return  # nothing is known of what the file says
    options = {setting: f", or give --{option}" for option, setting in OPTIONS.items()}
    for table, kind in {"": EdgeConfig, **_TABLES}.items():
        given = table in settings.places or any(name.startswith(f"{table}.") for name in settings.values)
        if table in noted or (table in _ONLY_WHERE_GIVEN and not given):
            continue
        for name in _required(kind):
            full = f"{table}.{name}" if table else name
            if full not in settings.values and full not in noted and full not in _TABLES:
                place = f"below [{table}]" if table else "above all tables"
                settings.wrong(full, f"is not set: add it {place}{options.get(full, '')}")


def _required(kind: type) -> list[str]:
    return [
        setting.name
        for setting in dataclasses.fields(kind)
        if setting.default is dataclasses.MISSING and setting.default_factory is dataclasses.MISSING
    ]
