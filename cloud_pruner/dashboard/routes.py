"""Which address shows which page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Depends

from cloud_pruner.dashboard.devices import DevicePages
from cloud_pruner.dashboard.energy import EnergyRatios
from cloud_pruner.dashboard.fleet import Fleet
from cloud_pruner.dashboard.models import ModelPages
from cloud_pruner.dashboard.pages import asset, page_route
from cloud_pruner.dashboard.session import Session
from cloud_pruner.dashboard.try_page import TryPage

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloud_pruner.service.parts import ServiceParts

__all__ = ["router"]


def router(parts: ServiceParts) -> APIRouter:
    """Return the dashboard of a service, for mounting at `/`."""
    session = Session(parts.access, parts.operators)
    energies = EnergyRatios(parts.files.get)
    fleet, devices, models = Fleet(parts, energies), DevicePages(parts, energies), ModelPages(parts)
    tried = TryPage(parts, energies)
    pages = APIRouter(route_class=page_route(parts.metrics), include_in_schema=False)
    only_operators = [Depends(session.check)]

    def page(address: str, show: Callable[..., Any], method: str = "GET", *, open_to_all: bool = False) -> None:
        dependencies = None if open_to_all else only_operators
        pages.add_api_route(address, show, methods=[method], dependencies=dependencies, response_model=None)

    page("/", fleet.page)
    page("/live", fleet.live)
    page("/devices", devices.overview)
    page("/devices/{name:path}", devices.device)
    page("/models", models.overview)
    page("/models/{name}", models.model)
    page("/models/{name}/confirm", models.confirm)
    page("/models/{name}/rollout", models.change, "POST")
    page("/try", tried.page)
    page("/login", session.form, open_to_all=True)
    page("/login", session.sign_in, "POST", open_to_all=True)
    page("/logout", session.sign_out, "POST", open_to_all=True)
    page("/dashboard/{name}", asset, open_to_all=True)
    return pages
