"""HTTP with somebody who is not trusted: every exchange comes to an end, by its length, its rate, or from outside.

An answer begins within `cloud.timeout_s`, is never silent for longer, and is given up where it comes slower than
`download.bytes_per_s_min` over that time. Redirects are not followed: they would take the token to wherever they point.
Answers are not decompressed: a few bytes would fill memory. Cookies are not kept. What a service says of its errors is
cut short, and shown without control characters.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import threading
from typing import TYPE_CHECKING, Any, Final, TypeVar

from edge_runtime.errors import BaseChangedError, CloudError, CloudRefusedError, ConfigError, DigestError, EdgeError
from edge_runtime.messages import unpack
from edge_runtime.secret_file import is_private, read_secret

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Mapping
    from pathlib import Path

    import httpx

    from edge_runtime.config import CloudConfig, DownloadConfig

__all__ = ["BoundedHttp"]

_ERROR_BYTES_MAX: Final = 64 * 1024
_TEXT_MAX: Final = 300
# The 4xx that may pass: the token is replaced or allowed in the end, a request was too slow, there are too many.
_PASSING: Final = (401, 403, 408, 429)
# What the kernel may take in ahead of a transfer that is slowed down here, in bytes.
_AHEAD_BYTES: Final = 16 * 1024

_T = TypeVar("_T")


class BoundedHttp:
    """A way to the service at `cloud.url`. For one thread, but for `cancel`; connects with the first exchange.

    `answer`, `pieces` and `whole` are parts of an exchange, which `run` runs. They raise CloudError where the service
    is away, too slow or fails: `CloudRefusedError` where it refuses, `BaseChangedError` for that reason; DigestError
    where a file is shorter than it should be; and ConfigError where token or authority cannot be used.

    Parameters
    ----------
    cloud, download
        Address, token, authority and time limit; the lowest rate, and whether transfers are slowed down.
    """

    def __init__(self, cloud: CloudConfig, download: DownloadConfig) -> None:
        self.url = cloud.url.rstrip("/")
        self._cloud = cloud
        self._bytes_per_s_min = download.bytes_per_s_min
        self._slowed_down = download.bytes_per_s is not None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._http: httpx.AsyncClient | None = None
        self._task: asyncio.Task[Any] | None = None
        self._cancelled = False
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close the connection."""
        if self._loop is not None:
            if self._http is not None:
                self._loop.run_until_complete(self._http.aclose())
            self._loop.close()
        self._loop = self._http = None

    def cancel(self) -> None:
        """End what is under way, in whatever thread, with a CloudError; so does everything asked for later."""
        with self._lock:
            self._cancelled = True
            if self._task is not None and self._loop is not None:
                self._loop.call_soon_threadsafe(self._task.cancel)

    def run(self, exchange: Coroutine[Any, Any, _T]) -> _T:
        """Run an exchange to its end, or to `cancel`."""
        with self._lock:
            if self._cancelled:
                exchange.close()
                raise CloudError(f"{self.url}: not asked: the daemon is stopping")
            self._loop = self._loop or asyncio.new_event_loop()
            task = self._task = self._loop.create_task(exchange)
        try:
            answer: _T = self._loop.run_until_complete(task)
        except asyncio.CancelledError:
            raise CloudError(f"{self.url}: broken off: the daemon is stopping") from None
        finally:
            with self._lock:
                self._task = None
        return answer

    @contextlib.asynccontextmanager
    async def answer(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | None
    ) -> AsyncIterator[httpx.Response]:
        """Yield an answer whose status is good and whose body is still to come; what goes wrong is a CloudError."""
        import httpx  # noqa: PLC0415 - a third of a second, and not needed to serve

        where = f"{self.url}{path}"
        if self._cloud.token_file is not None:
            headers = {**headers, "authorization": f"Bearer {_token(self._cloud.token_file, self.url)}"}
        try:
            self._http = self._http or _http_client(self._cloud)
            request = self._http.build_request(method, where, content=body, headers=headers)
            response = await asyncio.wait_for(self._http.send(request, stream=True), self._cloud.timeout_s)
            try:
                if self._slowed_down:
                    stream = response.extensions["network_stream"].get_extra_info("socket")
                    stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _AHEAD_BYTES)
                if response.status_code not in (200, 206):
                    raise await self._error(response, where)
                yield response
            finally:
                await response.aclose()
        except asyncio.TimeoutError as error:
            raise CloudError(
                f"{where}: no answer within {self._cloud.timeout_s:g} s: is the service overloaded, or the network "
                "down?"
            ) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise CloudError(
                f"{where}: cannot be reached ({_reason(error)}): check the network and the address"
            ) from error

    async def pieces(self, response: httpx.Response) -> AsyncIterator[bytes]:
        """Yield a body as it comes, as long as it comes fast enough; time that the caller takes does not count."""
        window_s = self._cloud.timeout_s
        waited_s, came = 0.0, 0
        pieces = response.aiter_raw()
        clock = asyncio.get_running_loop().time
        while True:
            start = clock()
            piece = await asyncio.wait_for(anext(pieces, None), window_s)
            if piece is None:
                return
            waited_s, came = waited_s + clock() - start, came + len(piece)
            if waited_s >= window_s:
                if came < self._bytes_per_s_min * waited_s:
                    raise CloudError(
                        f"{response.url}: only {came} bytes came in {waited_s:.1f} s: given up below bytes_per_s_min, "
                        f"{self._bytes_per_s_min} per second"
                    )
                waited_s, came = 0.0, 0
            yield piece

    async def whole(self, response: httpx.Response, limit: int) -> bytes:
        """Return a body of at most `limit` bytes."""
        content = bytearray()
        async for piece in self.pieces(response):
            content += piece
            if len(content) > limit:
                raise CloudError(
                    f"{response.url}: the answer is longer than {limit} bytes: no such answer is: is it the right "
                    "service?"
                )
        return bytes(content)

    async def _error(self, response: httpx.Response, where: str) -> EdgeError:
        """Return what an answer that is none comes to."""
        status = response.status_code
        if response.is_redirect:
            return CloudError(f"{where}: answered {status}: redirects are not followed: set cloud.url to the address")
        reason = _error_text(await self.whole(response, _ERROR_BYTES_MAX))
        message = f"{where}: answered {status} {_line(response.reason_phrase)}: {reason}"
        if status == 409:
            return BaseChangedError(message)
        if status == 416:
            return DigestError(f"{message}: what it holds is shorter than promised")
        if 400 <= status < 500 and status not in _PASSING:
            return CloudRefusedError(message)
        return CloudError(message)


def _http_client(cloud: CloudConfig) -> httpx.AsyncClient:
    import ssl  # noqa: PLC0415 - as httpx
    from http.cookiejar import CookieJar, DefaultCookiePolicy  # noqa: PLC0415 - as httpx

    import httpx  # noqa: PLC0415 - a third of a second, and not needed to serve

    try:
        # With an authority given, none of the system's is trusted.
        verify = ssl.create_default_context(cafile=cloud.ca_file)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ConfigError(f"{cloud.ca_file}: cannot be used as ca_file ({reason}): expected a PEM file") from error
    # Model files do not compress, and an answer that unpacks to gigabytes could not be bounded piece by piece.
    headers = {"accept-encoding": "identity"}
    cookies = CookieJar(DefaultCookiePolicy(allowed_domains=()))
    # Each wait is bounded above, also where bytes keep dripping.
    return httpx.AsyncClient(verify=verify, timeout=None, headers=headers, cookies=cookies)  # noqa: S113 - so


def _token(path: Path, url: str) -> str:
    """Return the token in `path`, which is read anew each time; raise ConfigError where it must not be sent."""
    if not is_private(url):
        raise ConfigError(f"{url}: a token would be sent where others can read it: use an https address")
    return read_secret(path)


def _reason(error: Exception) -> str:
    """Return on one line what lies behind a failed exchange: libraries hide "connection refused" three causes deep."""
    cause: BaseException = error
    while (behind := cause.__cause__ or cause.__context__) is not None:
        cause = behind
    if isinstance(cause, ConnectionError) and cause.errno:
        return os.strerror(cause.errno)
    return _line(str(error)) or type(error).__name__


def _error_text(content: bytes) -> str:
    """Return the `error` of a service's answer in JSON or msgpack, on one line, or what can be said without it."""
    fields: Any
    try:
        fields = json.loads(content)
    except ValueError:
        try:
            fields = unpack(content)
        except EdgeError:
            fields = None
    text = fields.get("error") if isinstance(fields, dict) else None
    return _line(str(text)) if text else "no reason given"


def _line(text: str) -> str:
    """Return what somebody else wrote as one short line that does nothing to a terminal."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(text[: 4 * _TEXT_MAX].split()))[:_TEXT_MAX]
