"""Copies what a cut keeps of a constant straight into the new file.

Nearly all of a cut's bytes are kept rows and kept columns of weights `[O, ..., I]`. A small compiled function copies
them at about the speed of memory; where it was not built (no compiler when the package was installed) numpy does the
same, some times slower, byte for byte (docs/decisions/0008-compiled-gather.md).
"""

from __future__ import annotations

import contextlib
import math
import mmap
from typing import TYPE_CHECKING, Any

import numpy as np

try:
    from edge_runtime.flatmodel import _gather
except ImportError:
    _gather = None  # type: ignore[assignment] # the numpy form takes over

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = ["fresh_memory", "is_compiled", "take_kept"]

# Below this many elements a row, numpy's overhead for each row costs more than a temporary copy of all rows.
_LONG_ROW = 4096
_HUGE_PAGE = 2 << 20
_HUGE_PAGES_FROM = 8 * _HUGE_PAGE


def is_compiled() -> bool:
    """Return whether the compiled function is in use."""
    return _gather is not None


def fresh_memory(size: int) -> NDArray[np.uint8]:
    """Return `(size,) uint8` to be written to; what is in it is not defined.

    For a large file, getting its pages from the system costs as much as filling them, and a third less if they are
    huge ones; the system gives these only where they begin at a multiple of their size.
    """
    if size < _HUGE_PAGES_FROM or not hasattr(mmap, "MADV_HUGEPAGE"):
        return np.empty(size, np.uint8)
    pages = mmap.mmap(-1, size + _HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):  # a system without huge pages
        pages.madvise(mmap.MADV_HUGEPAGE)
    memory = np.frombuffer(pages, np.uint8)
    skipped = -memory.__array_interface__["data"][0] % _HUGE_PAGE
    return memory[skipped : skipped + size]


def take_kept(values: NDArray[Any], kept: Mapping[int, NDArray[np.int64]], out: NDArray[Any]) -> None:
    """Fill `out` with `values` at the kept indices of each axis.

    Parameters
    ----------
    values
        Any shape, contiguous.
    kept
        Axis -> `(n,) int64`, ascending.
    out
        `(size of the result,)`, of the dtype of `values`: filled in C order.
    """
    last = values.ndim - 1
    for axis in sorted(kept):
        if axis not in (0, last):
            values = values.take(kept[axis], axis=axis)
    rows = kept.get(0) if last else None
    columns = kept.get(last)
    count, width = (values.shape[0] if last else 1), values.shape[last]
    middle = math.prod(values.shape[1:last])
    rows = np.arange(count) if rows is None else rows
    columns = np.arange(width) if columns is None else columns
    source, target = values.reshape(count, middle, width), out.reshape(len(rows), middle, len(columns))
    gather = _gather.gather if is_compiled() else gather_with_numpy
    gather(target, source, rows, columns)


def gather_with_numpy(
    out: NDArray[Any], values: NDArray[Any], rows: NDArray[np.int64], columns: NDArray[np.int64]
) -> None:
    """Set `out[i, m, j] = values[rows[i], m, columns[j]]`."""
    if len(columns) == values.shape[2]:
        np.take(values, rows, axis=0, out=out, mode="clip")
    elif values[0].size < _LONG_ROW:
        np.take(values[rows], columns, axis=2, out=out, mode="clip")
    else:
        for target, row in zip(out, rows.tolist(), strict=True):
            np.take(values[row], columns, axis=1, out=target, mode="clip")
