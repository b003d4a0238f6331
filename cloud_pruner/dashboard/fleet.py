"""The page of the fleet, and the events that keep its figures as they are."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fastapi.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request  # noqa: TC002 - FastAPI reads the annotation
from starlette.responses import StreamingResponse

from cloud_pruner.dashboard.formats import TIERS
from cloud_pruner.dashboard.models import rollout_of
from cloud_pruner.dashboard.pages import render

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from starlette.responses import Response

    from cloud_pruner.dashboard.energy import EnergyRatios
    from cloud_pruner.service.parts import ServiceParts
    from cloud_pruner.state import Rollout

__all__ = ["Fleet"]

_COUNTS: Final = {
    "queue": "searches waiting or under way",
    "in_flight": "requests being worked on",
    "rejected": "requests refused because something was full",
    "certificate_failures": "cuts not certified as far as they were found",
    "rolled_back": "cuts taken back by devices",
}
# What a page waits for energies that nobody has asked for yet.
_ENERGY_S: Final = 2.0
_TICK_S: Final = 1.0
# A stream ends after a while, and its page asks again: then it is known whether that may still.
_STREAM_S: Final = 60.0
_STREAMS_MAX: Final = 32


@dataclass(frozen=True, slots=True)
class _Tier:
    name: str
    title: str
    answers: int
    share: float


@dataclass(frozen=True, slots=True)
class _Count:
    name: str
    title: str
    value: int


@dataclass(frozen=True, slots=True)
class _Energy:
    """What cuts save of their bases' energy on average, and of how many cuts that is known."""

    saved: float
    cuts: int


@dataclass(frozen=True, slots=True)
class _Model:
    rollout: Rollout
    devices: int


class Fleet:
    """Answers for the page."""

    def __init__(self, parts: ServiceParts, energies: EnergyRatios) -> None:
        self._parts, self._energies = parts, energies
        self._streams = 0
        self._counted: tuple[float, dict[str, float]] | None = None

    def page(self, request: Request) -> Response:
        """Show devices, models, newest cuts and where answers come from."""
        fleet = self._parts.history.fleet()
        ratios = self._energies.of([cut.manifest for cut in fleet.newest], _ENERGY_S)
        totals = self._totals()
        return render(
            request,
            "fleet.html",
            fleet=fleet,
            newest=list(zip(fleet.newest, ratios, strict=True)),
            energy=_energy(ratios),
            tiers=_tiers(totals),
            counts=[_Count(name, title, round(totals[name])) for name, title in _COUNTS.items()],
            models=self._models(fleet.devices_by_model),
        )

    async def live(self) -> Response:
        """Send the totals whenever they have changed.

        Raises
        ------
        HTTPException
            429: too many pages are open.
        """
        if self._streams >= _STREAMS_MAX:
            raise HTTPException(429, "too many pages of the fleet are open: close one", {"retry-after": "60"})
        return StreamingResponse(self._events(), media_type="text/event-stream")

    async def _events(self) -> AsyncIterator[str]:
        self._streams += 1
        try:
            end, sent = time.monotonic() + _STREAM_S, None
            yield "retry: 1000\n\n"
            while time.monotonic() < end and not self._parts.phase.draining:
                totals = await run_in_threadpool(self._totals)
                if totals != sent:
                    sent = totals
                    yield f"data: {json.dumps(totals)}\n\n"
                await asyncio.sleep(_TICK_S)
        finally:
            self._streams -= 1

    def _totals(self) -> dict[str, float]:
        """Return the service's counts, which all open pages share: adding up those of many workers takes a while."""
        counted = self._counted
        if counted is None or time.monotonic() - counted[0] >= _TICK_S / 2:
            counted = self._counted = (time.monotonic(), self._parts.metrics.totals())
        return counted[1]

    def _models(self, devices: Mapping[str, int]) -> list[_Model]:
        first, *others = self._parts.catalogue.models
        # Who names no model runs the first.
        counts = {first: devices.get("", 0) + devices.get(first, 0)} | {name: devices.get(name, 0) for name in others}
        return [_Model(rollout_of(self._parts, name), count) for name, count in counts.items()]


def _tiers(totals: Mapping[str, float]) -> list[_Tier]:
    answers = {name: round(totals[f"tier:{name}"]) for name in TIERS}
    whole = sum(answers.values()) or 1
    return [_Tier(f"tier:{name}", title, answers[name], answers[name] / whole) for name, title in TIERS.items()]


def _energy(ratios: Sequence[float | None]) -> _Energy:
    known = [ratio for ratio in ratios if ratio is not None]
    return _Energy(1.0 - sum(known) / len(known) if known else 0.0, len(known))
