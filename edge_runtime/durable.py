"""Files that survive a power cut: a reader finds the former content or the new, never a part."""

from __future__ import annotations

import contextlib
import os
import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["replace_folder", "sync_folder", "write_durably"]


def write_durably(path: Path, content: bytes | memoryview) -> None:
    """Replace the file `path` by `content` in one atomic step, and wait until it has reached the disk.

    Raises
    ------
    OSError
        The disk is full, or the folder cannot be written; the former file is untouched then.
    """
    partial = path.with_name(f"{path.name}.partial")
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


def replace_folder(folder: Path, scratch: Path) -> None:
    """Move the finished folder `scratch` to `folder`, on the same disk; what is there goes when the new one stands.

    Raises
    ------
    OSError
        A folder cannot be renamed.
    """
    scratch.chmod(0o755)  # a temporary folder is for its owner alone
    if not folder.exists():
        scratch.rename(folder)
        return
    former = folder.with_name(f".{folder.name}.old{os.getpid()}")
    folder.rename(former)
    scratch.rename(folder)
    shutil.rmtree(former)


def sync_folder(folder: Path) -> None:
    """Wait until the names in `folder` have reached the disk: a rename is durable only then."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
