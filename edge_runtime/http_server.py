"""What device and cloud share of serving HTTP.

A listening socket, a bounded body, and a server that says where it is.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException

from edge_runtime.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from starlette.requests import Request
    from starlette.types import ASGIApp

__all__ = ["bounded_body", "listen", "listen_unix", "serve", "url_of"]

# More at once are answered 503: models and searches take one request at a time, a queue would only hide that.
_CONNECTIONS_MAX = 128
_SHUTDOWN_S = 5
_SOCKET_MODE = 0o660


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; port 0 takes a free one.

    Raises
    ------
    ConfigError
        The address cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family)
        # Connections inherit this. Without it an answer's second packet waits for the first one's delayed
        # acknowledgement, 40 ms; asyncio sets it only on sockets whose protocol number is stated.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError as error:
        reason = (error.strerror or str(error)).partition(" (while")[0]  # Python repeats the address there
        raise ConfigError(
            f"cannot listen on {host} port {port} ({reason}): choose another with --port or --host"
        ) from error
    return listener


@contextlib.contextmanager
def listen_unix(path: Path) -> Iterator[socket.socket]:
    """Listen on a Unix socket that its owner and group may connect to; remove it in the end.

    One that is there already is replaced if nobody listens on it.

    Raises
    ------
    ConfigError
        Somebody listens there, `path` is another thing, or it cannot be made.
    """
    remedy = "choose another name for api.socket, or end the daemon that has it"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if _is_stale(path):
            path.unlink()
        path.parent.mkdir(parents=True, exist_ok=True)
        # Bound with these rights, not given them afterwards: nobody else can connect in between.
        mask = os.umask(0o777 & ~_SOCKET_MODE)
        try:
            listener.bind(str(path))
        finally:
            os.umask(mask)
        listener.listen()
    except OSError as error:
        listener.close()
        raise ConfigError(f"cannot listen on {path} ({error.strerror or error}): {remedy}") from error
    own = path.stat()
    try:
        yield listener
    finally:
        listener.close()
        with contextlib.suppress(OSError):
            if (path.stat().st_dev, path.stat().st_ino) == (own.st_dev, own.st_ino):
                path.unlink()


def _is_stale(path: Path) -> bool:
    """Whether `path` is a socket that a process has left behind."""
    if not path.exists() or not stat.S_ISSOCK(path.stat().st_mode):
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        try:
            client.connect(str(path))
        except ConnectionRefusedError:
            return True
    return False


def url_of(listener: socket.socket, *, tls: bool = False) -> str:
    """Return the address under which `listener` is reached: `http://...`, with TLS `https://...`, or `unix:/path`."""
    if listener.family == socket.AF_UNIX:
        return f"unix:{listener.getsockname()}"
    host, port = listener.getsockname()[:2]
    return f"{'https' if tls else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"


def serve(app: ASGIApp, listener: socket.socket) -> None:
    """Serve until SIGTERM or SIGINT.

    Requests under way get a few seconds to end. The signal is then raised again for earlier handlers.
    """
    import uvicorn  # noqa: PLC0415 - commands that do not serve start faster without it

    settings = uvicorn.Config(
        app,
        log_level="warning",
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="off",
        ws="none",
        limit_concurrency=_CONNECTIONS_MAX,
        timeout_graceful_shutdown=_SHUTDOWN_S,
    )
    uvicorn.Server(settings).run(sockets=[listener])


async def bounded_body(request: Request, limit: int, remedy: str) -> bytes:
    """Read the request's body.

    Raises
    ------
    HTTPException
        413: it is longer than `limit` bytes; `remedy` says what to do.
    """
    message = f"the body is longer than {limit} bytes: {remedy}"
    if int(request.headers.get("content-length", "0")) > limit:  # the server has checked that it is a number
        raise HTTPException(413, message)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise HTTPException(413, message)
    return bytes(body)
