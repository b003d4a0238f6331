"""Remembers computed results by the digest of what they were computed from: in memory, over a SQLite file.

with PlanCache(LayeredStore(MemoryStore(max_bytes=64_000_000), SqliteStore(path))) as plans:
    key = exact_key(model=digest, epsilon=0.03, classes=(2, 7))
    result = plans.lookup(key)
"""

from __future__ import annotations

from cache.errors import BudgetError, CacheError, KeyFieldError, StoreError
from cache.key import KeyField, exact_key
from cache.layered import Found, LayeredStore
from cache.memory import MemoryStore
from cache.plan_cache import CachedResult, PlanCache
from cache.sqlite import SqliteStore
from cache.statistics import CacheStatistics, StoreStatistics, TierStatistics
from cache.store import Store

__all__ = [
    "BudgetError",
    "CacheError",
    "CacheStatistics",
    "CachedResult",
    "Found",
    "KeyField",
    "KeyFieldError",
    "LayeredStore",
    "MemoryStore",
    "PlanCache",
    "SqliteStore",
    "Store",
    "StoreError",
    "StoreStatistics",
    "TierStatistics",
    "exact_key",
]
