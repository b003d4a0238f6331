"""The settings of the device daemon: one dataclass for each table of its TOML file.

A value that will not do is a ConfigError where the dataclass is made; `config_check` reads files and names every wrong
value at once.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edge_runtime.config_rules import (
    choice,
    hours,
    keys,
    number,
    parse_hours,
    path_name,
    switch,
    text,
    web_address,
    whole,
)
from edge_runtime.errors import ConfigError

if TYPE_CHECKING:
    from datetime import time
    from pathlib import Path

__all__ = [
    "DEFAULT_PORT",
    "ApiConfig",
    "CloudConfig",
    "DownloadConfig",
    "EdgeConfig",
    "MonitorConfig",
    "MqttConfig",
    "ProbationConfig",
    "WatchConfig",
]

DEFAULT_PORT = 8765

_DAY_S = 86400.0


class _Settings:
    """A table of settings that checks its values when it is made."""

    __slots__ = ()

    def __post_init__(self) -> None:
        for setting in dataclasses.fields(self):  # type: ignore[arg-type] # each subclass is a dataclass
            value, rule = getattr(self, setting.name), setting.metadata.get("rule")
            if rule is not None and not (value is None and setting.default is None) and not rule.holds(value):
                raise ConfigError(f"{setting.name} is {value!r}: expected {rule.expected}")


@dataclass(frozen=True, slots=True)
class CloudConfig(_Settings):
    """The cloud service, and how it is asked.

    Attributes
    ----------
    url
        Its address, `http://...` or `https://...`. Required.
    keys
        Its public keys, "ed25519:BASE64" each. Required: without one nothing that it sends could be believed.
    token_file
        File with the bearer token that it is shown; nobody but its owner may read the file. Default none.
    ca_file
        File with the only certificate authorities that its TLS certificate may come from, PEM. Default the system's.
    timeout_s
        How long it may stay silent, in s; a search for a large network takes a while. Default 60.
    retry_first_s, retry_max_s
        Wait before a failed request is sent again, in s: it doubles from the first to the longest, and a random part of
        up to half is taken off, so that devices do not come back all at once. Defaults 1 and 300.
    require_certificate
        Whether cuts without a certificate of their accuracy are refused. Default false.
    """

    url: str = field(metadata=web_address())
    keys: tuple[str, ...] = field(metadata=keys())
    token_file: Path | None = field(default=None, metadata=path_name("file"))
    ca_file: Path | None = field(default=None, metadata=path_name("file"))
    timeout_s: float = field(default=60.0, metadata=number(0.001, _DAY_S))
    retry_first_s: float = field(default=1.0, metadata=number(0.001, _DAY_S))
    retry_max_s: float = field(default=300.0, metadata=number(0.001, _DAY_S))
    require_certificate: bool = field(default=False, metadata=switch())

    def __post_init__(self) -> None:
        _Settings.__post_init__(self)
        if self.retry_max_s < self.retry_first_s:
            raise ConfigError(
                f"retry_max_s is {self.retry_max_s:g}: expected retry_first_s, {self.retry_first_s:g}, or more"
            )


@dataclass(frozen=True, slots=True)
class ApiConfig(_Settings):
    """Where programs on this machine reach the daemon.

    Attributes
    ----------
    host
        Address to serve on. Default "127.0.0.1": this machine alone; the API asks nobody who they are.
    port
        TCP port, 0 for any free one. Default 8765.
    socket
        Unix socket to serve on in place of host and port, for its owner and group. Default none.
    body_bytes_max
        Longest body of a request, in bytes. Default 16 MiB.
    """

    host: str = field(default="127.0.0.1", metadata=text())
    port: int = field(default=DEFAULT_PORT, metadata=whole(0, 65535))
    socket: Path | None = field(default=None, metadata=path_name("socket"))
    body_bytes_max: int = field(default=16 << 20, metadata=whole(1, 1 << 30))


@dataclass(frozen=True, slots=True)
class MonitorConfig(_Settings):
    """How it is seen which classes come up.

    Attributes
    ----------
    period
        Predictions after which usage is estimated anew. Default 250.
    floor
        Share of use below which a class is no part of it, above 0 and under 1. Default 0.05.
    audit_every
        While a cut serves, one in so many images is answered by the base model. 0 means none. Default 5.
    upload
        "usage": classes and their rough shares are sent when a cut is asked for. "never": nothing is. Default "usage".
    """

    period: int = field(default=250, metadata=whole(1, 10**9))
    floor: float = field(default=0.05, metadata=number(0.0001, 0.9999))
    audit_every: int = field(default=5, metadata=whole(0, 10**6))
    upload: str = field(default="usage", metadata=choice("usage", "never"))


@dataclass(frozen=True, slots=True)
class DownloadConfig(_Settings):
    """How files are fetched.

    Attributes
    ----------
    bytes_per_s
        Most bytes fetched per second. Default none: as fast as it goes.
    hours
        Local time of day in which files are fetched, "01:00-05:00"; may go over midnight. Default none: at any time.
    bytes_per_s_min
        A transfer slower than this for `cloud.timeout_s` is given up, in bytes per second. Default 200.
    file_bytes_max
        Longest file, in bytes. Default 1 GiB.
    """

    bytes_per_s: int | None = field(default=None, metadata=whole(1, 1 << 40))
    hours: str | None = field(default=None, metadata=hours())
    bytes_per_s_min: int = field(default=200, metadata=whole(1, 1 << 40))
    file_bytes_max: int = field(default=1 << 30, metadata=whole(1, 1 << 31))

    def __post_init__(self) -> None:
        _Settings.__post_init__(self)
        if self.bytes_per_s is not None and self.bytes_per_s < self.bytes_per_s_min:
            raise ConfigError(
                f"bytes_per_s is {self.bytes_per_s}: expected bytes_per_s_min, {self.bytes_per_s_min}, or more"
            )

    def window(self) -> tuple[time, time] | None:
        """Return beginning and end of `hours`; None for at any time. The end may be before the beginning: midnight."""
        return None if self.hours is None else parse_hours(self.hours)


@dataclass(frozen=True, slots=True)
class ProbationConfig(_Settings):
    """When a new cut gives way to the former model again.

    Attributes
    ----------
    images
        Images over which a new cut is watched. Default 200.
    latency_factor
        How many times slower than expected it may be. Default 2.
    doubtful_jump
        How much larger its share of doubtful answers may be than the former model's, 0 to 1. Default 0.2.
    confidence
        Answers less probable than this are doubtful, 0 to 1. Default 0.5.
    """

    images: int = field(default=200, metadata=whole(1, 10**6))
    latency_factor: float = field(default=2.0, metadata=number(1.0, 1000.0))
    doubtful_jump: float = field(default=0.2, metadata=number(0.0, 1.0))
    confidence: float = field(default=0.5, metadata=number(0.0, 1.0))


@dataclass(frozen=True, slots=True)
class WatchConfig(_Settings):
    """A folder whose pictures are classified.

    Attributes
    ----------
    folder
        Where pictures are put. Required.
    results
        File that gets a line of JSON for each picture. Default `results.jsonl` in the folder.
    after
        What happens to a picture that was classified: "move" puts it into `done` in the folder, "delete" removes it.
        Default "move".
    every_s
        How often the folder is looked at, in s; a picture is read when it did not change between two looks. Default 1.
    """

    folder: Path = field(metadata=path_name("folder"))
    results: Path | None = field(default=None, metadata=path_name("file"))
    after: str = field(default="move", metadata=choice("move", "delete"))
    every_s: float = field(default=1.0, metadata=number(0.01, 3600.0))


@dataclass(frozen=True, slots=True)
class MqttConfig(_Settings):
    """An MQTT broker that gets status and usage.

    Attributes
    ----------
    host
        Its name or address. Required.
    port
        Its TCP port. Default 1883; with `tls` 8883 is usual.
    user, password_file
        Who to log in as, and the file with the password; nobody but its owner may read the file. Default none.
    tls
        Whether to connect by TLS. Default false.
    ca_file
        File with the only certificate authorities that its TLS certificate may come from, PEM. Default the system's.
    topic
        What topics begin with. Default "capnn".
    discovery
        Where Home Assistant looks for devices. Default "homeassistant".
    every_s
        Shortest time between two messages of the same kind, in s. Default 10.
    """

    host: str = field(metadata=text())
    port: int = field(default=1883, metadata=whole(1, 65535))
    user: str | None = field(default=None, metadata=text())
    password_file: Path | None = field(default=None, metadata=path_name("file"))
    tls: bool = field(default=False, metadata=switch())
    ca_file: Path | None = field(default=None, metadata=path_name("file"))
    topic: str = field(default="capnn", metadata=text())
    discovery: str = field(default="homeassistant", metadata=text())
    every_s: float = field(default=10.0, metadata=number(0.1, _DAY_S))


@dataclass(frozen=True, slots=True)
class EdgeConfig(_Settings):
    """What `capnn-edge run` needs to know.

    Attributes
    ----------
    state
        Folder for models and usage, made where missing. Required.
    cloud
        The cloud service. Required.
    device
        Name that the cloud's logs show; identifies nobody. Default "device".
    threads
        Threads of each interpreter. Default 1.
    api, monitor, download, probation
        Tables of settings that all have defaults.
    watch, mqtt
        A watched folder and an MQTT broker; without them there is none.

    Raises
    ------
    ConfigError
        A value, here or in a table, is of the wrong type or out of its range; the message names it.
    """

    state: Path = field(metadata=path_name("folder"))
    cloud: CloudConfig
    device: str = field(default="device", metadata=text())
    threads: int = field(default=1, metadata=whole(1, 256))
    api: ApiConfig = ApiConfig()
    monitor: MonitorConfig = MonitorConfig()
    download: DownloadConfig = DownloadConfig()
    probation: ProbationConfig = ProbationConfig()
    watch: WatchConfig | None = None
    mqtt: MqttConfig | None = None
