"""Reads `service.toml`: every wrong value is named with its line, and what it should be."""

from __future__ import annotations

import dataclasses
import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cloud_pruner.errors import RequestError
from cloud_pruner.service.settings import (
    CacheSettings,
    KeysSettings,
    LimitsSettings,
    ServerSettings,
    ServiceSettings,
    StateSettings,
)
from cloud_pruner.state.names import checked_name
from edge_runtime.config_rules import Rule
from edge_runtime.errors import ConfigError
from edge_runtime.toml_file import read_toml

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["read_settings"]

_TABLES: Final[dict[str, type]] = {
    "server": ServerSettings,
    "limits": LimitsSettings,
    "state": StateSettings,
    "keys": KeysSettings,
    "cache": CacheSettings,
}
_MODELS: Final = "models"
_PROFILES: Final = "profiles"
_LOCAL: Final = "sqlite:///"
_NO_LIST = Rule('a list of the folders of its profiles, as ["profiles/birds-1"]', lambda _: False)


def read_settings(path: Path) -> ServiceSettings:
    """Read the TOML file `path`. A relative name of a file or folder in it is relative to the file's folder.

    Raises
    ------
    ConfigError
        It cannot be read, or something in it is wrong: the first of the faults, and how many more there are.
    """
    given, places = read_toml(path)
    return _Reader(path, places).settings(given)


class _Reader:
    """Gathers what is wrong, to name the first and count the rest."""

    def __init__(self, path: Path, places: Mapping[str, str]) -> None:
        self._path, self._places = path, places
        self._wrong: list[str] = []

    def settings(self, given: Mapping[str, Any]) -> ServiceSettings:
        known = [*_TABLES, _MODELS]
        for name in given.keys() - set(known):
            self._note(name, f"is not known: {_meant(name, known)}")
        tables = {name: self._table(name, kind, given.get(name, {})) for name, kind in _TABLES.items()}
        models = self._models(given.get(_MODELS, {}))
        if self._wrong:
            more = f" (and {len(self._wrong) - 1} more)" if len(self._wrong) > 1 else ""
            raise ConfigError(f"{self._wrong[0]}{more}")
        return ServiceSettings(models=models, **tables)

    def _table(self, table: str, kind: type, given: Any) -> Any:
        if not isinstance(given, dict):
            self._note(table, f"is {given!r:.80}: write [{table}] and its settings below")
            return None
        rules = {setting.name: setting for setting in dataclasses.fields(kind)}
        values: dict[str, Any] = {}
        before = len(self._wrong)
        for name, value in given.items():
            full = f"{table}.{name}"
            if name not in rules:
                self._note(full, f"is not known: {_meant(name, list(rules))}")
            else:
                values[name] = self._value(full, value, rules[name].metadata["rule"])
        for name, setting in rules.items():
            if setting.default is dataclasses.MISSING and name not in given:
                self._note(f"{table}.{name}", f"is not set: add it below [{table}]")
        if len(self._wrong) > before:
            return None
        try:
            return kind(**values)
        except ConfigError as error:
            self._note(f"{table}.{str(error).partition(' ')[0]}", str(error).partition(" ")[2])
            return None

    def _models(self, given: Any) -> dict[str, tuple[Path, ...]]:
        if not isinstance(given, dict) or not given:
            self._note(_MODELS, 'names none: write [models.NAME] and below it profiles = ["FOLDER"]')
            return {}
        models: dict[str, tuple[Path, ...]] = {}
        for name, table in given.items():
            full = f"{_MODELS}.{name}.{_PROFILES}"
            folders = table.get(_PROFILES) if isinstance(table, dict) else None
            if not isinstance(folders, list) or not folders or not all(isinstance(one, str) for one in folders):
                self._value(full, folders, _NO_LIST)
            elif len(table) > 1:
                self._note(
                    f"{_MODELS}.{name}", f"has more than {_PROFILES}: remove {', '.join(table.keys() - {_PROFILES})}"
                )
            elif len(set(folders)) < len(folders):
                self._note(full, "names a profile twice: name each once")
            else:
                self._check_name(name)
                models[name] = tuple(self._path.parent / folder for folder in folders)
        return models

    def _check_name(self, name: str) -> None:
        try:
            checked_name(name, "model")
        except RequestError as error:
            self._note(f"{_MODELS}.{name}", f"cannot be called so: {error}")

    def _value(self, full: str, value: Any, rule: Rule) -> Any:
        read = rule.read(value)
        if not rule.holds(read):
            self._note(full, f"is {value!r:.80}: expected {rule.expected}")
        if isinstance(read, Path):
            return self._path.parent / read
        if full == "state.database" and isinstance(read, str) and read.startswith(_LOCAL):
            return f"{_LOCAL}{self._path.parent.absolute() / read.removeprefix(_LOCAL)}"
        if full == "state.files" and isinstance(read, str) and "://" not in read:
            return str(self._path.parent.absolute() / read)
        return read

    def _place(self, setting: str) -> str:
        table = setting.rpartition(".")[0]
        return self._places.get(setting) or self._places.get(table) or f"{self._path}:1"

    def _note(self, setting: str, text: str) -> None:
        self._wrong.append(f"{self._place(setting)}: {setting} {text}")


def _meant(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.7)
    return f"did you mean {near[0]}?" if near else f"known here are {', '.join(known)}"
