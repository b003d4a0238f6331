"""How often one device may ask: counted in this process, or by all together on a Redis server (`limits`)."""

from __future__ import annotations

import logging
import math
import threading
import time
from typing import TYPE_CHECKING, Any, Final, cast

from cachetools import LRUCache
from limits import parse
from limits.storage import storage_from_string
from limits.strategies import MovingWindowRateLimiter

from edge_runtime.config_rules import Rule

if TYPE_CHECKING:
    from collections.abc import Callable

    from limits.storage import Storage

__all__ = ["DeviceRates", "rate"]

_DEVICES: Final = 100_000
_REDIS_TIMEOUT_S: Final = 0.25
_REDIS_REST_S: Final = 5.0

_log = logging.getLogger(__name__)


class DeviceRates:
    """Counts the requests of each device; for any number of threads. Without its server, this process counts alone.

    Parameters
    ----------
    allowed
        As "300/minute": so many at once, and then so many in each such time.
    redis
        The server on which all workers and machines count together; None: each worker counts for itself.
    clock
        Says the time in s.
    """

    def __init__(self, allowed: str, redis: str | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._allowed = parse(allowed)
        self._period_s = float(self._allowed.get_expiry())
        self._clock = clock
        # Device -> when it will have made up for all that it asked: one number each, and no window to tidy up.
        self._made_up_at: LRUCache[str, float] = LRUCache(_DEVICES)
        self._turn = threading.Lock()
        self._together = None if redis is None else MovingWindowRateLimiter(_on_server(redis))
        self._away_until = -math.inf

    @property
    def blocking(self) -> bool:
        """Whether `retry_after_s` waits for a server."""
        return self._together is not None

    def retry_after_s(self, device: str) -> int | None:
        """Count a request of `device`; return None where it is within the rate, else in how many s it would be."""
        if self._together is not None and self._clock() >= self._away_until:
            try:
                return self._asked_together(self._together, device)
            except Exception as error:  # noqa: BLE001 - whatever its client raises: devices are answered without it
                self._away_until = self._clock() + _REDIS_REST_S
                _log.warning("the rates' server is away (%s): this worker counts for itself", type(error).__name__)
        return self._asked_here(device)

    def _asked_here(self, device: str) -> int | None:
        now = self._clock()
        with self._turn:
            made_up_at = max(self._made_up_at.get(device, now), now) + self._period_s / self._allowed.amount
            over_s = made_up_at - now - self._period_s
            if over_s > 1e-6:
                return max(1, math.ceil(over_s))
            self._made_up_at[device] = made_up_at
        return None

    def _asked_together(self, limiter: MovingWindowRateLimiter, device: str) -> int | None:
        if limiter.hit(self._allowed, "device", device):
            return None
        return max(1, math.ceil(limiter.get_window_stats(self._allowed, "device", device).reset_time - time.time()))


def rate() -> dict[str, Rule]:
    """Return the rule of a rate."""
    return {"rule": Rule('a rate such as "300/minute"', _is_rate)}


def _is_rate(value: Any) -> bool:
    try:
        return isinstance(value, str) and parse(value).amount > 0
    except ValueError:
        return False


def _on_server(url: str) -> Storage:
    timeouts: Any = {"socket_timeout": _REDIS_TIMEOUT_S, "socket_connect_timeout": _REDIS_TIMEOUT_S}
    return cast("Storage", storage_from_string(url, **timeouts))
