"""What takes seconds to make is made once a run, by whichever of its processes asks first."""

from __future__ import annotations

import atexit
import fcntl
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_shared: list[Path] = []


def share_in(folder: Path) -> None:
    """Let this process keep in `folder`, which others of the same run may use as well, what `made_once` makes."""
    _shared[:] = [folder]


def made_once(name: str, make: Callable[[Path], object]) -> Path:
    """Return the folder `name`, filled by `make` unless another process has done so; wait while one does."""
    if not _shared:
        _shared.append(Path(tempfile.mkdtemp(prefix="capnn-tests-")))
        atexit.register(shutil.rmtree, _shared[0], ignore_errors=True)
    folder = _shared[0] / name
    with folder.with_name(f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            unfinished = folder.with_name(f"{name}.unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            make(unfinished)
            unfinished.rename(folder)
    return folder
