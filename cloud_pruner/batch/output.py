"""The folder that a batch writes: what it holds, who may write it, and what a batch that goes on must agree with.

=================  ====================================================================================================
`results.parquet`  one row for each request (`results`)
`rejected.jsonl`   the rows that are no requests, and why
`summary.json`     what it comes to (`summary`)
`plans.sqlite`     the answers, by key: a plan cache, and what a batch that was interrupted goes on from
`batch.json`       of which profile, requests and defaults all this is
`batch.lock`       held by the process that is at work
=================  ====================================================================================================

An answer is on the disk before it counts as done, with a checksum; the other files appear whole or not at all.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from cloud_pruner.errors import PrunerError
from edge_runtime.durable import write_durably

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

__all__ = ["OutputFolder"]

_VERSION: Final = 1
_LOCK: Final = "batch.lock"
_PURPOSE: Final = "batch.json"
_MADE: Final = (_PURPOSE, "results.parquet", "rejected.jsonl", "summary.json", "plans.sqlite")
_OTHERS: Final = {
    "version": "by another version of capnn",
    "profile": "for another profile",
    "requests": "for other requests",
    "defaults": "with other defaults",
}
_BESIDE: Final = ("", ".partial", "-wal", "-shm", "-journal", ".damaged")


@dataclass(frozen=True, slots=True)
class OutputFolder:
    """A folder that is this process's own for as long as it is open."""

    path: Path

    @classmethod
    @contextlib.contextmanager
    def opened(cls, path: Path, *, restart: bool = False) -> Iterator[OutputFolder]:
        """Open a folder, made where there is none; `restart`: without what an earlier batch has left in it.

        Raises
        ------
        PrunerError
            Another process is at work on it, or it holds something else.
        OSError
            It cannot be made or written.
        """
        path.mkdir(parents=True, exist_ok=True)
        ours = {name + beside for name in _MADE for beside in _BESIDE} | {_LOCK}
        strangers = sorted(one.name for one in path.iterdir() if one.name not in ours)
        if strangers and not (path / _PURPOSE).exists():
            raise PrunerError(f"{path}: holds '{strangers[0]}', and is no batch's: give another folder with -o")
        with (path / _LOCK).open("wb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise PrunerError(
                    f"{path}: another 'capnn batch' is at work on it: wait for it, or give another folder with -o"
                ) from None
            if restart:
                for name in ours - {_LOCK}:
                    (path / name).unlink(missing_ok=True)
            try:
                yield cls(path)
            except OSError as error:
                if error.errno and error.filename is None:  # a full disk does not say which
                    error.filename = str(path)
                raise

    @property
    def results(self) -> Path:
        """The table of results."""
        return self.path / "results.parquet"

    @property
    def rejected(self) -> Path:
        """The rows that are no requests."""
        return self.path / "rejected.jsonl"

    @contextlib.contextmanager
    def rejecting(self) -> Iterator[Callable[[Mapping[str, Any]], None]]:
        """Yield what is to be called with each row that is rejected; without any there is no such file."""
        partial = self.rejected.with_name(f"{self.rejected.name}.partial")
        with partial.open("w", encoding="utf-8") as file:
            yield lambda row: print(json.dumps(row, ensure_ascii=False), file=file)
        if partial.stat().st_size:
            partial.replace(self.rejected)
        else:
            partial.unlink()
            self.rejected.unlink(missing_ok=True)

    @property
    def plans(self) -> Path:
        """The answers so far."""
        return self.path / "plans.sqlite"

    def check(self, purpose: Mapping[str, Any]) -> None:
        """Raise PrunerError where the folder was begun for something else."""
        path = self.path / _PURPOSE
        try:
            begun = json.loads(path.read_bytes())
        except FileNotFoundError:
            return
        except ValueError as error:
            raise PrunerError(f"{path}: damaged ({error}): begin anew with --restart") from error
        for name, value in {"version": _VERSION, **purpose}.items():
            if begun.get(name) != value:
                raise PrunerError(
                    f"{self.path}: was begun {_OTHERS[name]}: give another folder with -o, or --restart to begin anew"
                )

    def begin(self, purpose: Mapping[str, Any]) -> None:
        """Note what the folder is for."""
        _write_json(self.path / _PURPOSE, {"version": _VERSION, **purpose})

    def conclude(self, summary: Mapping[str, Any]) -> None:
        """Write the summary."""
        _write_json(self.path / "summary.json", summary)


def _write_json(path: Path, fields: Mapping[str, Any]) -> None:
    write_durably(path, (json.dumps(fields, indent=2, ensure_ascii=False) + "\n").encode())
