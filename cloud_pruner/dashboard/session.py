"""Who may see the dashboard: operators, by a cookie that holds their token; anybody where tokens are not required."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl, quote

from fastapi.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request  # noqa: TC002 - FastAPI reads the annotation
from starlette.responses import RedirectResponse

from cloud_pruner.dashboard.pages import render
from cloud_pruner.service.access import SESSION_COOKIE
from edge_runtime.http_server import bounded_body

if TYPE_CHECKING:
    from starlette.responses import Response

    from cloud_pruner.service.access import Access
    from cloud_pruner.state import Operators

__all__ = ["Session", "check_same_origin", "form_of"]

_FORM_BYTES_MAX: Final = 1 << 14
_SCHEMES: Final = ("http", "https")
_DAY_S: Final = 24 * 60 * 60


async def form_of(request: Request) -> dict[str, str]:
    """Return the fields of a form that was sent; of several of one name the last.

    Raises
    ------
    HTTPException
        403: another site sent it. 413: it is too long. 400: it is no form.
    """
    check_same_origin(request)
    body = await bounded_body(request, _FORM_BYTES_MAX, "send the page's own form")
    try:
        return dict(parse_qsl(body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=64))
    except ValueError as error:
        raise HTTPException(400, "this is no form: send the page's own") from error


def check_same_origin(request: Request) -> None:
    """Raise HTTPException 403 unless a page of this service sent the request, by what browsers say of it."""
    site = request.headers.get("sec-fetch-site")
    origin = request.headers.get("origin")
    # Browsers leave the first out where the connection is not private, and never both with a POST. A proxy that speaks
    # TLS for the service changes the scheme.
    if not (site == "same-origin" if site else origin in {f"{scheme}://{request.url.netloc}" for scheme in _SCHEMES}):
        raise HTTPException(403, "another site sent this: use the form of the page itself")


class Session:
    """Signs operators in and out.

    Parameters
    ----------
    access
        Says who calls.
    operators
        Whose tokens are known.
    """

    def __init__(self, access: Access, operators: Operators) -> None:
        self._access = access
        self._operators = operators

    async def check(self, request: Request) -> None:
        """Let operators pass, and anybody where tokens are not required; the others are sent to sign in.

        Raises
        ------
        HTTPException
            303 to `/login`; 401 for events, which no page shows.
        """
        try:
            caller = await self._access.caller(request)
        except HTTPException as error:
            if error.status_code != 401:
                raise
        else:
            if caller.may_operate:
                request.state.operator = caller.operator
                return
        if request.url.path == "/live":
            raise HTTPException(401, "sign in first")
        asked = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        after = f"?next={quote(asked, safe='')}" if request.method == "GET" and asked != "/" else ""
        raise HTTPException(303, "sign in first", {"location": f"/login{after}"})

    def form(self, request: Request) -> Response:
        """Show the form to sign in with."""
        if not self._access.required:
            return RedirectResponse("/", 303)
        return render(request, "login.html", next=_own(request.query_params.get("next", "/")), refused="")

    async def sign_in(self, request: Request) -> Response:
        """Remember the token in a cookie that no script and no other site's page can use."""
        form = await form_of(request)
        token, after = form.get("token", "").strip(), _own(form.get("next", "/"))
        if await run_in_threadpool(self._operators.by_token, token) is None:
            refused = "this is no operator's token; a device's own is none, and one that was revoked no longer is"
            return render(request, "login.html", status=403, next=after, refused=refused)
        response = RedirectResponse(after, 303)
        response.set_cookie(
            SESSION_COOKIE,
            token,
            max_age=_DAY_S,
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )
        return response

    async def sign_out(self, request: Request) -> Response:
        """Forget the token."""
        check_same_origin(request)
        response = RedirectResponse("/login", 303)
        response.delete_cookie(SESSION_COOKIE, httponly=True, samesite="strict")
        return response


def _own(address: str) -> str:
    """Return an address of this service, the fleet's page where it is another's."""
    is_own = address.startswith("/") and not address.startswith(("//", "/\\")) and address.isprintable()
    return address if is_own else "/"
