"""One step of a rollout, as a form of the dashboard says it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cloud_pruner.errors import NameTakenError, RequestError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from typing_extensions import Self

    from cloud_pruner.state import Rollout

__all__ = ["RolloutWish"]

_STEPS: Final = ("start", "widen", "finish", "take-back")


@dataclass(frozen=True, slots=True)
class RolloutWish:
    """What an operator wants.

    Attributes
    ----------
    step
        "start", "widen", "finish" or "take-back".
    candidate
        Digest of the profile that is to be tried, or is on trial.
    share
        Of the devices, in (0, 1]; 0 for steps without one.
    """

    step: str
    candidate: str
    share: float

    @classmethod
    def of(cls, fields: Mapping[str, str]) -> Self:
        """Read a form, in which the share is a percentage.

        Raises
        ------
        RequestError
            It names no step, or a share that is none.
        """
        step = fields.get("step", "")
        if step not in _STEPS:
            raise RequestError(f"'{step:.40}' is no step of a rollout: use the buttons of the model's page")
        share = _share(fields.get("share", "")) if step in {"start", "widen"} else 0.0
        return cls(step, fields.get("candidate", ""), share)

    def check(self, rollout: Rollout) -> None:
        """Raise NameTakenError where the rollout is no longer what the page showed."""
        if self.step != "start" and rollout.candidate != self.candidate:
            raise NameTakenError(
                f"profile {self.candidate:.12}… of model {rollout.model} is not on trial any more: load the page again"
            )


def _share(text: str) -> float:
    try:
        percent = float(text)
    except ValueError:
        percent = 0.0
    if not 0.0 < percent <= 100.0:
        raise RequestError(f"'{text:.40}' is no share of the devices: write a percentage above 0, up to 100")
    return percent / 100.0
