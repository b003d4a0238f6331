"""What a batch comes to."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

__all__ = ["BatchSummary"]


@dataclass(frozen=True, slots=True)
class BatchSummary:
    """What a batch comes to.

    Attributes
    ----------
    requests
        Rows that are requests; each has a row in the results.
    rejected
        Rows that are none.
    failed
        Requests without a cut: their rows have an `error`.
    keys
        Different requests among them, in what a cut depends on.
    resumed, cached, searched
        Of `keys`, those answered before this run began, found in the cache, and searched now.
    shared
        The part of all answered requests that take the cut of another one.
    certified
        The part of all answered requests whose cut has a certificate.
    mean_relative_size
        Of the cuts of all answered requests; None where there are none.
    bytes_saved
        By how much their files are shorter than as many base models.
    seconds, search_seconds
        What this run took; what its searches took, one after the other.
    engine, workers
        What they ran on.
    digest
        Of the results (`results`).
    """

    requests: int
    rejected: int
    failed: int
    keys: int
    resumed: int
    cached: int
    searched: int
    shared: float
    certified: float
    mean_relative_size: float | None
    bytes_saved: int
    seconds: float
    search_seconds: float
    engine: str
    workers: int
    digest: str

    def to_fields(self) -> dict[str, Any]:
        """Return the summary as plain values."""
        return dataclasses.asdict(self)
