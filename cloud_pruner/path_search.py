"""Searches along one path through all layers (`allocation`), from its far end: the most daring cut within bounds.

Variant L. Cuts are tried at steps of half as much cost again, the most daring first, until one keeps every class
within bounds (a part of epsilon: `search`) on the *select* images; then between it and the one before. Losses do not
simply grow along the path, since folds differ from cut to cut: so from the far end, and not by halving from the start.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from edge_runtime.errors import PlanError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cloud_pruner.allocation import CutPath
    from cloud_pruner.progress import Progress

__all__ = ["search_path", "stations"]

_RATIO: Final = 1.5
_REFINEMENTS: Final = 4


def search_path(path: CutPath, passes: Callable[[int], bool], progress: Progress) -> tuple[int, int]:
    """Return the number of the cut that is taken, 0 for none, and how many were tried.

    `passes` says whether a cut keeps every class within bounds.
    """
    grid = _grid(path)
    tried = 0

    def try_cut(number: int) -> bool:
        nonlocal tried
        progress(f"size {path.costs[number]:.2f}", tried, len(grid) + _REFINEMENTS)
        tried += 1
        try:
            return passes(number)
        except PlanError:  # some layer would be left without channels
            return False

    failed = len(path.costs)
    taken = 0
    for number in grid:
        if try_cut(number):
            taken = number
            break
        failed = number
    for _ in range(_REFINEMENTS):
        middle = (taken + failed) // 2
        if middle in (0, taken, failed):
            break
        if try_cut(middle):
            taken = middle
        else:
            failed = middle
    return taken, tried


def stations(path: CutPath, last: int, powers: Sequence[float]) -> list[int]:
    """Return cuts on the way to cut `last`, and `last`: for each power the first that costs at most its cost to that.

    Powers lie between 0, nothing pruned, and 1; equal steps of them are equal ratios of costs.
    """
    costs = path.costs[: last + 1]
    wanted = np.maximum(costs[last] ** np.array(powers), costs[last])
    return sorted({*np.searchsorted(-costs, -wanted).tolist(), last} - {0})


def _grid(path: CutPath) -> list[int]:
    """Return cuts, the most daring first, each about half as dear again as the one before."""
    least = float(path.costs[-1])
    shares = least * _RATIO ** np.arange(max(int(np.ceil(np.log(1.0 / least) / np.log(_RATIO))), 1))
    # Costs fall along the path.
    numbers = [int(np.argmin(np.abs(path.costs - share))) for share in shares]
    return [number for number in dict.fromkeys(numbers) if number > 0]
