"""What the daemon did and how it is: gathered from all threads, shown as JSON and as text."""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edge_runtime.serving import Models

__all__ = ["Records", "model_fields", "status_text"]

_COUNTERS = ("classified", "failed", "cloud_requests", "swaps")


class Records:
    """Counters since the start, and the last error. Safe for use by several threads.

    The counters are `classified` (images answered), `failed` (images answered with an error), `cloud_requests` (sent)
    and `swaps` (of cuts).
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter(dict.fromkeys(_COUNTERS, 0))
        self._error: tuple[str, float] | None = None

    def add(self, name: str) -> None:
        """Add one to the counter `name`."""
        with self._lock:
            self._counts[name] += 1

    def fail(self, error: BaseException) -> None:
        """Remember `error` as the last one."""
        with self._lock:
            self._error = (str(error) or type(error).__name__, time.monotonic())

    def to_fields(self) -> dict[str, Any]:
        """Return counters, the last error's text and its age in s (both None without one)."""
        with self._lock:
            text, since = self._error or (None, None)
            age = None if since is None else round(time.monotonic() - since, 1)
            return {"counters": dict(self._counts), "last_error": text, "last_error_age_s": age}


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
        "relative_size": manifest.relative_size,
        "bytes": manifest.bytes,
        "cache_tier": manifest.cache_tier,
    }


def status_text(fields: Mapping[str, Any]) -> str:
    """Return the daemon's status, the JSON of `/v1/status`, as lines for people."""
    model, counters, monitoring = fields["model"], fields["counters"], fields["monitoring"]
    lines = [f"state       {fields['state']}"]
    if model is None:
        lines.append("model       none yet")
    else:
        kind = (
            "base model" if model["slot"] == "base" else f"cut, variant {model['variant']}, from {model['cache_tier']}"
        )
        lines.append(
            f"model       {model['digest'][:12]} ({kind}; "
            f"{100 * model['relative_size']:.1f} % of the base's parameters)"
        )
    if model is not None and model["usage"]:
        lines.append(f"made for    {_shares(model['usage'])}")
    seen = _shares(monitoring["usage"]) or "none yet"
    lines += [
        f"classified  {counters['classified']} images, {counters['failed']} failed",
        f"monitoring  {monitoring['counted']} of {monitoring['period']} predictions counted: {seen}",
        f"cloud       {fields['cloud']}: {counters['cloud_requests']} requests, {counters['swaps']} swaps",
    ]
    if fields["retry_in_s"] is not None:
        lines.append(f"next try    in {fields['retry_in_s']:.0f} s")
    if fields["last_error"] is not None:
        lines.append(f"last error  {fields['last_error_age_s']:.0f} s ago: {fields['last_error']}")
    return "\n".join(lines)


def _shares(usage: Mapping[str, float]) -> str:
    ordered = sorted(usage.items(), key=lambda item: -item[1])
    return ", ".join(f"{label} {100 * share:.0f} %" for label, share in ordered)
