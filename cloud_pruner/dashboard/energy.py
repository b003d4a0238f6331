"""Modelled energy of cuts, by the hardware model's preset for CAP'NN's accelerator."""

from __future__ import annotations

import math
import threading
import time
from typing import TYPE_CHECKING, Final

from cachetools import LRUCache

from cloud_pruner.errors import StateError
from edge_runtime.errors import ModelFileError
from hwmodel import estimate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cloud_pruner.personalized import Personalized
    from edge_runtime.wire import Manifest

__all__ = ["EnergyRatios"]

_REMEMBERED: Final = 1 << 14


class EnergyRatios:
    """Energy of one inference of a cut, relative to its base's; for any number of threads, of which one computes.

    Parameters
    ----------
    file
        Returns the file of a digest, or None where it is kept no longer.
    """

    def __init__(self, file: Callable[[str], bytes | memoryview | None]) -> None:
        self._file = file
        self._energies: LRUCache[str, float | None] = LRUCache(_REMEMBERED)
        self._turn = threading.Lock()

    def of(self, manifests: Iterable[Manifest], seconds: float) -> list[float | None]:
        """Return a ratio for each; None where a file is not kept, or is not worked out when the time is up (s)."""
        end = time.monotonic() + seconds
        return [
            _ratio(self._energy(manifest.base, self._file, end), self._energy(manifest.digest, self._file, end))
            for manifest in manifests
        ]

    def of_answer(self, answer: Personalized) -> float | None:
        """Return the ratio of a cut that need not be among the kept files."""
        manifest = answer.manifest
        return _ratio(
            self._energy(manifest.base, self._file), self._energy(manifest.digest, lambda _digest: answer.model)
        )

    def _energy(
        self, digest: str, file: Callable[[str], bytes | memoryview | None], end: float = math.inf
    ) -> float | None:
        """Return the energy of one inference (pJ)."""
        with self._turn:
            if digest not in self._energies and time.monotonic() < end:
                try:
                    content = file(digest)
                except StateError:  # asked for again when the page is loaded next
                    return None
                self._energies[digest] = None if content is None else _estimated(content)
            return self._energies.get(digest)


def _estimated(content: bytes | memoryview) -> float | None:
    try:
        return estimate(bytes(content)).energy.total
    except ModelFileError:  # an operator that the hardware model cannot read
        return None


def _ratio(base: float | None, cut: float | None) -> float | None:
    return cut / base if base and cut is not None else None
