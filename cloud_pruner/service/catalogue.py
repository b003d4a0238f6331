"""What is served: each model's profiles, and which of them a device gets by the rollout."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cloud_pruner.errors import ProfileError, StateError
from cloud_pruner.state.rollouts import profile_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cloud_pruner.personalize import Personalizer
    from cloud_pruner.profile import Profile
    from cloud_pruner.state.devices import Device
    from cloud_pruner.state.rollouts import Rollout, Rollouts
    from edge_runtime.wire import Manifest

__all__ = ["Catalogue", "ServedProfile"]

_REREAD_S: Final = 1.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class ServedProfile:
    """One version of a model: its name, what cuts it, and its base's manifest, unsigned."""

    model: str
    personalizer: Personalizer
    base: Manifest

    @property
    def profile(self) -> Profile:
        """The opened profile."""
        return self.personalizer.profile

    @property
    def digest(self) -> str:
        """The profile's digest."""
        return self.personalizer.profile.digest


class Catalogue:
    """All that is served. Rollouts are read again every second; while they cannot be, the last ones hold.

    Parameters
    ----------
    served
        Model -> its profiles, in the order of the settings.
    rollouts
        Which of them are current and candidate. A profile there that is not served counts as not being there.
    clock
        Says the time in s.

    Raises
    ------
    ProfileError
        A model has no profile, or the same twice.
    StateError
        The rollouts cannot be read.
    """

    def __init__(
        self,
        served: Mapping[str, Sequence[ServedProfile]],
        rollouts: Rollouts,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._served = {model: {one.digest: one for one in versions} for model, versions in served.items()}
        for model, versions in served.items():
            if not versions or len(self._served[model]) < len(versions):
                raise ProfileError(f"models.{model}: needs profiles that differ: name each once")
        self._rollouts, self._clock = rollouts, clock
        self._known: dict[str, tuple[float, Rollout | None]] = {}
        for model, by_digest in self._served.items():
            rollouts.begin(model, *by_digest)
            self._read(model)

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the models, in the order of the settings."""
        return tuple(self._served)

    def all(self) -> tuple[ServedProfile, ...]:
        """Return every profile of every model."""
        return tuple(one for versions in self._served.values() for one in versions.values())

    def profiles(self, model: str) -> tuple[ServedProfile, ...]:
        """Return the profiles of one model, in the order of the settings; none for an unknown one."""
        return tuple(self._served.get(model, {}).values())

    def for_device(self, device: Device | None, model: str = "") -> ServedProfile:
        """Return what a device gets of its own model, or somebody without a name of `model`; "": the first model.

        Raises
        ------
        KeyError
            There is no such model.
        """
        name = (device.model if device is not None else model) or self.models[0]
        versions = self._served[name]
        rollout = self._rollout(name)
        if rollout is None:
            return next(iter(versions.values()))
        digest = rollout.current if device is None else profile_of(rollout, device.name)
        return versions.get(digest) or versions.get(rollout.current) or next(iter(versions.values()))

    def for_base(self, digest: str) -> ServedProfile:
        """Return the current profile of the first model with this base model; of the first model where none has it."""
        current = [self.for_device(None, model) for model in self.models]
        return next((one for one in current if one.base.digest == digest), current[0])

    def _rollout(self, model: str) -> Rollout | None:
        read_at, rollout = self._known[model]
        return rollout if self._clock() - read_at < _REREAD_S else self._read(model)

    def _read(self, model: str) -> Rollout | None:
        former = self._known.get(model)
        try:
            rollout = self._rollouts.get(model)
        except StateError as error:
            if former is None:
                raise
            rollout = former[1]
            _log.warning("rollout of %s cannot be read, the last known one holds: %s", model, error)
        self._known[model] = (self._clock(), rollout)
        return rollout
