"""What can go wrong in the cache.

CacheError
├── KeyFieldError       (ValueError)  a field of a key that has no single written form
├── BudgetError         (ValueError)  a size limit that no entry could meet
└── StoreError          (OSError)     a store that cannot be opened, read or written
    └── WrongStoreError               the path or address of a store is of something else, or cannot be one

Every message says what was wrong, where, and what to do about it, on one line.
"""

from __future__ import annotations

__all__ = ["BudgetError", "CacheError", "KeyFieldError", "StoreError", "WrongStoreError"]


class CacheError(Exception):
    """Base of every error that this package raises on purpose."""


class KeyFieldError(CacheError, ValueError):
    """A field given for a key is not a plain value, or a number that is not finite."""


class BudgetError(CacheError, ValueError):
    """A size limit is zero or negative."""


class StoreError(CacheError, OSError):
    """A store cannot be opened, read or written: the file, the disk, the server, or another process holding it."""


class WrongStoreError(StoreError):
    """The path or address is not that of a cache, and waiting will not make it one: raised at opening, to be mended."""
