"""Remembers computed results by what they were computed from: in memory, over a SQLite file, over a Redis server.

with PlanCache(LayeredStore(MemoryStore(max_bytes=64_000_000), SqliteStore(path))) as plans:
    key = plan_key(exact_key(model=digest, epsilon=0.03), classes=(2, 7), weights=(0.5, 0.5))
    with plans.flight(key):
        result = plans.lookup(key)
"""

from __future__ import annotations

from cache.entry import Entry, EntryInfo, Verification
from cache.errors import BudgetError, CacheError, KeyFieldError, StoreError, WrongStoreError
from cache.key import KeyField, PlanKey, exact_key, parse_plan_key, plan_key
from cache.layered import Found, LayeredStore
from cache.memory import MemoryStore
from cache.plan_cache import CachedResult, PlanCache
from cache.redis import RedisStore
from cache.sqlite import SqliteStore
from cache.statistics import CacheStatistics, StoreStatistics, TierStatistics
from cache.store import LastingStore, Store

__all__ = [
    "BudgetError",
    "CacheError",
    "CacheStatistics",
    "CachedResult",
    "Entry",
    "EntryInfo",
    "Found",
    "KeyField",
    "KeyFieldError",
    "LastingStore",
    "LayeredStore",
    "MemoryStore",
    "PlanCache",
    "PlanKey",
    "RedisStore",
    "SqliteStore",
    "Store",
    "StoreError",
    "StoreStatistics",
    "TierStatistics",
    "Verification",
    "WrongStoreError",
    "exact_key",
    "parse_plan_key",
    "plan_key",
]
