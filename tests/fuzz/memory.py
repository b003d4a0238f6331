"""The memory that something may take at most."""

from __future__ import annotations

import tracemalloc
from contextlib import contextmanager

MIB = 1 << 20


@contextmanager
def memory_below(limit):
    """Check that what is done within takes less than `limit` bytes of memory at any time."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < limit
