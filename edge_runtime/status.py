"""What the daemon did and how it is: gathered from all threads, as plain values."""

from __future__ import annotations

import bisect
import threading
import time
from collections import Counter, deque
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edge_runtime.certificate import Certificate
    from edge_runtime.serving import Models

__all__ = ["COUNTERS", "LATENCY_BOUNDS_S", "Records", "model_fields"]

COUNTERS = {
    "classified": "images answered",
    "failed": "images answered with an error",
    "cloud_requests": "requests sent to the cloud",
    "swaps": "times a new cut came to serve",
    "rollbacks": "times a new cut gave way to the former model",
    "refused_updates": "updates that were not taken",
    "downloaded_bytes": "bytes of files fetched",
}
"""Everything that is counted since the start."""

LATENCY_BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
"""Upper bounds of the classes in which inferences are counted by their time, in s; longer ones are in none."""

_ERRORS_KEPT = 5


@dataclass
class _Failure:
    text: str
    since: float
    times: int = 1


class Records:
    """Counters since the start, the times of inferences, and the last errors. Safe for use by several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter(dict.fromkeys(COUNTERS, 0))
        self._errors: deque[_Failure] = deque(maxlen=_ERRORS_KEPT)
        self._latencies = [0] * (len(LATENCY_BOUNDS_S) + 1)
        self._latency_sum_s = 0.0
        self._start = time.monotonic()

    def add(self, name: str, amount: int = 1) -> None:
        """Add to the counter `name`, one of `COUNTERS`."""
        with self._lock:
            self._counts[name] += amount

    def count(self, name: str) -> int:
        """Return the counter `name`."""
        return self._counts[name]

    def inferred(self, seconds: float) -> None:
        """Count one inference that took `seconds`."""
        place = bisect.bisect_left(LATENCY_BOUNDS_S, seconds)
        with self._lock:
            self._latencies[place] += 1
            self._latency_sum_s += seconds

    def latencies(self) -> tuple[list[int], float]:
        """Return how many inferences took at most each of `LATENCY_BOUNDS_S`, at last all, and their time in all."""
        with self._lock:
            return list(accumulate(self._latencies)), self._latency_sum_s

    def fail(self, error: BaseException) -> None:
        """Remember `error` as the last one; said again, it is the same one once more."""
        text = " ".join(str(error).split()) or type(error).__name__
        with self._lock:
            former = next((failure for failure in self._errors if failure.text == text), None)
            if former is not None:
                self._errors.remove(former)
            times = 1 if former is None else former.times + 1
            self._errors.append(_Failure(text, time.monotonic(), times))

    def to_fields(self) -> dict[str, Any]:
        """Return the counters, the mean time of an inference in s, ages in s, and the errors, the last one first.

        What there is nothing of yet is None.
        """
        with self._lock:
            now = time.monotonic()
            errors = [
                {"error": failure.text, "age_s": round(now - failure.since, 1), "times": failure.times}
                for failure in reversed(self._errors)
            ]
            return {
                "counters": dict(self._counts),
                "inference_s": round(self._latency_sum_s / inferred, 6) if (inferred := sum(self._latencies)) else None,
                "uptime_s": round(now - self._start, 1),
                "last_error": errors[0]["error"] if errors else None,
                "last_error_age_s": errors[0]["age_s"] if errors else None,
                "errors": errors,
            }


def model_fields(models: Models) -> dict[str, Any] | None:
    """Return what the status says of the active model; None without one."""
    model = models.active
    if model is None:
        return None
    manifest = model.manifest
    return {
        "digest": manifest.digest,
        "base": manifest.base,
        "slot": model.slot,
        "variant": manifest.variant,
        "usage": manifest.usage,
        "guarantee": manifest.guarantee,
        "certificate": _certificate_fields(manifest.certificate),
        "relative_size": manifest.relative_size,
        "bytes": manifest.bytes,
        "cache_tier": manifest.cache_tier,
        "signed_at": manifest.serial / 1e6 if manifest.serial else None,
    }


def _certificate_fields(certificate: Certificate | None) -> dict[str, Any] | None:
    return None if certificate is None else {"epsilon": certificate.epsilon, "delta": certificate.delta}
