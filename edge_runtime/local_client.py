"""Asks the daemon on this machine, by its HTTP address or its Unix socket (`unix:/path`)."""

from __future__ import annotations

from typing import Any

from edge_runtime.errors import EdgeError

__all__ = ["ask"]

_TIMEOUT_S = 30.0


def ask(url: str, method: str, path: str, body: bytes | None = None) -> dict[str, Any]:
    """Return the daemon's answer; anything but its own JSON is an error, so that a wrong address is noticed.

    Raises
    ------
    EdgeError
        No daemon answers there, or it answers with an error.
    """
    import httpx  # noqa: PLC0415 - commands that do not ask start faster without it

    where = f"{url.rstrip('/')}{path}"
    socket = url.removeprefix("unix:") if url.startswith("unix:") else None
    transport = None if socket is None else httpx.HTTPTransport(uds=socket)
    try:
        # A proxy from the environment would be asked for its own loopback address.
        with httpx.Client(trust_env=False, timeout=_TIMEOUT_S, transport=transport) as client:
            response = client.request(method, where if socket is None else f"http://localhost{path}", content=body)
        fields = response.json()
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise EdgeError(f"{where}: no daemon answers ({error}): is capnn-edge run running there?") from error
    except ValueError as error:
        raise EdgeError(f"{where}: answers, but not as capnn-edge does: check --url") from error
    if not isinstance(fields, dict) or (response.status_code == httpx.codes.OK and "error" in fields):
        raise EdgeError(f"{where}: answers, but not as capnn-edge does: check --url")
    if response.status_code != httpx.codes.OK:
        raise EdgeError(f"{fields.get('error', response.reason_phrase)}")
    return fields
