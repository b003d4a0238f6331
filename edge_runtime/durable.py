"""Files that survive a power cut: a reader finds the former content or the new, never a part."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["replaced_folder", "sync_folder", "write_durably"]


def write_durably(path: Path, content: bytes | memoryview, *, partial_name: str | None = None) -> None:
    """Replace the file `path` by `content` in one atomic step, and wait until it has reached the disk.

    Parameters
    ----------
    partial_name
        What the file is called until it is whole, in the same folder; where several processes may write it at once,
        each needs a name of its own.

    Raises
    ------
    OSError
        The disk is full, or the folder cannot be written; the former file is untouched then.
    """
    partial = path.with_name(partial_name or f"{path.name}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


@contextlib.contextmanager
def replaced_folder(folder: Path) -> Iterator[Path]:
    """Yield a new folder that becomes `folder` at the end, in place of what is there, or goes away after an error.

    It lies beside `folder`, whose parents are made; what is there goes when the new one stands.

    Raises
    ------
    OSError
        A folder cannot be made or renamed.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        yield scratch
        scratch.chmod(0o755)  # a temporary folder is for its owner alone
        if not folder.exists():
            scratch.rename(folder)
            return
        former = folder.with_name(f".{folder.name}.old{os.getpid()}")
        folder.rename(former)
        scratch.rename(folder)
        shutil.rmtree(former)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def sync_folder(folder: Path) -> None:
    """Wait until the names in `folder` have reached the disk: a rename is durable only then."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
