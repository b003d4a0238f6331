"""Sees which classes a user meets, and says when the active cut no longer fits them.

Only answers of the base model count: all of them while it serves, the audited ones while a cut does. A cut hardly
tells classes apart that it was not made for, and its answers to the others add nothing to the audits
(docs/decisions/0019-usage-by-em.md). What counts of an answer are the probabilities of all classes, which tell more
than the predicted one (`usage_estimate`); `usage_change` has the rules by which usage has changed.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from edge_runtime.usage_change import WINDOW, changed_usage, first_usage, rounded
from edge_runtime.usage_estimate import estimate, likelihoods, packed
from edge_runtime.usage_journal import Kept

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edge_runtime.config import MonitorConfig
    from edge_runtime.observation import Observation
    from edge_runtime.usage_journal import UsageJournal
    from edge_runtime.wire import Manifest

__all__ = ["UsageMonitor"]

# Variants whose cuts follow the weights of usage, not the classes alone.
_WEIGHED: Final = frozenset({"W", "M"})

# A user's images differ more than those that the temperature was measured on, so that a base should be less sure still.
# On a real network this makes needless requests a third as many, and finds a new class as soon.
_CAUTION: Final = 1.125

_log = logging.getLogger(__name__)


class UsageMonitor:
    """Estimates usage at the end of each period of so many predictions. Safe for use by several threads.

    Parameters
    ----------
    config
        Length of a period, floor, and whether anything may be asked for.
    journal
        Where answers are kept over restarts; None: nowhere.
    """

    def __init__(self, config: MonitorConfig, journal: UsageJournal | None) -> None:
        self._config = config
        self._journal = journal
        self._lock = threading.Lock()
        self._answers: deque[bytes] = deque(maxlen=WINDOW)
        self._counted = 0
        self._fresh = 0
        self._base: Manifest | None = None
        self._active: dict[int, float] | None = None
        self._weighed = False
        self._usage: dict[int, float] = {}
        self._refused: frozenset[int] | None = None

    def serve(self, base: Manifest, cut: Manifest | None) -> None:
        """Take in which models answer from now on. Answers of another base are forgotten, those of this one stay."""
        active = None if cut is None else {base.classes.index(name): share for name, share in cut.usage.items()}
        former = self._base
        is_new = former is None or former.digest != base.digest
        kept = Kept()
        if is_new:
            with self._lock:
                self._base = None  # nothing counts meanwhile
            kept = self._kept(base)
        with self._lock:
            if is_new:
                self._answers = deque(kept.answers, maxlen=WINDOW)
                self._counted, self._fresh = kept.counted, len(kept.answers)
                self._usage, self._refused = {}, None
            self._base, self._active = base, active
            self._weighed = cut is not None and cut.variant in _WEIGHED

    def observe(self, observation: Observation) -> bool:
        """Count an answered image; return whether the period is over and `decide` is due."""
        base = self._base
        counts = base is not None and observation.manifest.digest == base.digest
        answer = packed(observation.probabilities) if counts else None
        with self._lock:
            self._counted += 1
            if answer is not None and self._base is base:
                self._answers.append(answer)
                self._fresh += 1
                if self._journal is not None:
                    self._journal.append(answer, self._counted)
            return self._counted >= self._config.period

    def decide(self) -> dict[str, float] | None:
        """End a complete period: return the usage to ask a cut for, class name -> rough share, or None to ask nothing.

        The same usage is returned again, period after period, until a cut for it serves or it was refused.
        """
        with self._lock:
            base, active, weighed = self._base, self._active, self._weighed
            answers, fresh = list(self._answers), self._fresh
            if base is None or self._counted < self._config.period:
                return None
            self._counted = self._fresh = 0
        if not fresh:
            return None
        seen = likelihoods(answers, _CAUTION * base.temperature)
        if active is None:
            self._usage = usage = first_usage(seen, self._config.floor)
        else:
            found = estimate(seen, active)
            self._usage = {label: found.share(label) for label in sorted(found.labels)}
            changed = changed_usage(seen, found, active, self._config.floor, weighed=weighed)
            if changed is None:
                return None
            usage = changed
        if self._config.upload == "never" or frozenset(usage) == self._refused:
            return None
        asked = {base.classes[label]: share for label, share in rounded(usage).items()}
        _log.info("usage has changed: %s", ", ".join(f"{name} {share:g}" for name, share in asked.items()))
        return asked

    def refused(self, usage: Mapping[str, float]) -> None:
        """Take in that a cut for `usage` was refused: it is not asked for again until other classes are in use."""
        base = self._base
        if base is not None:
            self._refused = frozenset(base.classes.index(name) for name in usage)

    def status(self) -> dict[str, Any]:
        """Return how monitoring goes, as plain values; `usage` is the last estimate, empty before the first."""
        with self._lock:
            base, counted, answers = self._base, self._counted, len(self._answers)
        usage = {} if base is None else {base.classes[label]: share for label, share in self._usage.items()}
        return {"counted": counted, "period": self._config.period, "answers": answers, "usage": usage}

    def close(self) -> None:
        """Keep what a restart goes on with."""
        if self._journal is not None:
            self._journal.close()

    def _kept(self, base: Manifest) -> Kept:
        """Return what the journal has of a base's answers."""
        if self._journal is None:
            return Kept()
        try:
            kept = self._journal.open(base.digest, len(base.classes))
        except OSError as error:
            _log.warning("usage is counted anew: %s", error)
            return Kept()
        if kept.damage:
            _log.warning("%s", kept.damage)
        return kept
