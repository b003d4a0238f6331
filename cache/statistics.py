"""What the cache has done since it was opened, as values to show or to export."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CacheStatistics", "StoreStatistics", "TierStatistics"]


@dataclass(frozen=True, slots=True)
class StoreStatistics:
    """One store's content now, and its counts since this process opened it."""

    name: str
    """Which store: "memory" or "sqlite"."""
    entries: int | None
    """Entries held; None if the store could not be asked."""
    bytes: int | None
    """Bytes of keys and values held, without the store's own overhead; None if the store could not be asked."""
    hits: int
    """Keys that were asked for and found."""
    misses: int
    """Keys that were asked for and not found, or found damaged."""
    evictions: int = 0
    """Entries dropped, least recently used first, to keep within the limit."""
    corrupt: int = 0
    """Entries dropped because their checksum did not match."""
    faults: int = 0
    """Operations that failed: disk full, file not writable or damaged, another process holding it."""


@dataclass(frozen=True, slots=True)
class TierStatistics:
    """How one way of finding a result has fared since this process opened the cache."""

    hits: int
    """Requests answered."""
    misses: int
    """Requests not answered."""
    seconds_saved: float
    """What the answered requests had cost when they were first computed, in s."""


@dataclass(frozen=True, slots=True)
class CacheStatistics:
    """A snapshot of the whole cache."""

    exact: TierStatistics
    """Results found under exactly the key asked for."""
    stores: tuple[StoreStatistics, ...]
    """The stores underneath, fastest first."""
