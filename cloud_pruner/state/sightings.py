"""When devices were last seen, written in the background and many at once: no request waits for it."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Final

from sqlalchemy import bindparam, update

from cloud_pruner.errors import StateError
from cloud_pruner.state.tables import DEVICES, now

if TYPE_CHECKING:
    from datetime import datetime

    from cloud_pruner.state.database import Database

__all__ = ["Sightings"]

_EVERY_S: Final = 3.0
_WAITING_MAX: Final = 100_000  # devices, while the database is away

_AT_ONCE: Final = 500

_NAMED: Final = DEVICES.c.name == bindparam("device")
_LATER: Final = DEVICES.c.last_seen.is_(None) | (DEVICES.c.last_seen < bindparam("at"))
_SEEN: Final = update(DEVICES).where(_NAMED, _LATER).values(last_seen=bindparam("at"))
_TOLD: Final = update(DEVICES).where(_NAMED).values(rolled_back=bindparam("why"))

_log = logging.getLogger(__name__)


class Sightings:
    """Notes when devices were seen, and writes it every few seconds; for any number of threads."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._seen: dict[str, datetime] = {}
        self._rolled_back: dict[str, str] = {}
        self._turn = threading.Lock()
        self._ended = threading.Event()
        self._writer: threading.Thread | None = None

    def note(self, device: str, rolled_back: str | None) -> None:
        """Note that a device was seen just now, and what it told of a cut that it took back."""
        with self._turn:
            if device in self._seen or len(self._seen) < _WAITING_MAX:
                self._seen[device] = now()
                if rolled_back is not None:
                    self._rolled_back[device] = rolled_back
            if self._writer is None and not self._ended.is_set():
                self._writer = threading.Thread(target=self._write_now_and_then, name="sightings", daemon=True)
                self._writer.start()

    def write(self) -> None:
        """Write what was noted; raises StateError, and keeps it for the next time then."""
        with self._turn:
            seen, self._seen = self._seen, {}
            told, self._rolled_back = self._rolled_back, {}
        try:
            self._write(seen, told)
        except StateError:
            with self._turn:
                self._seen = {**seen, **self._seen}
                self._rolled_back = {**told, **self._rolled_back}
            raise

    def close(self) -> None:
        """Write what is left, where that can be, and end."""
        self._ended.set()
        with self._turn:
            writer = self._writer
        if writer is not None:
            writer.join()
        self._write_or_tell()

    def _write(self, seen: dict[str, datetime], told: dict[str, str]) -> None:
        # In the order of their names: writers of several processes would wait for each other in a circle else. A few
        # at once: others write too.
        names = sorted(seen)
        for first in range(0, len(names), _AT_ONCE):
            part = names[first : first + _AT_ONCE]
            with self._database.writing() as connection:
                connection.execute(_SEEN, [{"device": name, "at": seen[name]} for name in part])
                if why := [{"device": name, "why": told[name]} for name in part if name in told]:
                    connection.execute(_TOLD, why)

    def _write_now_and_then(self) -> None:
        while not self._ended.wait(_EVERY_S):
            self._write_or_tell()

    def _write_or_tell(self) -> None:
        try:
            self.write()
        except StateError as error:
            _log.warning("when devices were seen is not written: %s", error)
