"""The pages of the devices: a list to search, and the history of each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

from starlette.exceptions import HTTPException
from starlette.requests import Request  # noqa: TC002 - FastAPI reads the annotation

from cloud_pruner.dashboard.pages import render
from cloud_pruner.dashboard.size_plot import size_plot

if TYPE_CHECKING:
    from starlette.responses import Response

    from cloud_pruner.dashboard.energy import EnergyRatios
    from cloud_pruner.service.parts import ServiceParts
    from cloud_pruner.state import Device

__all__ = ["DevicePages"]

_PAGE: Final = 50
_CUTS: Final = 50
_ENERGY_S: Final = 2.0


class DevicePages:
    """Answers for the pages."""

    def __init__(self, parts: ServiceParts, energies: EnergyRatios) -> None:
        self._parts, self._energies = parts, energies

    def overview(self, request: Request, search: str = "", after: str = "") -> Response:
        """Show the devices whose name or model has `search` in it and whose name comes behind `after`."""
        found = self._parts.devices.all(after=after, search=search, limit=_PAGE + 1)
        shown = found[:_PAGE]
        wanted = {"search": search} if search else {}
        further = f"/devices?{urlencode(wanted | {'after': shown[-1].name})}" if len(found) > _PAGE else None
        first = f"/devices?{urlencode(wanted)}" if after else None
        return render(request, "devices.html", devices=shown, search=search, first=first, further=further)

    def device(self, request: Request, name: str) -> Response:
        """Show one device: what it is, its cuts with their certificates, and their size over time.

        Raises
        ------
        HTTPException
            404: there is none of this name, and none was answered.
        """
        device = self._parts.devices.get(name)
        cuts = self._parts.history.of(name, _CUTS)
        if device is None and not cuts:
            raise HTTPException(404, f"there is no device '{name[:64]}'")
        ratios = self._energies.of([cut.manifest for cut in cuts], _ENERGY_S)
        return render(
            request,
            "device.html",
            name=name,
            device=device,
            serves=self._serves(device),
            cuts=list(zip(cuts, ratios, strict=True)),
            limit=_CUTS,
            plot=size_plot(cuts),
        )

    def _serves(self, device: Device | None) -> str:
        """Return which profile of which model answers a device."""
        try:
            served = self._parts.catalogue.for_device(device)
        except KeyError:
            return f"{device.model if device else ''}, which is not served any more"
        return f"{served.model}, profile {served.digest[:12]}…"
