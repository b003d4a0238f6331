"""The size of a device's cuts over time, as points of a drawing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from cloud_pruner.state import CutRecord

__all__ = ["SizePlot", "size_plot"]


@dataclass(frozen=True, slots=True)
class SizePlot:
    """A line of steps in a box 100 wide and 100 high, whose lower edge is a size of 0 and its upper the base's.

    Attributes
    ----------
    path
        The line, as SVG writes paths.
    dots
        x and y of each cut, oldest first.
    first, last
        When the oldest and the newest cut were handed out.
    """

    path: str
    dots: tuple[tuple[float, float], ...]
    first: datetime
    last: datetime


def size_plot(cuts: Sequence[CutRecord]) -> SizePlot | None:
    """Draw `cuts`, newest first; None where there are fewer than two."""
    if len(cuts) < 2:
        return None
    oldest_first = cuts[::-1]
    first, last = oldest_first[0].at, oldest_first[-1].at
    span = (last - first).total_seconds() or 1.0
    dots = tuple(
        (
            round(100 * (cut.at - first).total_seconds() / span, 2),
            round(100 * (1 - min(max(cut.manifest.relative_size, 0.0), 1.0)), 2),
        )
        for cut in oldest_first
    )
    path = f"M{dots[0][0]:g} {dots[0][1]:g}" + "".join(f"H{x:g}V{y:g}" for x, y in dots[1:])
    return SizePlot(path, dots, first, last)
