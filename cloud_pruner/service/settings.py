"""What a service is told: where its state lies, what it serves, and how much it takes on at once."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from cache.memory import POLICIES
from cloud_pruner.requests import GUARANTEES
from cloud_pruner.service.rates import rate
from edge_runtime.config_rules import choice, number, path_name, switch, text, whole
from edge_runtime.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from typing_extensions import Self

__all__ = [
    "CacheSettings",
    "KeysSettings",
    "LimitsSettings",
    "ServerSettings",
    "ServiceSettings",
    "StateSettings",
]

DEFAULT_PORT: Final = 8750


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """How the service listens.

    Attributes
    ----------
    host, port
        Where; port 0 takes a free one.
    workers
        Processes that answer; each opens every profile and searches in one thread.
    tls_cert, tls_key
        PEM files; without them the service speaks plain HTTP.
    tokens
        Whether callers must show a token; None: where `host` is not this machine's own.
    guarantee
        For requests that name none.
    metrics
        Who may read `/metrics`.
    log
        "plain" lines for people, "json" for machines.
    drain_s
        For so long after SIGTERM `/readyz` answers 503 before connections are refused, in s: what a load balancer takes
        to notice.
    stop_s
        How long requests under way may then take to end, in s.
    """

    host: str = field(default="127.0.0.1", metadata=text())
    port: int = field(default=DEFAULT_PORT, metadata=whole(0, 65535))
    workers: int = field(default=1, metadata=whole(1, 256))
    tls_cert: Path | None = field(default=None, metadata=path_name("file"))
    tls_key: Path | None = field(default=None, metadata=path_name("file"))
    tokens: bool | None = field(default=None, metadata=switch())
    guarantee: str = field(default="certified", metadata=choice(*GUARANTEES))
    metrics: str = field(default="anybody", metadata=choice("anybody", "operators"))
    log: str = field(default="plain", metadata=choice("plain", "json"))
    drain_s: float = field(default=0.0, metadata=number(0, 600))
    stop_s: float = field(default=10.0, metadata=number(0, 600))

    def __post_init__(self) -> None:
        if (self.tls_cert is None) != (self.tls_key is None):
            given, missing = ("tls_key", "tls_cert") if self.tls_cert is None else ("tls_cert", "tls_key")
            raise ConfigError(f"{given} is given without {missing}: TLS needs both")

    @property
    def tokens_required(self) -> bool:
        """Whether callers must show a token."""
        return self.tokens if self.tokens is not None else not _is_loopback(self.host)


@dataclass(frozen=True, slots=True)
class LimitsSettings:
    """What each worker takes on at once, and what it refuses.

    Attributes
    ----------
    in_flight
        Requests being worked on; more are answered 429. Those that wait for their client or a search do not count. One
        interpreter works on them all: more at once would only wait for each other.
    connections
        Requests that are open at all, waiting for their client included; more are answered 429.
    queue
        Searches that wait for their turn; more are answered 429.
    request_s
        How long a request waits for its search before it is answered 503, in s; the search goes on.
    receive_s
        How long a client may take to send a request, in s.
    keep_alive_s
        How long a connection may idle, in s.
    body_bytes
        Length of a request's body.
    device_rate
        Requests of one device, as "300/minute".
    """

    in_flight: int = field(default=6, metadata=whole(1, 100_000))
    connections: int = field(default=2048, metadata=whole(1, 100_000))
    queue: int = field(default=32, metadata=whole(1, 100_000))
    request_s: float = field(default=30.0, metadata=number(0.1, 3600))
    receive_s: float = field(default=10.0, metadata=number(0.1, 3600))
    keep_alive_s: float = field(default=75.0, metadata=number(1, 3600))
    body_bytes: int = field(default=1 << 18, metadata=whole(1024, 1 << 26))
    device_rate: str = field(default="300/minute", metadata=rate())


@dataclass(frozen=True, slots=True)
class StateSettings:
    """Where devices, jobs and plans lie.

    Attributes
    ----------
    database
        A SQLAlchemy URL: `sqlite:///...` or `postgresql+psycopg://...`.
    files
        A folder, or an fsspec URL such as `s3://bucket/prefix`.
    metrics
        A folder on this machine, in which its workers count; what it holds of an earlier start is deleted. None: a
        temporary one.
    """

    database: str = field(metadata=text())
    files: str = field(metadata=text())
    metrics: Path | None = field(default=None, metadata=path_name("folder"))

    @classmethod
    def in_folder(cls, folder: Path) -> Self:
        """Return the settings of a state that lies in one folder."""
        folder = folder.absolute()
        return cls(f"sqlite:///{folder / 'state.sqlite'}", str(folder / "files"), folder / "metrics")


@dataclass(frozen=True, slots=True)
class CacheSettings:
    """Where earlier results are remembered besides in memory, and by which policy the memory forgets."""

    sqlite: Path | None = field(default=None, metadata=path_name("file"))
    redis: str | None = field(default=None, metadata=text())
    policy: str = field(default="cost", metadata=choice(*POLICIES))


@dataclass(frozen=True, slots=True)
class KeysSettings:
    """The folder made by `capnn keys generate`."""

    folder: Path = field(metadata=path_name("folder"))


@dataclass(frozen=True, slots=True)
class ServiceSettings:
    """All of it.

    Attributes
    ----------
    models
        Name -> folders of the profiles that are served under it; at the first start the first is the current one.
    """

    state: StateSettings
    keys: KeysSettings
    models: Mapping[str, tuple[Path, ...]]
    server: ServerSettings = field(default_factory=ServerSettings)
    limits: LimitsSettings = field(default_factory=LimitsSettings)
    cache: CacheSettings = field(default_factory=CacheSettings)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
