"""Files by their digest, in a folder, in memory, or wherever else fsspec reaches.

A file never changes, and is checked against its digest whenever it is read. A marker that is written when the store is
opened tells a file that is not there from a store that is not there.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import fsspec
from fsspec.implementations.local import LocalFileSystem

from cloud_pruner.errors import MissingExtraError, StateError
from edge_runtime.digests import digest_of
from edge_runtime.durable import write_durably

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fsspec import AbstractFileSystem

__all__ = ["FileStore"]

_MARKER: Final = "capnn-files"
_MARKED: Final = b"files of a capnn service, by their sha256\n"
# Others wait for nothing like as long by themselves.
_PATIENCE: Final[dict[str, Any]] = {
    "s3": {"config_kwargs": {"connect_timeout": 3, "read_timeout": 5, "retries": {"max_attempts": 2}}},
}

_log = logging.getLogger(__name__)


class FileStore:
    """Files by their sha256; for any number of threads and processes.

    Parameters
    ----------
    url
        A folder, which is made where missing, `memory://NAME`, `s3://BUCKET/PREFIX`, or what else fsspec knows.

    Raises
    ------
    StateError
        It cannot be read or written now.
    MissingExtraError
        The package that this kind of store needs is not installed.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        protocol = fsspec.utils.get_protocol(url)
        try:
            system, root = fsspec.core.url_to_fs(url, **_PATIENCE.get(protocol, {}))
        except ImportError as error:
            raise MissingExtraError(f"{url}: {error}: install it (for S3: pip install 'capnn[s3]')") from error
        except ValueError as error:
            raise StateError(f"{url}: {error}: give a folder, or a URL as s3://bucket/prefix") from error
        self._system: AbstractFileSystem = system
        self._root: str = root.rstrip("/")
        with self._explained():
            if self._is_local:
                Path(self._root).mkdir(mode=0o700, parents=True, exist_ok=True)
            self._write(_MARKER, _MARKED)

    def put(self, digest: str, content: bytes | memoryview) -> None:
        """Keep a file; when this returns, it is there to stay. What is there already is replaced by the same.

        Raises
        ------
        StateError
            It cannot be written now.
        """
        with self._explained():
            self._check_marker()
            self._write(digest, content)

    def get(self, digest: str) -> bytes | None:
        """Return a file; None where it is not there, or is damaged: then it is removed, so that it can be put again.

        Raises
        ------
        StateError
            It cannot be read now.
        """
        with self._explained():
            try:
                content: bytes = self._system.cat_file(self._path(digest))
            except FileNotFoundError:
                self._check_marker()
                return None
            if digest_of(content) == digest:
                return content
            _log.error("%s: file %s is damaged, and removed", self.url, digest)
            with contextlib.suppress(FileNotFoundError):
                self._system.rm_file(self._path(digest))
            return None

    def has(self, digest: str) -> bool:
        """Return whether a file is there; raises StateError as `get`."""
        with self._explained():
            try:
                self._system.info(self._path(digest))
            except FileNotFoundError:
                self._check_marker()
                return False
            return True

    def ping(self) -> None:
        """Raise StateError where the store is away."""
        with self._explained():
            self._check_marker()

    @property
    def _is_local(self) -> bool:
        return isinstance(self._system, LocalFileSystem)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _write(self, name: str, content: bytes | memoryview) -> None:
        """Write a file in one step: readers find all of it, or nothing."""
        if not self._is_local:
            self._system.pipe_file(self._path(name), bytes(content))
            return
        name_of_its_own = f".{secrets.token_hex(8)}.partial"  # several processes may write the same file at once
        write_durably(Path(self._path(name)), content, partial_name=name_of_its_own)

    def _check_marker(self) -> None:
        try:
            self._system.info(self._path(_MARKER))
        except FileNotFoundError:
            raise StateError(
                f"{self.url}: its file {_MARKER} is not there: see that the store is mounted and whole; a service that "
                "is started anew begins an empty one"
            ) from None

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn every fault of the store into StateError."""
        try:
            yield
        except StateError:
            raise
        except Exception as error:  # every kind of store has errors of its own
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            line = " ".join(reason.split())[:200] or type(error).__name__
            raise StateError(
                f"{self.url}: {line}: see that the store is there, can be written and has room; it is tried again"
            ) from error
