"""The settings of the device daemon: one TOML file, one dataclass."""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from edge_runtime.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["DEFAULT_PORT", "EdgeConfig", "read_config"]

DEFAULT_PORT = 8765


@dataclass(frozen=True, slots=True)
class EdgeConfig:
    """What `capnn-edge run` needs to know.

    Attributes
    ----------
    cloud
        Address of the cloud service, `http://...` or `https://...`. Required.
    state
        Folder for models and counts, made where missing. Required.
    host
        Address to serve the local API on. Default "127.0.0.1": this machine alone; the API asks nobody who they are.
    port
        TCP port of the local API, 0 for any free one. Default 8765.
    device
        Name that the cloud's logs show; identifies nobody. Default "device".
    period
        Counted predictions in a monitoring period. Default 200.
    floor
        Share of a period below which a class is no part of its usage, from 0 to under 1. Default 0.05.
    change
        Total variation distance, from 0 to under 1, above which usage has changed and a new cut is asked for.
        Default 0.2.
    audit_every
        While a cut serves, one in so many images is answered by the base model, and counted. 1 means all. Default 10.
    threads
        Threads of each interpreter. Default 1.
    timeout_s
        How long the cloud may stay silent, in s; a search for a large network takes a while. Default 60.
    retry_first_s, retry_max_s
        Wait before a failed request is sent again, in s: it doubles from the first to the longest, and a random part of
        up to half is taken off, so that devices do not come back all at once. Defaults 1 and 300.
    body_bytes_max
        Longest body of a request to the local API, in bytes. Default 16 MiB.
    answer_bytes_max
        Longest answer of the cloud, in bytes; a little more than the largest model file. Default 1 GiB.

    Raises
    ------
    ConfigError
        A value is of the wrong type or out of its range; the message names it.
    """

    cloud: str
    state: Path
    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    device: str = "device"
    period: int = 200
    floor: float = 0.05
    change: float = 0.2
    audit_every: int = 10
    threads: int = 1
    timeout_s: float = 60.0
    retry_first_s: float = 1.0
    retry_max_s: float = 300.0
    body_bytes_max: int = 16 << 20
    answer_bytes_max: int = 1 << 30

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            _check(field.name, getattr(self, field.name))
        if self.retry_max_s < self.retry_first_s:
            raise ConfigError(
                f"retry_max_s is {self.retry_max_s:g}: expected retry_first_s, {self.retry_first_s:g}, or more"
            )


_WHOLE_NUMBERS = {
    "port": (0, 65535),
    "period": (1, 10**9),
    "audit_every": (1, 10**6),
    "threads": (1, 256),
    "body_bytes_max": (1, 1 << 30),
    "answer_bytes_max": (1, 1 << 30),
}
_NUMBERS = {
    "floor": (0.0, 1.0),
    "change": (0.0, 1.0),
    "timeout_s": (0.001, 86400.0),
    "retry_first_s": (0.001, 86400.0),
    "retry_max_s": (0.001, 86400.0),
}


def _check(name: str, value: Any) -> None:
    """Raise ConfigError unless `value` will do for the setting `name`."""
    expected = ""
    if name in _WHOLE_NUMBERS:
        low, high = _WHOLE_NUMBERS[name]
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            expected = f"a whole number from {low} to {high}"
    elif name in _NUMBERS:
        low_number, under = _NUMBERS[name]
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not low_number <= value < under:
            expected = f"a number from {low_number:g} to under {under:g}"
    elif name == "state":
        if not isinstance(value, str | Path) or not str(value):
            expected = "the name of a folder in quotes"
    elif not isinstance(value, str) or not value:
        expected = "a text in quotes"
    elif name == "cloud" and not _is_web_address(value):
        expected = "an address such as https://capnn.example.org"
    if expected:
        raise ConfigError(f"{name} is {value!r}: expected {expected}")


def _is_web_address(text: str) -> bool:
    try:
        address = urlsplit(text)
        return (
            address.scheme in {"http", "https"}
            and bool(address.hostname)
            and (address.port is None or address.port > 0)
        )
    except ValueError:
        return False


def read_config(path: Path | None, options: Mapping[str, Any]) -> EdgeConfig:
    """Read the TOML file `path`, where there is one, and put `options` from the command line (those not None) over it.

    A relative `state` in the file is relative to the file's folder.

    Raises
    ------
    ConfigError
        The file cannot be read, is no TOML, has an unknown key or a wrong value, or a required setting is missing.
    """
    values = {} if path is None else _read_toml(path)
    known = [field.name for field in dataclasses.fields(EdgeConfig)]
    for name, value in values.items():
        if name not in known:
            raise ConfigError(f"{path}: unknown key '{name}': the known ones are {', '.join(known)}")
        try:
            _check(name, value)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error
    if path is not None and "state" in values:
        values["state"] = path.parent / values["state"]
    values |= {name: value for name, value in options.items() if value is not None}
    for name in ("cloud", "state"):
        if name not in values:
            where = "" if path is None else f"{path}: "
            raise ConfigError(f"{where}{name} is not set: give it in a configuration file or as --{name}")
    return EdgeConfig(**{**values, "state": Path(values["state"])})


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}): check the name after --config") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is not valid TOML: {error}") from error
