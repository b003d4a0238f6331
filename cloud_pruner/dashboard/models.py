"""The pages of the models, and what operators do about their profiles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from fastapi.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request  # noqa: TC002 - FastAPI reads the annotation
from starlette.responses import RedirectResponse

from cloud_pruner.dashboard.pages import render
from cloud_pruner.dashboard.rollout_wish import RolloutWish
from cloud_pruner.dashboard.session import form_of
from cloud_pruner.errors import RequestError
from cloud_pruner.state import Rollout

if TYPE_CHECKING:
    from starlette.responses import Response

    from cloud_pruner.profile import Profile
    from cloud_pruner.service.catalogue import ServedProfile
    from cloud_pruner.service.parts import ServiceParts
    from edge_runtime.wire import Manifest

__all__ = ["ModelPages", "rollout_of"]

# Images that the base was not trained on.
_SPLIT: Final = "select"


@dataclass(frozen=True, slots=True)
class _Model:
    name: str
    classes: int
    base: Manifest
    rollout: Rollout


@dataclass(frozen=True, slots=True)
class _Version:
    """A profile; `accuracy` is the base's mean over classes, `serves` says whom it serves."""

    digest: str
    base: Manifest
    accuracy: float
    serves: str


@dataclass(frozen=True, slots=True)
class _Class:
    name: str
    images: int
    accuracy: float | None


class ModelPages:
    """Answers for the pages."""

    def __init__(self, parts: ServiceParts) -> None:
        self._parts = parts

    def overview(self, request: Request) -> Response:
        """Show all models."""
        catalogue = self._parts.catalogue
        models = []
        for name in catalogue.models:
            served = catalogue.for_device(None, name)
            models.append(_Model(name, len(served.profile.classes), served.base, rollout_of(self._parts, name)))
        return render(request, "models.html", models=models)

    def model(self, request: Request, name: str) -> Response:
        """Show a model: its profiles, who gets which, and what its base gets right of each class."""
        self._check(name)
        rollout = rollout_of(self._parts, name)
        served = self._parts.catalogue.profiles(name)
        current = next((one for one in served if one.digest == rollout.current), served[0])
        classes = _classes(current.profile)
        return render(
            request,
            "model.html",
            name=name,
            rollout=rollout,
            versions=[_version(one, rollout) for one in served],
            others=[one for one in served if one.digest != rollout.current],
            classes=classes,
            images=sum(row.images for row in classes),
        )

    def confirm(self, request: Request, name: str) -> Response:
        """Ask whether a step is really meant.

        Raises
        ------
        RequestError, NameTakenError
            It makes no sense, or does not any more.
        """
        self._check(name)
        wish, rollout = RolloutWish.of(request.query_params), rollout_of(self._parts, name)
        wish.check(rollout)
        if wish.candidate not in {one.digest for one in self._parts.catalogue.profiles(name)}:
            raise RequestError(f"'{wish.candidate:.12}' is no profile of model {name}: choose one on the model's page")
        return render(request, "confirm.html", name=name, wish=wish, rollout=rollout)

    async def change(self, request: Request, name: str) -> Response:
        """Do it, and show the model again; raises as `form_of`, `confirm` and `Rollouts`."""
        self._check(name)
        wish = RolloutWish.of(await form_of(request))
        await run_in_threadpool(self._take, name, wish)
        return RedirectResponse(f"/models/{name}", 303)

    def _take(self, name: str, wish: RolloutWish) -> None:
        rollouts = self._parts.rollouts
        wish.check(rollout_of(self._parts, name))
        if wish.step == "start":
            rollouts.start(name, wish.candidate, wish.share)
        elif wish.step == "widen":
            rollouts.widen(name, wish.share)
        elif wish.step == "finish":
            rollouts.finish(name)
        else:
            rollouts.take_back(name)

    def _check(self, name: str) -> None:
        if name not in self._parts.catalogue.models:
            raise HTTPException(404, f"no model '{name:.64}' is served")


def rollout_of(parts: ServiceParts, name: str) -> Rollout:
    """Return which profiles of a model are served; raises StateError."""
    known = parts.rollouts.get(name)
    return known or Rollout(name, parts.catalogue.for_device(None, name).digest, None, 0.0)


def _version(served: ServedProfile, rollout: Rollout) -> _Version:
    if served.digest == rollout.current:
        serves = "all devices" if rollout.candidate is None else "the other devices"
    elif served.digest == rollout.candidate:
        serves = f"{100 * rollout.share:.3g} % of the devices"
    else:
        serves = "nobody"
    accuracy = float(np.nanmean(served.profile.splits[_SPLIT].accuracy(len(served.profile.classes))))
    return _Version(served.digest, served.base, accuracy, serves)


def _classes(profile: Profile) -> list[_Class]:
    split = profile.splits[_SPLIT]
    counts = np.bincount(split.labels, minlength=len(profile.classes)).tolist()
    shares = split.accuracy(len(profile.classes)).tolist()
    return [
        _Class(name, images, share if images else None)
        for name, images, share in zip(profile.classes, counts, shares, strict=True)
    ]
