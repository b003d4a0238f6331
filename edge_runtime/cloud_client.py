"""Asks the cloud for the base model and for cuts of it, and lets through only answers that are what they say."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import httpx

from edge_runtime.errors import BaseChangedError, CloudError, CloudRefusedError, EdgeError, MessageError
from edge_runtime.messages import pack, unpack
from edge_runtime.slots import StoredModel
from edge_runtime.wire import MSGPACK, PersonalizeAnswer

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from edge_runtime.wire import PersonalizeRequest

__all__ = ["CloudClient"]

_ERROR_BYTES_MAX = 64 * 1024
_ERROR_TEXT_MAX = 300
# "Request timeout" and "too many requests": the only 4xx that pass by themselves.
_PASSING = (408, 429)


class CloudClient:
    """A connection to the cloud service at `url`. For one thread; blocks, at most `timeout_s` without a byte arriving.

    Parameters
    ----------
    url
        Address of the service, such as `https://capnn.example.org`.
    timeout_s
        How long to wait for the connection, and for each next piece of an answer, in s.
    answer_bytes_max
        Longer answers are refused.
    """

    def __init__(self, url: str, *, timeout_s: float = 10.0, answer_bytes_max: int = 1 << 30) -> None:
        self.url = url.rstrip("/")
        self._timeout_s = timeout_s
        self._answer_bytes_max = answer_bytes_max
        # Model files do not compress, and an answer that unpacks to gigabytes could not be bounded chunk by chunk.
        headers = {"accept": MSGPACK, "accept-encoding": "identity"}
        self._http = httpx.Client(timeout=timeout_s, headers=headers)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def base(self) -> StoredModel:
        """Fetch the base model.

        Raises
        ------
        CloudError
            The service is away or fails; `CloudRefusedError` where it refuses, `BaseChangedError` where that is because
            it cuts another base model.
        MessageError, DigestError
            Its answer breaks the wire contract, or was damaged on the way.
        """
        model = self._model("GET", "/v1/base", None)
        if not model.manifest.is_base:
            raise MessageError(
                f"{self.url}/v1/base: answered with a cut, not with a base model: is it the right service?"
            )
        return model

    def personalize(self, request: PersonalizeRequest) -> StoredModel:
        """Ask for a cut, with its file.

        Raises
        ------
        CloudError, MessageError, DigestError
            As `base`.
        """
        return self._model("POST", "/v1/personalize", pack(request.to_fields()))

    def _model(self, method: str, path: str, body: bytes | None) -> StoredModel:
        answer = PersonalizeAnswer.from_bytes(self._exchange(method, path, body))
        if answer.model is None:
            raise MessageError(f"{self.url}{path}: the answer holds no model file, though one was asked for")
        return StoredModel(answer.manifest, answer.model)

    def _exchange(self, method: str, path: str, body: bytes | None) -> bytes:
        where = f"{self.url}{path}"
        headers = {} if body is None else {"content-type": MSGPACK}
        try:
            with self._http.stream(method, where, content=body, headers=headers) as response:
                if response.status_code == httpx.codes.OK:
                    return _bounded(response, self._answer_bytes_max, where)
                content = _bounded(response, _ERROR_BYTES_MAX, where)
        except httpx.TimeoutException as error:
            message = (
                f"{where}: no answer within {self._timeout_s:g} s: is the service overloaded, or the network down?"
            )
            raise CloudError(message) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            reason = str(error) or type(error).__name__
            raise CloudError(f"{where}: cannot be reached ({reason}): check the network and the address") from error
        status = response.status_code
        message = f"{where}: answered {status} {response.reason_phrase}: {_error_text(content)}"
        if status == httpx.codes.CONFLICT:
            raise BaseChangedError(message)
        if 400 <= status < 500 and status not in _PASSING:
            raise CloudRefusedError(message)
        raise CloudError(message)


def _bounded(response: httpx.Response, limit: int, where: str) -> bytes:
    content = bytearray()
    for chunk in response.iter_bytes():
        content += chunk
        if len(content) > limit:
            raise CloudError(
                f"{where}: the answer is longer than {limit} bytes: raise answer_bytes_max if the model is that large"
            )
    return bytes(content)


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
    return " ".join(str(text).split())[:_ERROR_TEXT_MAX] if text else "no reason given"
