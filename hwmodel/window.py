"""How the windows of a convolution overlap in its image: how many different words of the image some of them read.

Along one side, output `i` reads positions `i * stride + tap * dilation - padding` for each tap of the kernel; those
outside the image are padding, and are no words that anything has to fetch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

__all__ = ["Window"]


@dataclass(frozen=True)
class Window:
    """The windows of a convolution in one image of one group; all tuples have one entry a side (height, width).

    Attributes
    ----------
    image, output
        Sides of the input image, without padding, and of the output.
    kernel, stride, dilation
        Taps, and the distances between windows and between taps, in positions of the image.
    channels
        Channels that one filter reads. Elements of a filter are ordered by kernel row, column, channel.
    padding
        Positions in front of the image along each side.
    """

    image: tuple[int, ...]
    output: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    channels: int
    padding: tuple[int, ...]

    @classmethod
    def padded(
        cls,
        image: tuple[int, ...],
        output: tuple[int, ...],
        kernel: tuple[int, ...],
        stride: tuple[int, ...],
        dilation: tuple[int, ...],
        channels: int,
    ) -> Window:
        """Return the windows with TFLite's padding: what the outputs need beyond the image, half of it in front."""
        missing = (
            (out - 1) * step + (taps - 1) * spread + 1 - side
            for side, out, taps, step, spread in zip(image, output, kernel, stride, dilation, strict=True)
        )
        return cls(image, output, kernel, stride, dilation, channels, tuple(max(0, total) // 2 for total in missing))

    @property
    def pixels(self) -> int:
        """Windows in one image."""
        return math.prod(self.output)

    @cached_property
    def words(self) -> int:
        """Different words of the image that all windows together read."""
        return self.channels * math.prod(self._touched(axis) for axis in range(len(self.image)))

    @property
    def live_words(self) -> int:
        """What must stay at hand, while the windows move on, so that no word of the image is fetched twice.

        All of the image between the first and the last row of a window.
        """
        rows = (self.kernel[0] - 1) * self.dilation[0]
        return min(rows, self.image[0]) * math.prod(self.image[1:]) * self.channels

    def tile_words(self, pixels: int) -> int:
        """Return how many different words of the image `pixels` windows in a row read, at most (rows are whole)."""
        if pixels >= self.pixels:
            return -(-pixels // self.pixels) * self.words
        words, inner = self.channels, self.pixels
        for axis, side in enumerate(self.output):
            inner //= side
            steps = max(1, -(-pixels // inner))
            words *= self._extent(axis, min(steps, side))
            pixels = min(pixels, inner)
        return words

    def fold_words(self, rows: int, *, rows_apart: bool = False) -> list[int]:
        """Return how many words each fold of `rows` elements of the filters reads by itself, over all windows.

        With `rows_apart` a fold also fetches for each kernel row by itself: nothing stays from one row to the next.
        """
        known: dict[tuple[int, int], int] = {}
        taps, reduction = math.prod(self.kernel), math.prod(self.kernel) * self.channels
        line = self.kernel[-1] if rows_apart else taps
        folds = []
        for start in range(0, reduction, rows):
            words = 0
            for first, last, channels in self._segments(start, min(start + rows, reduction)):
                while first <= last:
                    end = min(last, first - first % line + line - 1)
                    if (first, end) not in known:
                        known[first, end] = self._union(first, end)
                    words += channels * known[first, end]
                    first = end + 1  # noqa: PLW2901 - walks along the kernel's rows
            folds.append(words)
        return folds

    def _segments(self, start: int, end: int) -> list[tuple[int, int, int]]:
        """Split elements `start` to `end` of a filter by channel: (first tap, last tap, channels that have them)."""
        first, from_channel = divmod(start, self.channels)
        last, to_channel = divmod(end - 1, self.channels)
        # Channels from `from_channel` on have the first tap, those up to `to_channel` the last one.
        parts = (
            (first, last, max(0, to_channel + 1 - from_channel)),
            (first, last - 1, self.channels - max(from_channel, to_channel + 1)),
            (first + 1, last, min(from_channel, to_channel + 1)),
            (first + 1, last - 1, max(0, from_channel - to_channel - 1)),
        )
        return [(one, two, channels) for one, two, channels in parts if one <= two and channels]

    def _union(self, first: int, last: int) -> int:
        """Return how many positions of the image the taps number `first` to `last` read, over all windows."""
        read = np.zeros(self.image, dtype=bool)
        for tap in range(first, last + 1):
            read[np.ix_(*self._positions(np.unravel_index(tap, self.kernel)))] = True
        return int(np.count_nonzero(read))

    def _positions(self, tap: tuple[np.intp, ...]) -> list[np.ndarray[tuple[int], np.dtype[np.intp]]]:
        sides = []
        for axis, index in enumerate(tap):
            at = np.arange(self.output[axis]) * self.stride[axis] + index * self.dilation[axis] - self.padding[axis]
            sides.append(at[(at >= 0) & (at < self.image[axis])])
        return sides

    def _extent(self, axis: int, steps: int) -> int:
        """Return how many positions along a side `steps` neighbouring windows read, at most."""
        stride, taps, dilation = self.stride[axis], self.kernel[axis], self.dilation[axis]
        spread = (taps - 1) * dilation + 1
        together = (steps - 1) * stride + spread if stride < spread else steps * spread
        return min(self.image[axis], together, steps * taps)

    def _touched(self, axis: int) -> int:
        """Return how many positions along a side all windows together read."""
        side, out, taps = self.image[axis], self.output[axis], self.kernel[axis]
        stride, dilation, before = self.stride[axis], self.dilation[axis], self.padding[axis]
        if dilation == 1 and stride <= taps:
            return min(side, (out - 1) * stride + taps - before)
        at = (i * stride + tap * dilation - before for i in range(out) for tap in range(taps))
        return len({position for position in at if 0 <= position < side})
