"""Which cuts were named to which device, and what the fleet comes to.

A row is written only where a device's cut or usage is another than its last one: devices ask again and again for what
they have. What was seen to be the last is remembered here, so that such a repeat asks nothing of the database.
"""

from __future__ import annotations

import threading
import time
import zlib
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from cachetools import LRUCache
from sqlalchemy import and_, delete, exists, func, insert, or_, select

from cloud_pruner.state.names import line_of
from cloud_pruner.state.tables import BASES, CURRENT, CUTS, DEVICES, MANIFESTS, now
from edge_runtime.digests import digest_of
from edge_runtime.messages import pack, unpack
from edge_runtime.wire import Manifest

if TYPE_CHECKING:
    from collections.abc import Mapping
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


@dataclass(frozen=True, slots=True)
class FleetSummary:
    """What the fleet comes to. Where no tokens are required, also devices count that nobody registered.

    Attributes
    ----------
    devices, seen_last_day
        How many there are, and how many of them were seen in the last 24 hours.
    devices_by_model
        How many run cuts of each model; "" for those that name none.
    cuts
        How many were named to devices that differed from their last.
    mean_relative_size
        Of the cuts that devices have now: parameters relative to the base's; 1 where no device has one.
    bytes_saved
        By these cuts, in all.
    certified_share
        How many of them are certified, in [0, 1].
    newest
        The last ones, newest first, at most 20.
    """

    devices: int
    seen_last_day: int
    devices_by_model: Mapping[str, int]
    cuts: int
    mean_relative_size: float
    bytes_saved: int
    certified_share: float
    newest: list[CutRecord]


class History:
    """The cuts of all devices; for any number of threads. Every method raises StateError."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._last: LRUCache[str, tuple[str, str | None, dict[str, float]]] = LRUCache(_REMEMBERED)
        self._named: LRUCache[tuple[str, str], bool] = LRUCache(2 * _REMEMBERED)
        self._turn = threading.Lock()
        self._summary: tuple[float, FleetSummary] | None = None

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
        ours = and_(CUTS.c.device == device, or_(CUTS.c.digest == digest, CUTS.c.plan == digest))
        with self._database.reading() as connection:
            named = connection.execute(select(CUTS.c.number).where(ours).limit(1)).first() is not None
        if named:
            with self._turn:
                self._remember_named(device, digest)
        return named

    def fleet(self) -> FleetSummary:
        """Return what the fleet comes to; at most 2 s old."""
        found = self._summary
        if found is None or time.monotonic() - found[0] > _SUMMARY_S:
            with self._database.reading() as connection:
                found = self._summary = (time.monotonic(), _summary(connection))
        return found[1]

    def _is_last(self, device: str, told: str) -> bool:
        """Return whether this is what the device was told last, perhaps by another process."""
        last = and_(CURRENT.c.device == device, CURRENT.c.answer == told)
        with self._database.reading() as connection:
            return connection.execute(select(CURRENT.c.device).where(last)).first() is not None

    def _write(self, device: str, answer: Personalized, told: str) -> None:
        manifest, at = answer.manifest, now()
        packed = pack(manifest.to_fields())
        current = self._database.insert(CURRENT).values(
            device=device,
            at=at,
            answer=told,
            base=manifest.base,
            bytes=manifest.bytes,
            relative_size=manifest.relative_size,
            certified=manifest.guarantee == "certified",
            cuts=1,
        )
        new = current.excluded
        current = current.on_conflict_do_update(
            index_elements=[CURRENT.c.device],
            set_={
                **{name: new[name] for name in ("at", "answer", "base", "bytes", "relative_size", "certified")},
                "cuts": CURRENT.c.cuts + 1,
            },
            # Another process may have written the same meanwhile.
            where=CURRENT.c.answer != new.answer,
        ).returning(CURRENT.c.device)
        with self._database.writing() as connection:
            if connection.execute(current).first() is None:
                return
            connection.execute(
                self._database.insert(MANIFESTS)
                .values(digest=digest_of(packed), content=zlib.compress(packed))
                .on_conflict_do_nothing(index_elements=[MANIFESTS.c.digest])
            )
            connection.execute(
                insert(CUTS).values(
                    device=device,
                    at=at,
                    digest=manifest.digest,
                    plan=None if manifest.plan is None else manifest.plan.digest,
                    manifest=digest_of(packed),
                    shortfall=line_of(answer.shortfall),
                )
            )
            of_device = select(CUTS.c.number).where(CUTS.c.device == device).order_by(CUTS.c.number.desc())
            old = of_device.offset(_KEPT).limit(1).scalar_subquery()
            connection.execute(delete(CUTS).where(CUTS.c.device == device, CUTS.c.number <= old))

    def _remember_named(self, device: str, digest: str) -> None:
        self._named[device, digest] = True


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


def _summary(connection: Connection) -> FleetSummary:
    yesterday = now() - timedelta(days=1)
    registered = connection.execute(
        select(DEVICES.c.model, func.count(), func.count().filter(DEVICES.c.last_seen >= yesterday))
        .where(DEVICES.c.revoked.is_(False))
        .group_by(DEVICES.c.model)
    ).all()
    unregistered = connection.execute(
        select(func.count(), func.count().filter(CURRENT.c.at >= yesterday)).where(
            ~exists().where(DEVICES.c.name == CURRENT.c.device)
        )
    ).one()
    devices = [(model, count, seen) for model, count, seen in registered]
    if unregistered[0]:
        devices.append(("", *unregistered))
    by_model: dict[str, int] = {}
    for model, count, _ in devices:
        by_model[model] = by_model.get(model, 0) + count
    have, cuts, size, saved, certified = connection.execute(
        select(
            func.count(),
            func.sum(CURRENT.c.cuts),
            func.avg(CURRENT.c.relative_size),
            func.sum(BASES.c.bytes - CURRENT.c.bytes),
            func.count().filter(CURRENT.c.certified),
        ).select_from(CURRENT.join(BASES, BASES.c.digest == CURRENT.c.base, isouter=True))
    ).one()
    return FleetSummary(
        devices=sum(by_model.values()),
        seen_last_day=sum(seen for _, _, seen in devices),
        devices_by_model=by_model,
        cuts=int(cuts or 0),
        mean_relative_size=1.0 if size is None else float(size),
        bytes_saved=int(saved or 0),
        certified_share=certified / have if have else 0.0,
        newest=_records(connection, _RECORDS.limit(_NEWEST)),
    )
