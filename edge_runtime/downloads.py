"""Fetches files by their digest into the state folder: a piece at a time, resumed, slowed down, at the hours allowed.

::

    STATE/incoming/DIGEST.partial    what has come of a file

Rules
-----
1. A file that came in part is gone on with, also after a restart. It is not synced on the way: what a power cut damages
   shows in the digest, and is fetched again.
2. A file is complete with the promised number of bytes, and good with the promised digest; a wrong one is deleted.
3. There must be room for the file, and for the model that is made from it, before the first byte is asked for.
4. Hours are those of the local wall clock. Waiting is not: a clock that is wrong delays a download and nothing else.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import time
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from edge_runtime.digests import check_digest
from edge_runtime.errors import CloudError, DigestError, MessageError

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable, Collection
    from pathlib import Path
    from typing import IO

    from edge_runtime.cloud_client import CloudClient
    from edge_runtime.config import DownloadConfig

__all__ = ["Downloads", "Throttle", "opens_in_s"]

# Left free for everything else that writes to the disk.
_SPARE_BYTES: Final = 1 << 20


def opens_in_s(window: tuple[dt.time, dt.time] | None, now: datetime) -> float:
    """Return how long after `now`, local time, downloads are allowed, in s; 0 while they are.

    Parameters
    ----------
    window
        Beginning and end of the hours, an end before the beginning being on the next day; None for all day.
    """
    if window is None:
        return 0.0
    begin, end = window
    clock = now.time()
    inside = begin <= clock < end if begin < end else clock >= begin or clock < end
    if inside:
        return 0.0
    opening = datetime.combine(now.date(), begin)
    if opening < now:
        opening += timedelta(days=1)
    return (opening - now).total_seconds()


class Throttle:
    """Pauses that keep a transfer at `bytes_per_s` on average; None for no pauses."""

    def __init__(self, bytes_per_s: int | None) -> None:
        self._bytes_per_s = bytes_per_s
        self._free_at = 0.0

    def pause_s(self, amount: int, now: float) -> float:
        """Return how long to pause after `amount` bytes that came up to `now` on a monotonic clock, in s."""
        if self._bytes_per_s is None:
            return 0.0
        self._free_at = max(self._free_at, now) + amount / self._bytes_per_s
        return self._free_at - now


class Downloads:
    """The files that are on their way, in `folder`. For one thread, but for `progress`.

    Parameters
    ----------
    folder
        Made where it is missing.
    config
        Highest rate and hours.
    came
        Called with the number of bytes of each piece that came.
    now
        The local wall clock.
    """

    def __init__(
        self,
        folder: Path,
        config: DownloadConfig,
        came: Callable[[int], object],
        now: Callable[[], datetime] = datetime.now,
    ) -> None:
        self._folder = folder
        self._window = config.window()
        self._now = now
        self._throttle = Throttle(config.bytes_per_s)
        self._came = came
        self._partial: _Partial | None = None

    @property
    def progress(self) -> tuple[str, int, int] | None:
        """Digest, bytes here and bytes promised of the file that is on its way; None without one."""
        partial = self._partial
        return None if partial is None else (partial.digest, partial.size, partial.promised)

    def opens_in_s(self) -> float:
        """Return how long until downloads are allowed, in s; 0 while they are."""
        return opens_in_s(self._window, self._now())

    def keep_only(self, digests: Collection[str]) -> None:
        """Delete what came of other files.

        Raises
        ------
        OSError
            It cannot be deleted.
        """
        with contextlib.suppress(FileNotFoundError):
            for path in self._folder.iterdir():
                if path.name.partition(".")[0] not in digests:
                    path.unlink()

    def fetch(
        self, client: CloudClient, digest: str, promised: int, *, room: int, any_hour: bool = False
    ) -> bytes | None:
        """Return the file with the sha256 `digest`, of `promised` bytes; None where the hours end before it is here.

        Parameters
        ----------
        room
            Bytes that the disk must have besides: for the model that the file becomes.
        any_hour
            Whether the hours do not matter this time.

        Raises
        ------
        CloudError, ConfigError
            As `CloudClient.file`; what came is kept.
        DigestError, MessageError
            What came is not that file, and is deleted.
        OSError
            There is too little room on the disk, or it fails; what came is deleted.
        """

        def pause_s(amount: int) -> float | None:
            self._came(amount)
            return self._throttle.pause_s(amount, time.monotonic()) if any_hour or self.opens_in_s() == 0 else None

        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{digest}.partial"
        try:
            with path.open("ab") as file:
                self._partial = partial = _Partial(digest, file, promised, pause_s)
                self._check_room(promised - partial.size + room)
                if partial.size < promised:
                    client.file(digest, partial.size, partial)
                if partial.closed:
                    return None
                partial.check_complete(client.url)
            content = path.read_bytes()
            check_digest(content, digest, f"{client.url}/v1/files/{digest}")
        except (DigestError, MessageError, OSError) as error:
            # A CloudError is an OSError too, by way of ConnectionError: the link broke, and what came is good.
            if not isinstance(error, ConnectionError):
                path.unlink(missing_ok=True)
            raise
        finally:
            self._partial = None
        return content

    def _check_room(self, needed: int) -> None:
        free = shutil.disk_usage(self._folder).free
        if free < needed + _SPARE_BYTES:
            raise OSError(
                errno.ENOSPC,
                f"{free} bytes are free, the update needs {needed + _SPARE_BYTES}: make room on the disk",
                str(self._folder),
            )


class _Partial:
    """A file that comes in: a `FileReceiver`.

    Parameters
    ----------
    pause_s
        Called with the length of each piece that came: how long to pause then, in s, or None where the hours are over.
    """

    def __init__(self, digest: str, file: IO[bytes], promised: int, pause_s: Callable[[int], float | None]) -> None:
        self.digest = digest
        self.promised = promised
        self.closed = False
        self._file = file
        self._pause_s = pause_s
        self.size = os.fstat(file.fileno()).st_size
        if self.size > promised:
            self.begin(0)

    def begin(self, offset: int) -> None:
        """Go on at `offset`: the end of what is here, or 0."""
        if offset != self.size:
            self._file.truncate(offset)
            self.size = offset

    def take(self, piece: bytes) -> float | None:
        """Store some bytes; return the pause before the next, or None at the end of the hours."""
        if self.size + len(piece) > self.promised:
            raise DigestError(f"file {self.digest[:12]}…: more bytes came than the {self.promised} promised")
        self._file.write(piece)
        self.size += len(piece)
        pause_s = self._pause_s(len(piece))
        if self.size == self.promised:
            return 0.0
        self.closed = pause_s is None
        return pause_s

    def check_complete(self, where: str) -> None:
        """Raise CloudError where bytes are missing."""
        self._file.flush()
        if self.size < self.promised:
            raise CloudError(f"{where}: only {self.size} of {self.promised} bytes of file {self.digest[:12]}… are here")
