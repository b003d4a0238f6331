"""Makes pages from templates, and answers everything of the dashboard with the headers that browsers are to obey."""

from __future__ import annotations

import logging
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fastapi.responses import HTMLResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.responses import Response

from cloud_pruner.dashboard.formats import FILTERS
from cloud_pruner.errors import NameTakenError, RequestError, StateError, UnknownNameError
from cloud_pruner.page_templates import page_templates
from cloud_pruner.service.one_line import one_line
from edge_runtime.digests import digest_of

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    import jinja2
    from starlette.requests import Request

    from cloud_pruner.service.metrics import ServiceMetrics

__all__ = ["ASSETS", "asset", "page_route", "render"]

ASSETS: Final = {
    "style.css": "text/css",
    "live.js": "text/javascript",
    "try.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}
"""Files that pages link to -> their media types."""

_FOLDER: Final = Path(__file__).parent
_HEADERS: Final = {
    "content-security-policy": "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cache-control": "no-store",
}
_HEADINGS: Final = {403: "Not allowed", 404: "Not found", 409: "Not any more", 503: "Not now"}
_STATE_RETRY_S: Final = 2

_log = logging.getLogger(__name__)


def page_route(metrics: ServiceMetrics) -> type[APIRoute]:
    """Return the kind of route that answers errors with a page, and counts those of the state."""

    class PageRoute(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handle = super().get_route_handler()

            async def answer(request: Request) -> Response:
                try:
                    response = await handle(request)
                except HTTPException as error:
                    response = _error(request, error.status_code, error.detail, dict(error.headers or {}))
                except RequestError as error:
                    response = _error(request, 400, str(error))
                except UnknownNameError as error:
                    response = _error(request, 404, str(error))
                except NameTakenError as error:
                    response = _error(request, 409, str(error))
                except StateError as error:
                    metrics.state_error()
                    _log.error("%s %s: %s", request.method, one_line(request.url.path), error)
                    response = _error(request, 503, str(error), {"retry-after": str(_STATE_RETRY_S)})
                for name, value in _HEADERS.items():
                    response.headers.setdefault(name, value)
                return response

            return answer

    return PageRoute


def render(
    request: Request, template: str, *, status: int = 200, headers: dict[str, str] | None = None, **values: Any
) -> Response:
    """Answer with a page.

    Parameters
    ----------
    request
        `request.state.operator`, where there is one, is who has signed in.
    values
        What the template shows.
    """
    operator = getattr(request.state, "operator", None)
    page = _environment().get_template(template)
    text = page.render(
        section=f"/{request.url.path.split('/')[1]}",
        signed_in=hasattr(request.state, "operator"),
        operator=operator,
        **values,
    )
    return HTMLResponse(text, status, headers)


def asset(name: str) -> Response:
    """Answer with a file that pages link to; its address changes with its content, so it may be kept.

    Raises
    ------
    HTTPException
        404: there is none of that name.
    """
    if name not in ASSETS:
        raise HTTPException(404, "the dashboard has no such file")
    headers = {"cache-control": "public, max-age=31536000, immutable"}
    return Response(_content(name), 200, headers, ASSETS[name])


def _error(request: Request, status: int, reason: str, headers: dict[str, str] | None = None) -> Response:
    return render(
        request,
        "error.html",
        status=status,
        headers=headers,
        heading=_HEADINGS.get(status, "This did not work"),
        reason=reason,
    )


@cache
def _content(name: str) -> bytes:
    return (_FOLDER / name).read_bytes()


@cache
def _environment() -> jinja2.Environment:
    environment = page_templates(_FOLDER)
    environment.filters |= FILTERS
    environment.globals["asset"] = lambda name: f"/dashboard/{name}?{digest_of(_content(name))[:12]}"
    return environment
