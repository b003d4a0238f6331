"""Which cuts were named to which device, and what the fleet comes to.

A row is written only where a device's cut or usage is another than its last one: devices ask again and again for what
they have. What was seen to be the last is remembered here, so that such a repeat asks nothing of the database.
"""

from __future__ import annotations

import threading
import time
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from cachetools import LRUCache
from sqlalchemy import bindparam, delete, insert, or_, select

from cloud_pruner.state.fleet import FleetSummary, fleet_summary
from cloud_pruner.state.names import line_of
from cloud_pruner.state.tables import CURRENT, CUTS, MANIFESTS, now
from edge_runtime.digests import digest_of
from edge_runtime.messages import pack, unpack
from edge_runtime.wire import Manifest

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection, Select

    from cloud_pruner.personalized import Personalized
    from cloud_pruner.state.database import Database

__all__ = ["CutRecord", "FleetSummary", "History"]

_REMEMBERED: Final = 65_536
_KEPT: Final = 100  # cuts of each device
_NEWEST: Final = 20
_SUMMARY_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class CutRecord:
    """A cut that was named to a device.

    Attributes
    ----------
    device, at
        To whom, and when.
    base, profile
        Digests of the base model and of the profile that it was made from.
    manifest
        What was said of it, unsigned.
    shortfall
        In one line, why no more could be certified; "" where all was.
    """

    device: str
    at: datetime
    base: str
    profile: str
    manifest: Manifest
    shortfall: str


class History:
    """The cuts of all devices; for any number of threads. Every method raises StateError."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._last: LRUCache[str, tuple[str, str | None, dict[str, float]]] = LRUCache(_REMEMBERED)
        self._named: LRUCache[tuple[str, str], bool] = LRUCache(2 * _REMEMBERED)
        self._manifests: LRUCache[str, bool] = LRUCache(_REMEMBERED)
        self._turn = threading.Lock()
        self._summary: tuple[float, FleetSummary] | None = None
        self._set_current = _set_current(database)
        self._keep_manifest = database.insert(MANIFESTS).on_conflict_do_nothing(index_elements=[MANIFESTS.c.digest])

    def record(self, device: str, answer: Personalized) -> None:
        """Note that a cut was named to a device; when this returns, that is on the disk."""
        manifest, device = answer.manifest, line_of(device)
        plan = None if manifest.plan is None else manifest.plan.digest
        last = (manifest.digest, plan, manifest.usage)
        with self._turn:
            if self._last.get(device) == last:
                return
        told = digest_of(pack({"digest": manifest.digest, "plan": plan, "usage": manifest.usage}))
        if not self._is_last(device, told):
            self._write(device, answer, told)
        with self._turn:
            self._last[device] = last
            self._remember_named(device, manifest.digest)
            if plan is not None:
                self._remember_named(device, plan)

    def of(self, device: str, limit: int = _KEPT) -> list[CutRecord]:
        """Return the cuts of a device, newest first; of each the last 100 are kept."""
        with self._database.reading() as connection:
            return _records(connection, _RECORDS.where(CUTS.c.device == line_of(device)).limit(limit))

    def named_to(self, device: str, digest: str) -> bool:
        """Return whether a cut, or the plan of one, was named to a device."""
        device = line_of(device)
        with self._turn:
            if (device, digest) in self._named:
                return True
        with self._database.reading() as connection:
            named = connection.execute(_NAMED, {"of": device, "file": digest}).first() is not None
        if named:
            with self._turn:
                self._remember_named(device, digest)
        return named

    def fleet(self) -> FleetSummary:
        """Return what the fleet comes to; at most 2 s old."""
        found = self._summary
        if found is None or time.monotonic() - found[0] > _SUMMARY_S:
            with self._database.reading() as connection:
                newest = _records(connection, _RECORDS.limit(_NEWEST))
                found = self._summary = (time.monotonic(), fleet_summary(connection, newest))
        return found[1]

    def _is_last(self, device: str, told: str) -> bool:
        """Return whether this is what the device was told last, perhaps by another process."""
        with self._database.reading() as connection:
            return connection.execute(_LAST, {"of": device, "told": told}).first() is not None

    def _write(self, device: str, answer: Personalized, told: str) -> None:
        manifest, at = answer.manifest, now()
        packed = pack(manifest.to_fields())
        digest = digest_of(packed)
        current = {
            "device": device,
            "at": at,
            "answer": told,
            "base": manifest.base,
            "bytes": manifest.bytes,
            "relative_size": manifest.relative_size,
            "certified": manifest.guarantee == "certified",
            "cuts": 1,
        }
        cut = {
            "device": device,
            "at": at,
            "digest": manifest.digest,
            "plan": None if manifest.plan is None else manifest.plan.digest,
            "manifest": digest,
            "shortfall": line_of(answer.shortfall),
        }
        with self._turn:
            kept = digest in self._manifests
        content = b"" if kept else zlib.compress(packed)

        def act(connection: Connection) -> None:
            cuts = connection.execute(self._set_current, current).scalar_one_or_none()
            if cuts is None:  # another process has written the same meanwhile
                return
            if not kept:
                connection.execute(self._keep_manifest, {"digest": digest, "content": content})
            connection.execute(_ADD, cut)
            if cuts > _KEPT:
                connection.execute(_FORGET, {"of": device})

        self._database.write(act)
        with self._turn:
            self._manifests[digest] = True

    def _remember_named(self, device: str, digest: str) -> None:
        self._named[device, digest] = True


# Built once: making a statement takes longer than to execute it.
_OF_DEVICE: Final = CUTS.c.device == bindparam("of")
_LAST: Final = select(CURRENT.c.device).where(
    CURRENT.c.device == bindparam("of"), CURRENT.c.answer == bindparam("told")
)
_NAMED: Final = (
    select(CUTS.c.number)
    .where(_OF_DEVICE, or_(CUTS.c.digest == bindparam("file"), CUTS.c.plan == bindparam("file")))
    .limit(1)
)
_ADD: Final = insert(CUTS)
_OLDEST: Final = select(CUTS.c.number).where(_OF_DEVICE).order_by(CUTS.c.number.desc()).offset(_KEPT).limit(1)
_FORGET: Final = delete(CUTS).where(_OF_DEVICE, CUTS.c.number <= _OLDEST.scalar_subquery())
_RECORDS: Final[Select[Any]] = (
    select(CUTS.c.device, CUTS.c.at, CUTS.c.shortfall, MANIFESTS.c.content)
    .join(MANIFESTS, MANIFESTS.c.digest == CUTS.c.manifest)
    .order_by(CUTS.c.number.desc())
)


def _records(connection: Connection, wanted: Select[Any]) -> list[CutRecord]:
    records = []
    for device, at, shortfall, content in connection.execute(wanted):
        manifest = Manifest.from_fields(unpack(zlib.decompress(content)))
        records.append(CutRecord(device, at, manifest.base, manifest.profile, manifest, shortfall))
    return records


def _set_current(database: Database) -> Any:
    """Return the statement that makes a cut a device's current one, and tells its number; none where it is already."""
    added = database.insert(CURRENT)
    new = added.excluded
    changed = {name: new[name] for name in ("at", "answer", "base", "bytes", "relative_size", "certified")}
    return added.on_conflict_do_update(
        index_elements=[CURRENT.c.device],
        set_={**changed, "cuts": CURRENT.c.cuts + 1},
        where=CURRENT.c.answer != new.answer,
    ).returning(CURRENT.c.cuts)
