"""The answers that usage is estimated from, kept over restarts and power cuts.

One file of a fixed size: a header that names the base model, then a ring of slots, each with one answer, its number
and a checksum. The newest answer goes over the oldest, so that nothing is ever compacted and the file cannot grow. A
thread writes what came up and syncs it, at most once a second. What a power cut or a failing disk tears is a slot or
two, which their checksums give away: only these answers are lost.

::

    header   magic, version, slots, bytes per answer, sha256 of the base's digest; CRC-32
    slot     number of the answer, predictions counted in its period, the answer; CRC-32
"""

from __future__ import annotations

import contextlib
import logging
import os
import struct
import threading
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from edge_runtime.digests import digest_of
from edge_runtime.durable import write_durably
from edge_runtime.usage_change import WINDOW

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Kept", "UsageJournal"]

_HEADER: Final = struct.Struct("<8sIII32s")
_SLOT: Final = struct.Struct("<QQ")
_CRC: Final = struct.Struct("<I")
_MAGIC: Final = b"capnn-us"
_VERSION: Final = 1
_SYNC_S: Final = 1.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Kept:
    """What a journal held.

    Attributes
    ----------
    answers
        Packed answers, oldest first.
    counted
        Predictions of the period, as far as they were counted when the last answer was kept.
    damage
        What was damaged and is left out, in one line; empty where all was whole.
    """

    answers: tuple[bytes, ...] = ()
    counted: int = 0
    damage: str = ""


class UsageJournal:
    """Keeps the last `WINDOW` answers of one base model in the file `path`. Safe for use by several threads.

    A disk that cannot be written is logged once and tried again; usage is then as good as memory keeps it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._answer_bytes = 0
        self._header = b""
        self._next = 0
        self._pending: list[tuple[int, int, bytes]] = []
        self._lock = threading.Lock()  # of what is pending
        self._writing = threading.Lock()  # of the file
        self._due = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._warned = False

    def open(self, base: str, classes: int) -> Kept:
        """Go on with the journal of the base model with digest `base`, or begin one; return what it held.

        Raises
        ------
        OSError
            The file cannot be read; answers are kept all the same.
        """
        self.flush()
        with self._writing:
            self._answer_bytes = classes
            named = bytes.fromhex(digest_of(base.encode()))
            self._header = _checked(_HEADER.pack(_MAGIC, _VERSION, WINDOW, classes, named))
            with self._lock:
                self._next, self._pending = 0, []
            try:
                with self._path.open("rb") as file:
                    content = file.read(len(self._header) + WINDOW * self._slot_bytes)
            except FileNotFoundError:
                return Kept()
            return self._read(content)

    def append(self, answer: bytes, counted: int) -> None:
        """Take in an answer and the predictions counted so far; both are on the disk about a second later."""
        with self._lock:
            self._pending.append((self._next, counted, answer))
            self._next += 1
        if not self._due.is_set():
            self._due.set()
            self._start()

    def flush(self) -> None:
        """Write and sync what is pending now."""
        with self._writing:
            with self._lock:
                # Of more than the ring holds, the first would be written over at once.
                pending, self._pending = self._pending[-WINDOW:], []
            if not pending:
                return
            try:
                self._write(pending)
                self._warned = False
            except OSError as error:
                with self._lock:
                    self._pending = [*pending, *self._pending][-WINDOW:]
                if not self._warned:
                    _log.warning("%s: cannot be written (%s): usage is kept in memory", self._path, error.strerror)
                self._warned = True

    def close(self) -> None:
        """Write what is pending, and end the thread."""
        self._stopping.set()
        self._due.set()
        if self._thread is not None:
            self._thread.join()
        self.flush()

    def _start(self) -> None:
        with self._lock:
            if self._thread is None and not self._stopping.is_set():
                self._thread = threading.Thread(target=self._keep_writing, name="usage journal", daemon=True)
                self._thread.start()

    def _keep_writing(self) -> None:
        while not self._stopping.is_set():
            self._due.wait()
            self._due.clear()
            self.flush()
            self._stopping.wait(_SYNC_S)

    @property
    def _slot_bytes(self) -> int:
        return _SLOT.size + self._answer_bytes + _CRC.size

    def _write(self, pending: list[tuple[int, int, bytes]]) -> None:
        with contextlib.suppress(FileNotFoundError), self._path.open("r+b") as file:
            if file.read(len(self._header)) == self._header:
                for number, counted, answer in pending:
                    file.seek(len(self._header) + number % WINDOW * self._slot_bytes)
                    file.write(_checked(_SLOT.pack(number, counted) + answer))
                file.flush()
                os.fsync(file.fileno())
                return
        slots = bytearray(WINDOW * self._slot_bytes)
        for number, counted, answer in pending:
            start = number % WINDOW * self._slot_bytes
            slots[start : start + self._slot_bytes] = _checked(_SLOT.pack(number, counted) + answer)
        write_durably(self._path, self._header + bytes(slots))

    def _read(self, content: bytes) -> Kept:
        size, start = self._slot_bytes, len(self._header)
        if content[:start] != self._header:
            is_other = _is_whole(content[:start]) and content[: len(_MAGIC)] == _MAGIC
            return Kept(damage="" if is_other else f"{self._path}: is damaged: usage is counted anew")
        found, torn = [], WINDOW - (len(content) - start) // size
        for number in range((len(content) - start) // size):
            slot = content[start + number * size : start + (number + 1) * size]
            if not any(slot):
                continue
            answer, counted = _SLOT.unpack_from(slot)
            if _is_whole(slot) and answer % WINDOW == number:
                found.append((answer, counted, slot[_SLOT.size : -_CRC.size]))
            else:
                torn += 1
        found.sort()
        self._next = found[-1][0] + 1 if found else 0
        damage = f"{self._path}: {torn} of {WINDOW} answers are damaged and left out" if torn else ""
        return Kept(tuple(answer for _, _, answer in found), found[-1][1] if found else 0, damage)


def _checked(content: bytes) -> bytes:
    return content + _CRC.pack(zlib.crc32(content))


def _is_whole(content: bytes) -> bool:
    return len(content) > _CRC.size and content[-_CRC.size :] == _CRC.pack(zlib.crc32(content[: -_CRC.size]))
