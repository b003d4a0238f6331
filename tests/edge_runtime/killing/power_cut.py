"""What a disk may hold after a power cut: only what was synced is certain.

From the log of what a process did (`operations.c`) the folder is rebuilt as it could be found: of names that were
made, renamed or removed since their folder was synced, any may be missing; of what was written to a file since it was
synced, all, some or nothing may be there, or zeros in its place. That is less than any file system in use promises.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["Disk", "Operation", "read_log"]


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing that was done: `kind` as in `operations.c`."""

    kind: str
    inode: int
    number: int
    path: str
    other: str
    data: bytes


def read_log(content: bytes) -> Iterator[Operation]:
    """Yield the operations of a log, in their order."""
    place = 0
    while place < len(content):
        end = content.index(b"\n", place)
        kind, *numbers = content[place:end].split()
        inode, number, path, other, data = map(int, numbers)
        parts, place = [], end + 1
        for size in (path, other, data):
            parts.append(content[place : place + size])
            place += size
        yield Operation(kind.decode(), inode, number, parts[0].decode(), parts[1].decode(), parts[2])


@dataclass
class _File:
    """Contents: as written, and as synced."""

    now: bytearray = field(default_factory=bytearray)
    synced: bytes = b""

    def after_power_cut(self, rng: random.Random) -> bytes:
        now, synced = bytes(self.now), self.synced
        if now == synced:
            return now
        longer = now[: rng.randrange(len(now) + 1)]
        return rng.choice([synced, now, b"", bytes(len(now)), longer, synced[: len(longer)]])


class _Folder:
    """Names: as they are, and the changes since the last sync."""

    def __init__(self) -> None:
        self.now: dict[str, _File | _Folder] = {}
        self.synced: dict[str, _File | _Folder] = {}
        self.changes: list[list[tuple[str, _File | _Folder | None]]] = []

    def change(self, *names: tuple[str, _File | _Folder | None]) -> None:
        """Set names, or remove them (None); all of one change or none of it reaches the disk."""
        self.changes.append(list(names))
        _apply(self.now, self.changes[-1])

    def sync(self) -> None:
        self.synced = dict(self.now)
        self.changes.clear()

    def after_power_cut(self, rng: random.Random) -> dict[str, _File | _Folder]:
        names = dict(self.synced)
        reach = rng.randrange(len(self.changes) + 1)
        in_order = rng.random() < 0.5
        for number, change in enumerate(self.changes):
            if number < reach if in_order else rng.random() < 0.5:
                _apply(names, change)
        return names


def _apply(names: dict[str, _File | _Folder], change: list[tuple[str, _File | _Folder | None]]) -> None:
    for name, entry in change:
        if entry is None:
            names.pop(name, None)
        else:
            names[name] = entry


class Disk:
    """A disk that holds a copy of the folder `start` as `folder`, and then is written to."""

    def __init__(self, start: Path, folder: Path) -> None:
        self._path = str(folder)
        self._root = self._held(start)

    def _held(self, folder: Path) -> _Folder:
        held = _Folder()
        for entry in folder.iterdir():
            content = b"" if entry.is_dir() else entry.read_bytes()
            held.now[entry.name] = self._held(entry) if entry.is_dir() else _File(bytearray(content), content)
        held.sync()
        return held

    def _find(self, path: str) -> tuple[_Folder, str]:
        """Return the folder of `path`, and its name there; "" for the root itself."""
        parts = path.removeprefix(self._path).strip("/").split("/")
        folder = self._root
        for part in parts[:-1]:
            below = folder.now[part]
            assert isinstance(below, _Folder)
            folder = below
        return folder, parts[-1]

    def apply(self, operation: Operation) -> None:
        """Do what was done."""
        folder, name = self._find(operation.path)
        entry = folder.now.get(name) if name else self._root
        if operation.kind == "c":
            folder.change((name, _File()))
        elif operation.kind == "d":
            folder.change((name, _Folder()))
        elif operation.kind == "u":
            folder.change((name, None))
        elif operation.kind == "r":
            to, new_name = self._find(operation.other)
            assert entry is not None
            assert to is folder, "a rename from one folder to another is not simulated"
            folder.change((new_name, entry), (name, None))
        elif operation.kind == "s":
            if isinstance(entry, _Folder):
                entry.sync()
            elif entry is not None:
                entry.synced = bytes(entry.now)
        else:
            assert isinstance(entry, _File)
            if operation.kind == "t":
                del entry.now[operation.number :]
                entry.now.extend(bytes(operation.number - len(entry.now)))
            else:
                entry.now.extend(bytes(max(0, operation.number - len(entry.now))))
                entry.now[operation.number : operation.number + len(operation.data)] = operation.data

    def write_to(self, folder: Path, rng: random.Random) -> None:
        """Make `folder` what could be found there if the power was cut now; `rng` decides."""
        if folder.exists():
            shutil.rmtree(folder)
        _write(self._root, folder, rng)


def _write(held: _Folder, folder: Path, rng: random.Random) -> None:
    folder.mkdir()
    for name, entry in held.after_power_cut(rng).items():
        if isinstance(entry, _Folder):
            _write(entry, folder / name, rng)
        else:
            (folder / name).write_bytes(entry.after_power_cut(rng))
