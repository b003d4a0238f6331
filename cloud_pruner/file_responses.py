"""Files over HTTP, in whole or from where an earlier transfer broke off (RFC 9110, 14)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from starlette.exceptions import HTTPException
from starlette.responses import StreamingResponse

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from starlette.responses import Response

__all__ = ["file_response"]

# Handed to the connection one at a time: what a slow client has not taken yet is not copied for it.
_PIECE: Final = 1 << 18
_ONE_RANGE: Final = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


def file_response(content: bytes | memoryview, digest: str, request: Mapping[str, str]) -> Response:
    """Answer a GET with the headers `request`: all of `content`, or the one range that is asked for.

    Several ranges at once, and whatever is no range, are answered with all of it.

    Raises
    ------
    HTTPException
        416: the range begins behind the end.
    """
    tag = f'"{digest}"'
    headers = {"accept-ranges": "bytes", "etag": tag, "content-length": str(len(content))}
    asked = _asked(request.get("range", ""), len(content)) if request.get("if-range", tag) == tag else None
    if asked is None:
        return StreamingResponse(_pieces(memoryview(content)), 200, headers, media_type="application/octet-stream")
    start, stop = asked
    if start >= stop:
        raise HTTPException(
            416,
            f"the file has {len(content)} bytes: ask for a part of them",
            {"content-range": f"bytes */{len(content)}"},
        )
    headers |= {"content-length": str(stop - start), "content-range": f"bytes {start}-{stop - 1}/{len(content)}"}
    part = memoryview(content)[start:stop]
    return StreamingResponse(_pieces(part), 206, headers, media_type="application/octet-stream")


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
