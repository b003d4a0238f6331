"""Who asks, and what they may: a device its own things, an operator everything.

The token comes as `Authorization: Bearer TOKEN`. A browser of an operator has it in the cookie `capnn_session`, with
which a request that changes something counts only when it comes from a page of this service itself.

Where tokens are not required, whoever has none, or one that is not known here, is anonymous and may do everything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fastapi.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request  # noqa: TC002 - FastAPI reads the annotation

from cloud_pruner.service.request_log import note_device

if TYPE_CHECKING:
    from cloud_pruner.state.devices import Device, Devices
    from cloud_pruner.state.operators import Operators

__all__ = ["SESSION_COOKIE", "Access", "Caller"]

SESSION_COOKIE: Final = "capnn_session"
"""A browser's: an operator's token; HttpOnly, SameSite=Strict."""

_TOKEN_MAX: Final = 256
_READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: a device, an operator, or, where tokens are not required, anybody."""

    device: Device | None = None
    operator: str | None = None

    @property
    def may_operate(self) -> bool:
        """Whether this one may do everything."""
        return self.device is None

    def may_act_for(self, device: str) -> bool:
        """Return whether this one may ask as a device, and for what is a device's own."""
        return self.device is None or self.device.name == device


class Access:
    """Tells who asks by their tokens.

    Parameters
    ----------
    devices, operators
        Those who have tokens.
    required
        Whether whoever has none is refused.
    """

    def __init__(self, devices: Devices, operators: Operators, *, required: bool) -> None:
        self._devices = devices
        self._operators = operators
        self.required = required

    async def caller(self, request: Request) -> Caller:
        """Return who asks.

        Raises
        ------
        HTTPException
            401: a token is required, and there is none, or none that is known. 403: the cookie came from another site.
        StateError
            The database is away, and nobody with this token has asked within the last minute.
        """
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        found = None
        if scheme.lower() == "bearer" and token.strip():
            found = await self._of_token(token.strip())
            wrong = "this token is not known here, or was revoked: ask whoever runs the service for a new one"
        elif session := request.cookies.get(SESSION_COOKIE):
            found = await self._of_session(session, request)
            wrong = "this session has ended: log in again"
        else:
            wrong = "a token is needed: send it as 'Authorization: Bearer TOKEN'"
        if found is None and self.required:
            raise HTTPException(401, wrong, {"WWW-Authenticate": "Bearer"})
        caller = found or Caller()
        if caller.device is not None:
            note_device(request, caller.device.name)
        return caller

    async def any(self, request: Request) -> None:
        """Leave who asks in `request.state.caller`: a dependency of routes; raises as `caller`."""
        request.state.caller = await self.caller(request)

    async def operator(self, request: Request) -> None:
        """Do the same, and let pass operators alone; raises as `caller`, and 403 for devices."""
        await self.any(request)
        if not request.state.caller.may_operate:
            raise HTTPException(403, "this is for operators: a device's token does not do")

    async def _of_token(self, token: str) -> Caller | None:
        if len(token) > _TOKEN_MAX:
            return None
        known = self._devices.at_hand(token)
        device = known.value if known is not None else await run_in_threadpool(self._devices.by_token, token)
        return Caller(device) if device is not None else await self._operator_of(token)

    async def _of_session(self, token: str, request: Request) -> Caller | None:
        found = await self._operator_of(token) if len(token) <= _TOKEN_MAX else None
        if found is not None and request.scope.get("method") not in _READING and not _is_from_here(request):
            raise HTTPException(403, "this was sent from another site than the service: use the service's own pages")
        return found

    async def _operator_of(self, token: str) -> Caller | None:
        known = self._operators.at_hand(token)
        name = known.value if known is not None else await run_in_threadpool(self._operators.by_token, token)
        return None if name is None else Caller(operator=name)


def _is_from_here(request: Request) -> bool:
    """Return whether a browser sends this from a page of the same host and port."""
    host = request.headers.get("host")
    return request.headers.get("origin") in {f"http://{host}", f"https://{host}"}
