"""From a wish to its cut: what was answered before at once, all else by the search queue, in the time allowed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from fastapi.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from cloud_pruner.asked import Asked
from cloud_pruner.errors import CertificationError, PrunerError
from cloud_pruner.requests import PruneRequest
from cloud_pruner.service.admission import waiting

if TYPE_CHECKING:
    from concurrent.futures import Future

    from cloud_pruner.personalized import Personalized
    from cloud_pruner.service.catalogue import ServedProfile
    from cloud_pruner.service.parts import ServiceParts
    from edge_runtime.signing import SignedManifest
    from edge_runtime.wire import PersonalizeRequest

__all__ = ["SlowError", "check_base", "personalized", "release", "request_of", "search", "signed_answer"]


class SlowError(PrunerError):
    """A search takes longer than a request may wait; it goes on.

    Attributes
    ----------
    retry_after_s
        When to ask again.
    """

    def __init__(self, retry_after_s: int) -> None:
        super().__init__("the search takes longer than a request may wait, and goes on: ask again")
        self.retry_after_s = retry_after_s


def request_of(wish: PersonalizeRequest, guarantee: str) -> PruneRequest:
    """Return what a device asks for; `guarantee` where it names none.

    Raises
    ------
    RequestError
        A wish makes no sense.
    """
    wishes: dict[str, Any] = {
        "variant": wish.variant,
        "epsilon": wish.epsilon,
        "guarantee": wish.guarantee or guarantee,
        "delta": wish.delta,
    }
    return PruneRequest(wish.usage, **{name: value for name, value in wishes.items() if value is not None})


def check_base(wish: PersonalizeRequest, served: ServedProfile) -> None:
    """Raise HTTPException, 409, unless the device holds the base model that is cut for it."""
    if wish.base != served.base.digest:
        ours, theirs = served.base.digest[:12], wish.base[:12]
        raise HTTPException(409, f"this service cuts base model {ours}…, the device holds {theirs}…: fetch /v1/base")


async def personalized(parts: ServiceParts, served: ServedProfile, request: PruneRequest) -> Personalized:
    """Return the cut that answers `request`; neither are its files released nor is it recorded.

    Raises
    ------
    RequestError
        The wish makes no sense, or cannot be met.
    BusyError
        Too many searches wait.
    SlowError
        It is not found within `limits.request_s`.
    """
    found = await run_in_threadpool(served.personalizer.exact, request)
    return found if found is not None else await _searched(parts, served, request)


async def signed_answer(
    parts: ServiceParts, served: ServedProfile, request: PruneRequest, device: str
) -> tuple[Personalized, SignedManifest]:
    """Return the same, signed, once its files can be had and it stands in the history of `device`.

    Raises
    ------
    RequestError, BusyError, SlowError
        As `personalized`.
    StateError, SigningKeyError
        It cannot be kept, or not be signed: it must not be sent.
    """

    def remembered() -> tuple[Personalized, SignedManifest] | None:
        found = served.personalizer.exact(request)
        return None if found is None else sign(found)

    def sign(found: Personalized) -> tuple[Personalized, SignedManifest]:
        release(parts, found, device)
        return found, parts.signer.sign(found.manifest)

    # One change of threads for what is asked for most: it costs more than most of what is done in it.
    answer = await run_in_threadpool(remembered)
    return answer if answer is not None else await run_in_threadpool(sign, await _searched(parts, served, request))


def release(parts: ServiceParts, found: Personalized, device: str) -> None:
    """Make the files that an answer names ready to be fetched, and record it: from then on it may be sent."""
    parts.files.release(found)
    parts.history.record(device, found)


def search(parts: ServiceParts, served: ServedProfile, request: PruneRequest) -> Future[Personalized]:
    """Queue a search; raises as `personalized`, at once or by the future."""
    asked = Asked.of(served.profile, request)

    def work() -> Personalized:
        try:
            found = served.personalizer.personalize(request)
        except CertificationError:
            parts.metrics.certificate_failed("refused")
            raise
        if found.shortfall:
            parts.metrics.certificate_failed("shortfall")
        if found.manifest.cache_tier == "search":
            parts.metrics.searched(found.seconds)
        return found

    # Weights are told apart also where the method ignores them: an answer states those that it is for.
    return parts.searches.submit(f"{asked.key} {sorted(asked.weights.items())}", work)


async def _searched(parts: ServiceParts, served: ServedProfile, request: PruneRequest) -> Personalized:
    future = asyncio.wrap_future(search(parts, served, request))
    try:
        with waiting():
            return await asyncio.wait_for(asyncio.shield(future), parts.settings.limits.request_s)
    except asyncio.TimeoutError:
        # Nobody will look at what becomes of it: it is remembered all the same.
        future.add_done_callback(lambda done: done.cancelled() or done.exception())
        raise SlowError(parts.searches.retry_after_s) from None
    except asyncio.CancelledError:
        if future.cancelled():  # the queue was closed
            raise SlowError(1) from None
        raise
