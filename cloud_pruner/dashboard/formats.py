"""How the pages write figures, times and names."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from edge_runtime.wire import Manifest

__all__ = ["FILTERS", "TIERS"]

TIERS: Final = {
    "exact": "exact hit",
    "superset": "near hit, more classes",
    "thresholds": "near hit, users alike",
    "search": "search",
}
"""Tier of the cloud's cache -> what people read."""

_CLASSES_SHOWN: Final = 6
_UNITS: Final = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def _by_weight(usage: Mapping[str, float]) -> list[tuple[str, float]]:
    """Return classes and weights, the most frequent first."""
    return sorted(usage.items(), key=lambda item: (-item[1], item[0]))


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _points(share: float) -> str:
    """Write a difference of accuracies."""
    return f"{100 * share + 0.0:.1f} points"


def _size(length: float) -> str:
    """Write a number of bytes; those saved may be fewer than none."""
    for unit, name in _UNITS:
        if abs(length) >= unit * 0.9995:  # what would round up to 1000 of a unit goes to the next
            return f"{length / unit:.3g} {name}"
    return f"{length:.0f} B"


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1.0 else f"{1000 * seconds:.3g} ms"


def _clock(moment: datetime) -> str:
    return moment.astimezone(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")


def _classes(usage: Mapping[str, float]) -> str:
    """Write a user's classes in one line, the most frequent first."""
    names = [name for name, _ in _by_weight(usage)]
    rest = len(names) - _CLASSES_SHOWN
    return ", ".join(names) if rest <= 0 else f"{', '.join(names[:_CLASSES_SHOWN])} and {rest} more"


def _guarantee(manifest: Manifest) -> str:
    if manifest.guarantee == "certified" and manifest.certificate is None:
        return "certified, nothing pruned"
    return f"{manifest.guarantee}, epsilon {manifest.epsilon:g}"


FILTERS: Final[dict[str, Callable[[Any], Any]]] = {
    "percent": _percent,
    "points": _points,
    "size": _size,
    "seconds": _seconds,
    "clock": _clock,
    "iso": datetime.isoformat,
    "by_weight": _by_weight,
    "classes": _classes,
    "guarantee": _guarantee,
    "tier": lambda name: TIERS.get(name, name),
    "short": lambda digest: f"{digest[:12]}…",
    "path": lambda name: quote(name, safe=""),
}
"""What templates write by: filter -> function."""
