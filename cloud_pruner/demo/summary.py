"""What the demo found, phase by phase, and what it promises of that."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloud_pruner.demo.measure import Figures

__all__ = ["ACCURACY_LOSS_MAX", "RELATIVE_SIZE_MAX", "Phase", "Promise", "Summary"]

RELATIVE_SIZE_MAX: Final = 0.5
"""Largest cut, relative to the base, that the demo may show."""

ACCURACY_LOSS_MAX: Final = 0.03
"""Largest loss of top-1 accuracy on unseen images that it may show."""


@dataclass(frozen=True, slots=True)
class Phase:
    """A time in which a user's interests stay the same.

    Attributes
    ----------
    name, user, device
        What it is called, and who uses what.
    interests
        Class -> share of the images that the user shows.
    bytes, relative_size
        Length of the file that serves at the end of the phase, and its parameters relative to the base's.
    cache_tier
        Where it came from: "search", the tier of the cloud's cache, or "none" for the base model.
    seconds
        From the end of the device's monitoring period until the new model served: request, cut, transfer and checks.
        None where the model did not change.
    requests, failed
        Images classified, and images that were not.
    figures
        How that model compares with the base for these classes.
    """

    name: str
    user: str
    device: str
    interests: Mapping[str, float]
    bytes: int
    relative_size: float
    cache_tier: str
    seconds: float | None
    requests: int
    failed: int
    figures: Figures

    @property
    def is_cut(self) -> bool:
        """Whether a cut serves, not the base."""
        return self.cache_tier != "none"

    def to_fields(self) -> dict[str, Any]:
        """Return the phase as JSON has it."""
        return {
            "name": self.name,
            "user": self.user,
            "device": self.device,
            "classes": list(self.interests),
            "weights": list(self.interests.values()),
            "bytes": self.bytes,
            "relative_size": self.relative_size,
            "cache_tier": self.cache_tier,
            "seconds": self.seconds,
            "requests": self.requests,
            "failed": self.failed,
            **asdict(self.figures),
        }


@dataclass(frozen=True, slots=True)
class Promise:
    """A promise of the demo, and where it does not hold (None: it does)."""

    text: str
    broken: str | None


@dataclass(frozen=True, slots=True)
class Summary:
    """All of it.

    Attributes
    ----------
    images
        Purpose -> images of all classes.
    parameters, bytes
        Of the base model.
    base_accuracy
        Of the base model on the report's images of all classes.
    phases
        In order.
    stop_phase, second_user_phase
        Name of the phase that began with the stop of the cloud, and of that of the second user.
    cloud_error
        What the device's status said when it could not reach the cloud.
    seconds
        What the demo took.
    """

    seed: int
    images: Mapping[str, int]
    parameters: int
    bytes: int
    base_accuracy: float
    phases: tuple[Phase, ...]
    stop_phase: str
    second_user_phase: str
    cloud_error: str
    seconds: float

    @property
    def cuts(self) -> tuple[Phase, ...]:
        """The phases in which a cut serves."""
        return tuple(phase for phase in self.phases if phase.is_cut)

    def phase(self, name: str) -> Phase:
        """Return the phase called `name`."""
        return next(phase for phase in self.phases if phase.name == name)

    def promises(self) -> tuple[Promise, ...]:
        """Check what the demo promises."""
        after = self.phase(self.stop_phase)
        second = self.phase(self.second_user_phase)
        large = [p for p in self.cuts if p.relative_size > RELATIVE_SIZE_MAX]
        worse = [p for p in self.cuts if p.figures.accuracy_cut < p.figures.accuracy_base - ACCURACY_LOSS_MAX]
        failed = sum(phase.failed for phase in self.phases)
        return (
            Promise(
                f"every cut has at most {RELATIVE_SIZE_MAX:.0%} of the base's parameters",
                "; ".join(f"{p.name}: {p.relative_size:.1%}" for p in large) or None,
            ),
            Promise(
                f"no cut loses more than {100 * ACCURACY_LOSS_MAX:.0f} points of accuracy on unseen images",
                "; ".join(f"{p.name}: {_points(p)} points" for p in worse) or None,
            ),
            Promise(
                "the second user, who resembles the first, is served from the cache",
                None if second.cache_tier == "exact" else f"it came from {second.cache_tier}",
            ),
            Promise(
                "the device goes on when the cloud has stopped",
                None
                if after.requests > 0 and not after.failed
                else f"{after.requests} answered, {after.failed} failed",
            ),
            Promise("no request fails", f"{failed} failed" if failed else None),
        )

    def to_fields(self) -> dict[str, Any]:
        """Return the summary as JSON has it."""
        after = self.phase(self.stop_phase)
        return {
            "demo": "capnn",
            "seed": self.seed,
            "images": dict(self.images),
            "base": {
                "parameters": self.parameters,
                "bytes": self.bytes,
                "accuracy": self.base_accuracy,
            },
            "phases": [phase.to_fields() for phase in self.phases],
            "requests": {
                "answered": sum(phase.requests for phase in self.phases),
                "failed": sum(phase.failed for phase in self.phases),
            },
            "requests_after_cloud_stopped": {"answered": after.requests, "failed": after.failed},
            "cloud_error": self.cloud_error,
            "promises": [
                {"promise": promise.text, "holds": promise.broken is None, "broken": promise.broken}
                for promise in self.promises()
            ],
            "seconds": self.seconds,
        }


def _points(phase: Phase) -> str:
    return f"{100 * (phase.figures.accuracy_cut - phase.figures.accuracy_base):+.1f}"
