"""Who asks, how often, and what is served to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fastapi.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from cloud_pruner.service.one_line import one_line
from edge_runtime.wire import PersonalizeRequest

if TYPE_CHECKING:
    from starlette.requests import Request

    from cloud_pruner.service.access import Caller
    from cloud_pruner.service.catalogue import ServedProfile
    from cloud_pruner.service.parts import ServiceParts
    from cloud_pruner.state.devices import Device

__all__ = ["Asker", "admitted", "asker_of", "served_to_device"]

_NAME_MAX: Final = 64
_NO_NAME: Final = PersonalizeRequest("", {}).device


@dataclass(frozen=True, slots=True)
class Asker:
    """The device that a cut is for, by name, and what it is to be cut from."""

    name: str
    served: ServedProfile


async def admitted(parts: ServiceParts, request: Request) -> Caller:
    """Return who asks, where they may ask at all, and not too often.

    Raises
    ------
    HTTPException
        401, 403; 429 with the time after which the device may ask again.
    """
    caller = await parts.access.caller(request)
    if caller.device is not None:
        name = caller.device.name
        request.state.notes.device = name
        ask = parts.rates.retry_after_s
        wait_s = await run_in_threadpool(ask, name) if parts.rates.blocking else ask(name)
        if wait_s is not None:
            parts.metrics.rejected("rate")
            rate = parts.settings.limits.device_rate
            raise HTTPException(
                429, f"device {name} asks more often than {rate}: try again later", {"retry-after": str(wait_s)}
            )
    return caller


async def asker_of(parts: ServiceParts, caller: Caller, wish: PersonalizeRequest) -> Asker:
    """Return whom a wish is for: the device that the token belongs to, or the one that it names itself.

    Raises
    ------
    HTTPException
        403: it names another device than its token; 404: its device is of a model that is not served.
    """
    device = caller.device
    if device is not None:
        if wish.device not in (device.name, _NO_NAME):
            named = one_line(wish.device, _NAME_MAX)
            raise HTTPException(403, f"this token is device {device.name}'s, the request names {named}: send its own")
        return Asker(device.name, served_to_device(parts, device))
    name = one_line(wish.device, _NAME_MAX)
    if caller.operator is not None:
        device = await run_in_threadpool(parts.devices.get, name)
        if device is not None:
            return Asker(name, served_to_device(parts, device))
    return Asker(name, parts.catalogue.for_base(wish.base))


def served_to_device(parts: ServiceParts, device: Device | None, model: str = "") -> ServedProfile:
    """Return what a device gets, or somebody without a name of `model`.

    Raises
    ------
    HTTPException
        404: there is no such model.
    """
    try:
        return parts.catalogue.for_device(device, model)
    except KeyError as error:
        known = ", ".join(parts.catalogue.models)
        raise HTTPException(404, f"model {one_line(str(error), _NAME_MAX)} is not served here, but {known}") from None
