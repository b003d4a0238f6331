"""Asks the cloud service for signed manifests, key statements and files.

The service is not trusted (`edge_runtime.bounded_http`). What its answers say is for others to judge: see
`edge_runtime.trust` and `edge_runtime.acceptance`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Protocol

from edge_runtime.bounded_http import BoundedHttp
from edge_runtime.errors import MessageError
from edge_runtime.messages import pack
from edge_runtime.signing import SignedManifest
from edge_runtime.wire import MSGPACK

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from edge_runtime.config import CloudConfig, DownloadConfig
    from edge_runtime.wire import PersonalizeRequest

__all__ = ["CloudClient", "FileReceiver"]

# A manifest of 1,000 classes has some 100 kB.
_MESSAGE_BYTES_MAX: Final = 4 << 20
_STATEMENTS_MAX: Final = 1024


class FileReceiver(Protocol):
    """Where a file's bytes go."""

    def begin(self, offset: int) -> None:
        """Take what comes from now on as the bytes from `offset` on: as asked, or 0 where the service starts over."""

    def take(self, piece: bytes) -> float | None:
        """Take some bytes; return how long to pause before more come, in s, or None to have no more."""


class CloudClient:
    """The cloud service at `cloud.url`. For one thread, but for `cancel`; connects when it is asked for something.

    Parameters
    ----------
    cloud, download
        Address, token, authority and time limits; and the lowest rate.
    """

    def __init__(self, cloud: CloudConfig, download: DownloadConfig) -> None:
        self._http = BoundedHttp(cloud, download)
        self.url = self._http.url

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def cancel(self) -> None:
        """End what is under way, in whatever thread, with a CloudError; so does everything asked for later."""
        self._http.cancel()

    def base(self) -> SignedManifest:
        """Ask for the base model's manifest.

        Raises
        ------
        CloudError
            The service is away, too slow, or fails; `CloudRefusedError` where it refuses, `BaseChangedError` where that
            is because it cuts another base model.
        MessageError
            Its answer breaks the wire contract.
        ConfigError
            The token or the authority that the configuration names cannot be used.
        """
        return self._signed("GET", "/v1/base", None)

    def personalize(self, request: PersonalizeRequest) -> SignedManifest:
        """Ask for a cut's manifest; raises as `base`."""
        return self._signed("POST", "/v1/personalize", pack(request.to_fields()))

    def keys(self) -> list[bytes]:
        """Ask for the service's key statements, oldest first; raises as `base`."""
        import msgpack  # noqa: PLC0415 - beside the rest of what an answer needs

        content = self._message("GET", "/v1/keys", None)
        try:
            statements = msgpack.unpackb(content, raw=False)
        except (ValueError, msgpack.UnpackException) as error:
            raise MessageError(f"{self.url}/v1/keys: is not valid msgpack: {error or type(error).__name__}") from error
        if (
            not isinstance(statements, list)
            or len(statements) > _STATEMENTS_MAX
            or not all(isinstance(statement, bytes) for statement in statements)
        ):
            raise MessageError(f"{self.url}/v1/keys: is no list of at most {_STATEMENTS_MAX} statements")
        return statements

    def file(self, digest: str, offset: int, receiver: FileReceiver) -> None:
        """Fetch the file with the sha256 `digest` from byte `offset` on, until `receiver` has it or has enough.

        Raises
        ------
        CloudError, ConfigError
            As `base`; `CloudRefusedError` where the service does not hold the file (any more).
        DigestError, MessageError
            What it holds is not a file with these bytes before `offset`: start over.
        """
        path = f"/v1/files/{digest}"
        # A file is named by its digest, so what comes in a range is of the same file, whatever a tag says.
        headers = {"range": f"bytes={offset}-", "if-range": f'"{digest}"'} if offset else {}

        async def exchange() -> None:
            async with self._http.answer("GET", path, headers, None) as response:
                if response.status_code == 206:
                    _check_range(response.headers.get("content-range", ""), offset, f"{self.url}{path}")
                receiver.begin(offset if response.status_code == 206 else 0)
                async for piece in self._http.pieces(response):
                    pause_s = receiver.take(piece)
                    if pause_s is None:
                        return
                    await asyncio.sleep(pause_s)

        self._http.run(exchange())

    def _signed(self, method: str, path: str, body: bytes | None) -> SignedManifest:
        content = self._message(method, path, body)
        try:
            return SignedManifest.from_bytes(content)
        except MessageError as error:
            raise MessageError(f"{self.url}{path}: {error}: is it the right service?") from error

    def _message(self, method: str, path: str, body: bytes | None) -> bytes:
        headers = {"accept": MSGPACK} if body is None else {"accept": MSGPACK, "content-type": MSGPACK}

        async def exchange() -> bytes:
            async with self._http.answer(method, path, headers, body) as response:
                return await self._http.whole(response, _MESSAGE_BYTES_MAX)

        return self._http.run(exchange())


def _check_range(content_range: str, offset: int, where: str) -> None:
    """Raise MessageError unless a part of a file begins at byte `offset`; its end shows by itself."""
    unit, _, stretch = content_range.partition(" ")
    begin = stretch.partition("-")[0]
    if unit != "bytes" or not begin.isdecimal() or int(begin) != offset:
        raise MessageError(
            f"{where}: asked for the bytes from {offset} on, got Content-Range {content_range[:80]!r}: starting over"
        )
