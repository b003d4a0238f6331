"""Which classes come up, and whether that has changed: counted on the device, in periods of so many predictions.

Only predictions of the base model are counted: a cut knows best the classes it was made for, and its counts would
confirm themselves (docs/decisions/0005-usage-by-audit.md). The rules here are pure; `load_counts` and `save_counts`
carry a period over a restart.
"""

from __future__ import annotations

import threading
from collections import Counter
from typing import TYPE_CHECKING

from edge_runtime.durable import write_durably
from edge_runtime.errors import MessageError
from edge_runtime.messages import field, pack, unpack

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["UsageMonitor", "load_counts", "save_counts", "total_variation"]


def total_variation(p: Mapping[str, float], q: Mapping[str, float]) -> float:
    """Return the total variation distance of two distributions over classes, from 0 (equal) to 1 (disjoint)."""
    return sum(abs(p.get(label, 0.0) - q.get(label, 0.0)) for label in p.keys() | q.keys()) / 2


class UsageMonitor:
    """Counts the classes of one monitoring period after another. Safe for use by several threads.

    Parameters
    ----------
    period
        Predictions that make up a period.
    floor
        Classes with a smaller share of a period are no part of its usage.
    change
        Usage has changed when its total variation distance from the active cut's is larger.
    """

    def __init__(self, *, period: int = 200, floor: float = 0.05, change: float = 0.2) -> None:
        self.period = period
        self.floor = floor
        self.change = change
        self._counts: Counter[str] = Counter()
        self._counted = 0
        self._lock = threading.Lock()

    def count(self, label: str) -> int:
        """Count one prediction of class `label`; return the number counted in this period so far.

        Counting goes on above `period`, until `next_period` is called.
        """
        with self._lock:
            self._counts[label] += 1
            self._counted += 1
            return self._counted

    @property
    def counted(self) -> int:
        """Predictions counted in this period so far."""
        return self._counted

    @property
    def period_complete(self) -> bool:
        """Whether the period has its number of predictions."""
        return self._counted >= self.period

    def counts(self) -> dict[str, int]:
        """Return the predictions of each class in this period so far."""
        with self._lock:
            return dict(self._counts)

    def usage(self) -> dict[str, float]:
        """Return the share of each class in this period, without the classes below `floor`.

        The shares sum to 1; there are none without counts. Where no class reaches the floor, all are kept: no choice
        among them could be justified.
        """
        return self._usage(self.counts())

    def _usage(self, counts: Mapping[str, int]) -> dict[str, float]:
        total = sum(counts.values())
        kept = {label: n for label, n in counts.items() if n >= self.floor * total} or counts
        kept_total = sum(kept.values())
        return {label: n / kept_total for label, n in sorted(kept.items())}

    def changed(self, usage: Mapping[str, float], active: Mapping[str, float] | None) -> bool:
        """Return whether `usage` differs from `active`, which the serving cut was made for (None, no cut: always)."""
        return active is None or total_variation(usage, active) > self.change

    def next_period(self) -> dict[str, float]:
        """End the period, start the next from zero, and return the usage of the one that ended."""
        with self._lock:
            counts, self._counts, self._counted = dict(self._counts), Counter(), 0
        return self._usage(counts)

    def restore(self, counts: Mapping[str, int]) -> None:
        """Start this period over with `counts`, kept from before a restart."""
        with self._lock:
            self._counts = Counter(counts)
            self._counted = sum(counts.values())


def save_counts(path: Path, counts: Mapping[str, int], base: str) -> None:
    """Write the counts of predictions of the base model with digest `base`, atomically and durably.

    Raises
    ------
    OSError
        The file cannot be written; the former one stays.
    """
    write_durably(path, pack({"base": base, "counts": dict(counts)}))


def load_counts(path: Path, base: str) -> dict[str, int]:
    """Read what `save_counts` wrote; empty without such a file, or where it counts another base model's predictions.

    Raises
    ------
    MessageError
        The file is damaged.
    """
    try:
        fields = unpack(path.read_bytes())
        if field(fields, "base", str, "counts") != base:
            return {}
        counts = field(fields, "counts", dict, "counts")
        counts = {str(label): field(counts, label, int, "counts") for label in counts}
    except FileNotFoundError:
        return {}
    except (OSError, MessageError) as error:
        raise MessageError(f"{path}: cannot be used ({error}); counting starts from zero") from error
    return {label: n for label, n in counts.items() if n > 0}
