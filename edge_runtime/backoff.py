"""How long to wait between tries that fail."""

from __future__ import annotations

import random

__all__ = ["Backoff"]


class Backoff:
    """Waits between tries: from `first_s`, doubling up to `max_s`, each with a random part of up to half taken off."""

    def __init__(self, first_s: float, max_s: float) -> None:
        self._first_s = first_s
        self._max_s = max_s
        self._wait_s = first_s

    def next_s(self) -> float:
        """Return the time to wait now, in s."""
        wait_s, self._wait_s = self._wait_s, min(2 * self._wait_s, self._max_s)
        return wait_s * random.uniform(0.5, 1.0)  # noqa: S311 - spreads devices in time, protects nothing

    def reset(self) -> None:
        """Start over from `first_s`, after a success."""
        self._wait_s = self._first_s
