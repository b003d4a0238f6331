"""Serials that only rise: across threads, processes, restarts, power cuts, and whatever the clock does.

A serial is the time in microseconds since 1970, or one more than the last where that is more. The last one stands in a
file that all processes of a machine share under a lock. It is not waited for until it is on the disk each time: the
file there may lag behind by `_STEP`, and whoever opens it goes on that far above it. So what a power cut takes away is
never given again, and a signature costs microseconds.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from typing import TYPE_CHECKING, Final

from cloud_pruner.errors import SigningKeyError
from edge_runtime.durable import sync_folder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["Serials", "wall_clock"]

_STEP: Final = 1_000_000
_DIGITS: Final = 19
_MAX: Final = 2**63 - 1 - _STEP


def wall_clock() -> int:
    """Return the time in microseconds since 1970."""
    return time.time_ns() // 1000


class Serials:
    """The serials of everything that one folder of keys signs; for any number of threads and processes.

    Parameters
    ----------
    path
        The file that holds the last one, made where missing.
    clock
        Says the time in microseconds since 1970.

    Raises
    ------
    SigningKeyError
        The file holds no serial.
    OSError
        It cannot be read or written.
    """

    def __init__(self, path: Path, clock: Callable[[], int] = wall_clock) -> None:
        self._path, self._clock = path, clock
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._turn = threading.Lock()
        self._durable = 0
        try:
            with self._turn:
                fcntl.flock(self._file, fcntl.LOCK_EX)
                self._write(self._read() + _STEP)
                fcntl.flock(self._file, fcntl.LOCK_UN)
            sync_folder(path.parent)
        except BaseException:
            os.close(self._file)
            raise

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._file)

    def next(self) -> int:
        """Return a serial above all that were returned for this file before, here or elsewhere.

        Raises
        ------
        SigningKeyError, OSError
            As when it was opened.
        """
        with self._turn:
            fcntl.flock(self._file, fcntl.LOCK_EX)
            try:
                serial = max(self._clock(), self._read() + 1)
                self._write(serial)
            finally:
                fcntl.flock(self._file, fcntl.LOCK_UN)
        return serial

    def _read(self) -> int:
        text = os.pread(self._file, 64, 0)
        if text and not (text.strip().isdigit() and int(text) < _MAX):
            raise SigningKeyError(
                f"{self._path}: holds no serial but {text!r:.40}: delete it, then serials go on from the clock"
            )
        return int(text or 0)

    def _write(self, serial: int) -> None:
        """Put `serial` in the file; wait for the disk where that has none within a step of it."""
        os.pwrite(self._file, f"{serial:0{_DIGITS}d}\n".encode(), 0)
        if serial >= self._durable + _STEP:
            os.fsync(self._file)
            self._durable = serial
