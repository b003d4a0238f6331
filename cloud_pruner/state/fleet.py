"""What the fleet comes to: from one row a device, without reading its history."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from sqlalchemy import exists, func, select

from cloud_pruner.state.tables import BASES, CURRENT, DEVICES, now

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection

    from cloud_pruner.state.history import CutRecord

__all__ = ["FleetSummary", "fleet_summary"]


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


def fleet_summary(connection: Connection, newest: list[CutRecord]) -> FleetSummary:
    """Return what the fleet comes to now."""
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
        newest=newest,
    )
