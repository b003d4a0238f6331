"""The page to try a cut on, by hand."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from cachetools import LRUCache
from fastapi.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request  # noqa: TC002 - FastAPI reads the annotation

from cloud_pruner.dashboard.confusion import confusion_of
from cloud_pruner.dashboard.confusion_view import view_of
from cloud_pruner.dashboard.pages import render
from cloud_pruner.dashboard.wish_form import WishForm
from cloud_pruner.errors import CertificationError, RequestError
from cloud_pruner.methods import VARIANTS
from cloud_pruner.requests import GUARANTEES
from cloud_pruner.service.answering import SlowError, personalized
from cloud_pruner.service.searches import BusyError
from edge_runtime.flatmodel import PruningPlan

if TYPE_CHECKING:
    from starlette.responses import Response

    from cloud_pruner.dashboard.confusion import Confusion
    from cloud_pruner.dashboard.energy import EnergyRatios
    from cloud_pruner.personalized import Personalized
    from cloud_pruner.service.catalogue import ServedProfile
    from cloud_pruner.service.parts import ServiceParts

__all__ = ["TryPage"]

_CONFUSIONS: Final = 64
"""Remembered: whoever changes a wish back and forth need not wait again."""


@dataclass(frozen=True, slots=True)
class _Version:
    model: str
    digest: str
    chosen: bool


@dataclass(frozen=True, slots=True)
class _Choice:
    name: str
    weight: str | None


@dataclass(frozen=True, slots=True)
class _Problem:
    """Why there is no cut; `retry_s`: when to try again."""

    status: int
    heading: str
    reason: str
    retry_s: int | None = None


@dataclass(frozen=True, slots=True)
class _Result:
    answer: Personalized
    base_bytes: int
    energy: float | None


class TryPage:
    """Answers for the page.

    It waits for its turn like any device, neither releases files nor records anything.
    """

    def __init__(self, parts: ServiceParts, energies: EnergyRatios) -> None:
        self._parts, self._energies = parts, energies
        self._confusions: LRUCache[tuple[str, str, tuple[str, ...]], Confusion | None] = LRUCache(_CONFUSIONS)
        # Images are run for one visitor at a time, in one thread: the others are for devices.
        self._turn = asyncio.Lock()

    async def page(self, request: Request) -> Response:
        """Show the form and, once classes are chosen, the cut for them.

        Raises
        ------
        HTTPException
            404: the address names a profile that is not served.
        """
        form = WishForm.of(request.query_params, self._parts.settings.server.guarantee)
        served = await run_in_threadpool(self._served, form)
        shown: dict[str, Any] = {"summary": "Choose classes.", "problem": None, "result": None, "confusion": None}
        if form.weights:
            try:
                answer = await personalized(self._parts, served, form.request())
                async with self._turn:
                    shown |= await run_in_threadpool(self._shown, served, answer)
            except (RequestError, BusyError, SlowError) as error:
                if isinstance(error, BusyError):
                    self._parts.metrics.rejected("queue")
                problem = _problem(error)
                shown |= {"summary": "There is no cut.", "problem": problem}
        problem = shown["problem"]
        # A thousand classes take a while to write: other requests go on meanwhile.
        return await run_in_threadpool(
            render,
            request,
            "try.html",
            status=problem.status if problem else 200,
            headers={"retry-after": str(problem.retry_s)} if problem and problem.retry_s else None,
            form=form,
            versions=[_Version(one.model, one.digest, one is served) for one in self._parts.catalogue.all()],
            choices=[_Choice(*choice) for choice in form.choices(served.profile.classes)],
            guarantees=GUARANTEES,
            methods=tuple(VARIANTS.values()),
            **shown,
        )

    def _served(self, form: WishForm) -> ServedProfile:
        catalogue = self._parts.catalogue
        try:
            current = catalogue.for_device(None, form.model)
        except KeyError:
            raise HTTPException(404, f"no model '{form.model:.64}' is served") from None
        if not form.profile:
            return current
        for served in catalogue.profiles(current.model):
            if served.digest == form.profile:
                return served
        raise HTTPException(404, f"no profile '{form.profile:.12}' of model {current.model} is served")

    def _shown(self, served: ServedProfile, answer: Personalized) -> dict[str, Any]:
        manifest = answer.manifest
        confusion = self._confusion(served, answer)
        return {
            "summary": f"Cut to {100 * manifest.relative_size:.1f} % of the base's parameters.",
            "result": _Result(answer, served.base.bytes, self._energies.of_answer(answer)),
            "confusion": confusion and view_of(confusion, served.profile.classes, manifest.usage),
        }

    def _confusion(self, served: ServedProfile, answer: Personalized) -> Confusion | None:
        names = tuple(answer.manifest.usage)
        key = (served.digest, answer.manifest.digest, names)
        if key not in self._confusions:
            labels = sorted(served.profile.classes.index(name) for name in names)
            self._confusions[key] = confusion_of(served.profile, labels, PruningPlan.from_bytes(answer.plan).cuts)
        return self._confusions[key]


def _problem(error: RequestError | BusyError | SlowError) -> _Problem:
    if isinstance(error, BusyError):
        return _Problem(
            429, "Too busy now", f"{error}; a place should be free in {error.retry_after_s} s", error.retry_after_s
        )
    if isinstance(error, SlowError):
        return _Problem(503, "Not found yet", str(error), error.retry_after_s)
    if isinstance(error, CertificationError):
        return _Problem(400, "Nothing can be certified", str(error))
    return _Problem(400, "This cannot be cut", str(error))
