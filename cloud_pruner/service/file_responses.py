"""Files over HTTP, in whole or from where an earlier transfer broke off (RFC 9110, 14)."""

from __future__ import annotations

import gzip
import re
from typing import TYPE_CHECKING, Final

from starlette.exceptions import HTTPException
from starlette.responses import Response, StreamingResponse

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

__all__ = ["file_response"]

# Handed to the connection one at a time: what a slow client has not taken yet is not copied for it.
_PIECE: Final = 1 << 18
_KIND: Final = "application/octet-stream"
# A file never changes; what one device was told of is not for the next one.
_FOR_EVER: Final = "private, max-age=31536000, immutable"
_GZIP_MAX: Final = 1 << 16
_GZIP_LEVEL: Final = 6
_GZIP_SHARE: Final = 0.9
_ONE_RANGE: Final = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


def file_response(content: bytes | memoryview, digest: str, request: Mapping[str, str]) -> tuple[Response, int]:
    """Answer a GET with the headers `request`: all of `content`, or the one range that is asked for.

    Several ranges at once, and whatever is no range, are answered with all of it. Return also how many bytes of it
    are sent.

    Raises
    ------
    HTTPException
        416: the range begins behind the end.
    """
    tag = f'"{digest}"'
    headers = {
        "accept-ranges": "bytes",
        "etag": tag,
        "cache-control": _FOR_EVER,
        "vary": "authorization, accept-encoding",
    }
    if _is_known(request.get("if-none-match", ""), tag):
        return Response(status_code=304, headers=headers), 0
    asked = _asked(request.get("range", ""), len(content)) if request.get("if-range", tag) == tag else None
    if asked is None:
        return _whole(content, tag, headers, request), len(content)
    start, stop = asked
    if start >= stop:
        raise HTTPException(
            416,
            f"the file has {len(content)} bytes: ask for a part of them",
            {"content-range": f"bytes */{len(content)}"},
        )
    headers |= {"content-length": str(stop - start), "content-range": f"bytes {start}-{stop - 1}/{len(content)}"}
    part = memoryview(content)[start:stop]
    return StreamingResponse(_pieces(part), 206, headers, media_type=_KIND), stop - start


def _whole(content: bytes | memoryview, tag: str, headers: dict[str, str], request: Mapping[str, str]) -> Response:
    if len(content) <= _GZIP_MAX and _takes_gzip(request.get("accept-encoding", "")):
        packed = gzip.compress(content, _GZIP_LEVEL, mtime=0)
        if len(packed) < _GZIP_SHARE * len(content):
            # Other bytes than those that a range counts, so another tag.
            headers |= {"content-encoding": "gzip", "etag": f'{tag[:-1]}-gzip"'}
            return Response(packed, 200, headers, media_type=_KIND)
    headers |= {"content-length": str(len(content))}
    return StreamingResponse(_pieces(memoryview(content)), 200, headers, media_type=_KIND)


def _is_known(header: str, tag: str) -> bool:
    """Return whether `If-None-Match` names the file, compressed or not."""
    known = {part.strip().removeprefix("W/").replace('-gzip"', '"') for part in header.split(",")}
    return bool(known & {tag, "*"})


def _takes_gzip(header: str) -> bool:
    for part in header.lower().split(","):
        name, _, weight = part.partition(";")
        if name.strip() in {"gzip", "*"}:
            return not re.fullmatch(r"q=0(\.0*)?", weight.strip())
    return False


def _asked(text: str, length: int) -> tuple[int, int] | None:
    """Return start and stop of the range asked for, an empty one where the file has nothing of it; None without one."""
    found = _ONE_RANGE.fullmatch(text.strip())
    if found is None or found[0] == "bytes=-":
        return None
    if not found[1]:  # the last so many
        return max(0, length - int(found[2])), length
    start = int(found[1])
    stop = int(found[2]) + 1 if found[2] else length
    return None if found[2] and stop <= start else (start, min(stop, length))


async def _pieces(content: memoryview) -> AsyncIterator[memoryview]:
    for start in range(0, len(content), _PIECE):
        yield content[start : start + _PIECE]
