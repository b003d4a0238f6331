"""Classifies the pictures that are put into a folder.

::

    FOLDER/cat.png         a picture to classify
    FOLDER/done/           those that were classified, where they are kept
    FOLDER/failed/         those that could not be
    FOLDER/results.jsonl   a line of JSON for each of both, or the file that the settings name

Rules
-----
1. A picture is read when it did not change between two looks at the folder. One that cannot be read as a picture may
   still be on its way: it gets a few looks more.
2. First its line is written and synced, then it is moved (or deleted) and the folders synced, then comes the next one.
   So whatever ends the daemon, at most the last line's picture is still there: it is moved without a second line.
3. Hidden files, folders and links are left alone; so is everything while there is no model, or the model fails.
"""

from __future__ import annotations

import errno
import json
import logging
import os
from collections import deque
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from edge_runtime.durable import sync_folder
from edge_runtime.errors import ConfigError, EdgeError, InputError

if TYPE_CHECKING:
    import io
    from collections.abc import Callable
    from pathlib import Path

    from edge_runtime.classifier import Prediction
    from edge_runtime.config import WatchConfig

__all__ = ["WatchedFolder"]

_LOOKS_FOR_BAD_ONES = 5
_LAST_LINE_BYTES = 64 * 1024

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _File:
    """A file as it was at one look."""

    name: str
    bytes: int
    modified_ns: int


class WatchedFolder:
    """Looks into a folder and classifies what is new there. For one thread.

    Parameters
    ----------
    config
        Which folder, and what happens with its pictures.
    classify
        Answers a picture's bytes; raises InputError where it is none.
    ready
        Whether there is a model.
    bytes_max
        Longer files are no pictures.

    Raises
    ------
    ConfigError
        The folder cannot be used.
    """

    def __init__(
        self,
        config: WatchConfig,
        classify: Callable[[bytes], Prediction],
        ready: Callable[[], bool],
        *,
        bytes_max: int,
    ) -> None:
        self._folder = config.folder
        self._results = config.results or config.folder / "results.jsonl"
        # The results, and what a rotation makes of them.
        self._own_names = self._results.name if self._results.parent == self._folder else "."
        self._delete = config.after == "delete"
        self._every_s = config.every_s
        self._classify = classify
        self._ready = ready
        self._bytes_max = bytes_max
        self._looks: dict[_File, int] = {}
        self._due: deque[_File] = deque()
        self._warned = ""
        self._answered: tuple[_File, str] | None = None  # its line is written, it is still to be moved
        try:
            for folder in (self._folder / "done", self._folder / "failed", self._results.parent):
                folder.mkdir(parents=True, exist_ok=True)
            self._answered = self._last_answered()
        except OSError as error:
            raise ConfigError(
                f"{error.filename or self._folder}: cannot be used for watched pictures ({error.strerror}): "
                f"give the folder to the daemon's user"
            ) from error

    def step(self) -> float:
        """Classify one picture, or look for others; return after how many s there is more to do."""
        try:
            if self._answered is not None:
                self._put_away(*self._answered)
            if self._due:
                self._handle(self._due.popleft())
            elif self._ready():
                self._look()
        except OSError as error:
            self._due.clear()  # the next look finds them again
            self._warn(f"{error.filename or self._results}: pictures wait ({error.strerror}): see to space and rights")
        return 0.0 if self._due else self._every_s

    def _look(self) -> None:
        """Note the files that are there; those seen alike before are due, the oldest first."""
        files = []
        with os.scandir(self._folder) as entries:
            for entry in entries:
                if entry.name.startswith((".", self._own_names)):
                    continue
                if entry.is_file(follow_symlinks=False):
                    seen = entry.stat(follow_symlinks=False)
                    files.append(_File(entry.name, seen.st_size, seen.st_mtime_ns))
        self._looks = {file: self._looks.get(file, 0) + 1 for file in files}
        unchanged = [file for file, looks in self._looks.items() if looks > 1]
        self._due.extend(sorted(unchanged, key=lambda file: (file.modified_ns, file.name)))

    def _handle(self, file: _File) -> None:
        path = self._folder / file.name
        try:
            content = self._content(file)
            if self._seen(file.name) != file:
                return  # it has gone, or is being written after all
            answer = self._classify(content).to_fields()
        except InputError as error:
            if self._looks.get(file, 0) < _LOOKS_FOR_BAD_ONES:
                return
            answer = {"error": str(error)}
            _log.warning("%s: set aside in failed: %s", path, error)
        except EdgeError as error:
            self._warn(f"{path}: waits, as the model fails: {error}")
            return
        self._write_line(file, answer)
        self._answered = (file, _place(answer))
        self._put_away(*self._answered)

    def _content(self, file: _File) -> bytes:
        if file.bytes > self._bytes_max:
            raise InputError(f"is longer than {self._bytes_max} bytes: raise api.body_bytes_max for such pictures")
        try:
            return (self._folder / file.name).read_bytes()
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise InputError(f"cannot be read ({error.strerror}): give it to the daemon's user") from error

    def _warn(self, text: str) -> None:
        """Log what goes wrong, once for as long as it is the same."""
        if text != self._warned:
            _log.warning("%s", text)
            self._warned = text

    def _write_line(self, file: _File, answer: dict[str, Any]) -> None:
        """Append one line to the results, wholly or not at all."""
        line = {
            "image": file.name,
            "bytes": file.bytes,
            "modified_ns": file.modified_ns,
            "at": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
            **answer,
        }
        with self._results.open("ab", buffering=0) as results:
            end = results.tell()
            try:
                _write_whole(results, json.dumps(line).encode() + b"\n")
            except OSError:
                results.truncate(end)
                raise

    def _put_away(self, file: _File, place: str) -> None:
        """Move or delete a picture whose line is written, unless another has taken its name meanwhile."""
        if self._seen(file.name) == file:
            path = self._folder / file.name
            if place == "done" and self._delete:
                path.unlink()
            else:
                path.rename(_free_name(self._folder / place / file.name))
                sync_folder(self._folder / place)
            sync_folder(self._folder)
        self._answered = None

    def _seen(self, name: str) -> _File | None:
        try:
            seen = (self._folder / name).lstat()
        except FileNotFoundError:
            return None
        return _File(name, seen.st_size, seen.st_mtime_ns)

    def _last_answered(self) -> tuple[_File, str] | None:
        """Return the picture of the results' last line, which may not have been moved; cut off half a line."""
        try:
            with self._results.open("rb+") as results:
                start = max(0, results.seek(0, os.SEEK_END) - _LAST_LINE_BYTES)
                results.seek(start)
                whole, _, half = results.read(_LAST_LINE_BYTES).rpartition(b"\n")
                if half:
                    results.truncate(start + len(whole) + 1 if whole else start)
        except FileNotFoundError:
            return None
        try:
            line = json.loads(whole.rpartition(b"\n")[2])
            return _File(line["image"], line["bytes"], line["modified_ns"]), _place(line)
        except (ValueError, KeyError, TypeError):
            return None


def _write_whole(file: io.FileIO, content: bytes) -> None:
    """Write `content` to the disk; a disk that takes a part of it only is full."""
    if file.write(content) != len(content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), file.name)
    os.fsync(file.fileno())


def _place(answer: dict[str, Any]) -> str:
    return "failed" if "error" in answer else "done"


def _free_name(path: Path) -> Path:
    """Return `path`, or where that is taken, the first free one of `name-2.png`, `name-3.png`..."""
    free, number = path, 2
    while free.exists():
        free, number = path.with_name(f"{path.stem}-{number}{path.suffix}"), number + 1
    return free
