"""What the cache has done since it was opened, as values to show or to export."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

__all__ = ["TIERS", "CacheStatistics", "Outcome", "StoreStatistics", "Tier", "TierStatistics"]

Tier: TypeAlias = Literal["exact", "superset", "thresholds"]
"""A way of finding a result: under exactly its key, as a plan for more classes, or by the thresholds of its layers."""

TIERS: tuple[Tier, ...] = ("exact", "superset", "thresholds")

Outcome: TypeAlias = Literal["hit", "rejected", "miss"]
"""How a tier met a request: it answered it, found something that would not do, or found nothing."""


@dataclass(frozen=True, slots=True)
class StoreStatistics:
    """One store's content now, and its counts since this process opened it."""

    name: str
    """Which store: "memory", "sqlite" or "redis"."""
    entries: int | None
    """Entries held; None if the store could not be asked."""
    bytes: int | None
    """Bytes of keys and values held, without the store's own overhead; None if the store could not be asked."""
    hits: int
    """Keys that were asked for and found."""
    misses: int
    """Keys that were asked for and not found, or found damaged."""
    evictions: int = 0
    """Entries that this process dropped to keep within the limit; a Redis server evicts by itself, uncounted here."""
    corrupt: int = 0
    """Entries dropped because their checksum did not match."""
    faults: int = 0
    """Operations that failed: disk full, file not writable or damaged, another process holding it, server away."""


@dataclass(frozen=True, slots=True)
class TierStatistics:
    """How one way of finding a result has fared since this process opened the cache."""

    hits: int = 0
    """Requests answered."""
    misses: int = 0
    """Requests for which nothing was found."""
    seconds_saved: float = 0.0
    """What the answered requests would have cost without this tier, in s."""
    rejected: int = 0
    """Requests for which something was found that would not do."""


@dataclass(frozen=True, slots=True)
class CacheStatistics:
    """A snapshot of the whole cache."""

    exact: TierStatistics
    """Results found under exactly the key asked for."""
    superset: TierStatistics
    """Results for more classes that did for these."""
    thresholds: TierStatistics
    """Results that began from layers' stored thresholds."""
    stores: tuple[StoreStatistics, ...]
    """The stores underneath, fastest first."""
