"""How often one device may ask (`limits`): counted in this process, or by all together on a Redis server."""

from __future__ import annotations

import logging
import math
import time
from typing import TYPE_CHECKING, Any, Final, cast

from limits import RateLimitItem, parse
from limits.storage import MemoryStorage, storage_from_string
from limits.strategies import MovingWindowRateLimiter

from edge_runtime.config_rules import Rule

if TYPE_CHECKING:
    from limits.storage import Storage

__all__ = ["DeviceRates", "rate"]

_REDIS_TIMEOUT_S: Final = 0.25

_log = logging.getLogger(__name__)


class DeviceRates:
    """Counts the requests of each device; for any number of threads. Without its server, this process counts alone.

    Parameters
    ----------
    allowed
        As "300/minute".
    redis
        The server on which all workers and machines count together; None: each worker counts for itself.
    """

    def __init__(self, allowed: str, redis: str | None = None) -> None:
        self._allowed: RateLimitItem = parse(allowed)
        self._here = MovingWindowRateLimiter(MemoryStorage())
        self._together = None if redis is None else MovingWindowRateLimiter(_on_server(redis))
        self._away_until = 0.0

    @property
    def blocking(self) -> bool:
        """Whether `retry_after_s` waits for a server."""
        return self._together is not None

    def retry_after_s(self, device: str) -> int | None:
        """Count a request of `device`; return None where it is within the rate, else in how many s it would be."""
        if self._together is not None and time.monotonic() >= self._away_until:
            try:
                return self._wait_of(self._together, device)
            except Exception as error:  # noqa: BLE001 - whatever the server's client raises: devices are answered without it
                self._away_until = time.monotonic() + 5.0
                _log.warning("the rates' server is away (%s): this worker counts for itself", type(error).__name__)
        return self._wait_of(self._here, device)

    def _wait_of(self, limiter: MovingWindowRateLimiter, device: str) -> int | None:
        if limiter.hit(self._allowed, "device", device):
            return None
        return max(1, math.ceil(limiter.get_window_stats(self._allowed, "device", device).reset_time - time.time()))


def rate() -> dict[str, Rule]:
    """Return the rule of a rate."""
    return {"rule": Rule('a rate such as "300/minute"', _is_rate)}


def _is_rate(value: Any) -> bool:
    try:
        return isinstance(value, str) and bool(parse(value))
    except ValueError:
        return False


def _on_server(url: str) -> Storage:
    timeouts: Any = {"socket_timeout": _REDIS_TIMEOUT_S, "socket_connect_timeout": _REDIS_TIMEOUT_S}
    return cast("Storage", storage_from_string(url, **timeouts))
