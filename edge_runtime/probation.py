"""Whether a new cut keeps what it promised, judged on the first images that it answers here.

Rules
-----
A cut on probation is given up

1. when it fails on an image;
2. when the median time of its inferences is too long. What to expect follows from the base model's time, measured when
   the probation begins and by audits while it lasts: a cut has at most the base's work, and one of a share r of the
   base's parameters should need about the square root of r of its time (halving the channels of every layer leaves a
   quarter of both parameters and work). It may take `latency_factor` times that; and always a quarter more than the
   base, since parameters say little of work: a network's last layers have most of the ones, its first of the other.
   Less than 10 ms more than the base nobody notices, and threads of one process take that from each other;
3. when the share of doubtful answers, less probable than `confidence`, exceeds the former model's by more than
   `doubtful_jump` beyond what chance explains: the lower limit of the difference does (Newcombe, Statistics in Medicine
   17 (1998), method 10, on Wilson's limits).

Rules 2 and 3 are looked at after a quarter, half and all of `images`, not after each: with every look chance gets
another try. What is found at the last look without a reason stays: the cut is kept.

Everything here is pure but `measure_baseline`, which runs a model.
"""

from __future__ import annotations

import math
import statistics
import threading
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from edge_runtime.messages import field
from edge_runtime.self_test import self_test_images

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edge_runtime.config import ProbationConfig
    from edge_runtime.errors import EdgeError
    from edge_runtime.observation import Observation
    from edge_runtime.serving import Models
    from edge_runtime.wire import Manifest

__all__ = ["KEPT", "Baseline", "Probation", "RecentAnswers", "measure_baseline"]

KEPT: Final = "kept"
"""The verdict of a probation without a reason against the cut."""

# One-sided, of each look: three looks at a difference of exactly `doubtful_jump` come to 1 %.
_Z: Final = 2.7
_SLOWER_THAN_BASE: Final = 1.25
_UNNOTICED_S: Final = 0.01
_RECENT: Final = 500
_TIMED_RUNS: Final = 9
_AUDITS_MIN: Final = 3


@dataclass(frozen=True, slots=True)
class Baseline:
    """What a new cut is compared with.

    Attributes
    ----------
    images, doubtful
        Recent answers of the former model, and how many of them were doubtful.
    seconds
        Median time of an inference of the base, or of the former model where there is no base; in s.
    relative_size
        That model's number of parameters, relative to the base's.
    """

    images: int
    doubtful: int
    seconds: float
    relative_size: float

    def to_fields(self) -> dict[str, Any]:
        """Return the figures as plain values."""
        return {
            "images": self.images,
            "doubtful": self.doubtful,
            "seconds": self.seconds,
            "relative_size": self.relative_size,
        }

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Baseline:
        """Read the figures, or raise MessageError naming the field that is wrong."""
        where = "baseline"
        return cls(
            images=field(fields, "images", int, where),
            doubtful=field(fields, "doubtful", int, where),
            seconds=field(fields, "seconds", float, where),
            relative_size=field(fields, "relative_size", float, where),
        )


class RecentAnswers:
    """How doubtful the last answers of the model that serves were. Safe for use by several threads.

    Parameters
    ----------
    confidence
        Answers less probable than this are doubtful.
    """

    def __init__(self, confidence: float) -> None:
        self._confidence = confidence
        self._lock = threading.Lock()
        self._digest = ""
        self._doubts: deque[bool] = deque(maxlen=_RECENT)

    def observe(self, observation: Observation) -> None:
        """Take in an answer; another model's than the last one's starts over. Audits are not counted."""
        if observation.audited:
            return
        with self._lock:
            if observation.manifest.digest != self._digest:
                self._digest = observation.manifest.digest
                self._doubts.clear()
            self._doubts.append(observation.confidence < self._confidence)

    def counts(self, digest: str) -> tuple[int, int]:
        """Return of how many recent answers of the model `digest` how many were doubtful."""
        with self._lock:
            return (len(self._doubts), sum(self._doubts)) if digest == self._digest else (0, 0)


def measure_baseline(models: Models, recent: RecentAnswers) -> Baseline:
    """Return what the cut that follows these models is to be compared with; runs the base, or else the cut.

    Raises
    ------
    ModelFileError
        The model fails.
    """
    reference, former = models.base or models.cut, models.active
    if reference is None or former is None:
        return Baseline(0, 0, 0.0, 1.0)
    image = self_test_images(0, 1, reference.manifest.preprocessing.shape)[0]
    seconds = statistics.median(reference.run(image)[1] for _ in range(_TIMED_RUNS))
    return Baseline(*recent.counts(former.manifest.digest), seconds, reference.manifest.relative_size)


class Probation:
    """The probation of one cut. Safe for use by several threads.

    Parameters
    ----------
    config
        The limits.
    cut
        Manifest of the cut.
    former
        What it is compared with.
    """

    def __init__(self, config: ProbationConfig, cut: Manifest, former: Baseline) -> None:
        self._config = config
        self._cut = cut
        self._former = former
        self._lock = threading.Lock()
        self._images = 0
        self._doubtful = 0
        self._seconds: deque[float] = deque(maxlen=_RECENT)
        self._audit_seconds: deque[float] = deque(maxlen=_RECENT)
        self._verdict: str | None = None
        self._looks = sorted({math.ceil(config.images * part) for part in (0.25, 0.5, 1.0)})

    @property
    def verdict(self) -> str | None:
        """None while the probation lasts, then `KEPT`, or in one line why the cut must go."""
        return self._verdict

    @property
    def images(self) -> int:
        """How many images the cut has answered on probation."""
        return self._images

    def observe(self, observation: Observation) -> None:
        """Take in an answer; those of other models than the cut count only as audits."""
        with self._lock:
            if self._verdict is not None:
                return
            if observation.audited:
                self._audit_seconds.append(observation.seconds)
            elif observation.manifest.digest == self._cut.digest:
                self._images += 1
                self._seconds.append(observation.seconds)
                self._doubtful += observation.confidence < self._config.confidence
                if self._images in self._looks:
                    self._verdict = self._reason() or (KEPT if self._images == self._looks[-1] else None)

    def fail(self, error: EdgeError) -> None:
        """End the probation: the cut failed while it ran."""
        with self._lock:
            self._verdict = f"it failed on an image: {error}"

    def to_fields(self) -> dict[str, Any]:
        """Return what there is to keep over a restart, as plain values."""
        with self._lock:
            return {
                "former": self._former.to_fields(),
                "images": self._images,
                "doubtful": self._doubtful,
                "seconds": list(self._seconds),
                "audit_seconds": list(self._audit_seconds),
            }

    @classmethod
    def from_fields(cls, config: ProbationConfig, cut: Manifest, fields: Mapping[str, Any]) -> Probation:
        """Go on with a probation, or raise MessageError naming the field that is wrong."""
        where = "probation"
        probation = cls(config, cut, Baseline.from_fields(field(fields, "former", dict, where)))
        # The limits may have changed: the last look is still to come.
        probation._images = min(field(fields, "images", int, where), probation._looks[-1] - 1)
        probation._doubtful = field(fields, "doubtful", int, where)
        for name, kept in (("seconds", probation._seconds), ("audit_seconds", probation._audit_seconds)):
            kept.extend(field({name: value}, name, float, where) for value in field(fields, name, list, where))
        return probation

    def _reason(self) -> str | None:
        limit_s = self._seconds_max()
        median_s = statistics.median(self._seconds)
        if limit_s and median_s > limit_s:
            return (
                f"it takes {1000 * median_s:.1f} ms an image, at most {1000 * limit_s:.1f} ms were to be expected "
                f"from its size"
            )
        former = self._former
        jump = difference_at_least(self._doubtful, self._images, former.doubtful, former.images)
        if jump > self._config.doubtful_jump:
            return (
                f"{100 * self._doubtful / self._images:.0f} % of its answers are doubtful "
                f"(less probable than {self._config.confidence:g}), of the former model's "
                f"{100 * former.doubtful / former.images:.0f} % were"
            )
        return None

    def _seconds_max(self) -> float:
        reference_s = self._former.seconds
        if len(self._audit_seconds) >= _AUDITS_MIN:  # the device may have become busier, or hotter
            reference_s = max(reference_s, statistics.median(self._audit_seconds))
        share = math.sqrt(self._cut.relative_size / self._former.relative_size) if self._former.relative_size else 1.0
        times = max(self._config.latency_factor * share, _SLOWER_THAN_BASE)
        return max(reference_s * times, reference_s + _UNNOTICED_S)


def difference_at_least(doubtful: int, images: int, former_doubtful: int, former_images: int) -> float:
    """Return the lower confidence limit of the difference of two shares; -1 where one is of nothing."""
    if not images or not former_images:
        return -1.0
    share, former = doubtful / images, former_doubtful / former_images
    low, _ = _wilson(doubtful, images)
    _, high = _wilson(former_doubtful, former_images)
    return share - former - math.hypot(share - low, high - former)


def _wilson(hits: int, trials: int) -> tuple[float, float]:
    """Return the confidence limits of a share (Wilson, JASA 22 (1927))."""
    share, z2 = hits / trials, _Z * _Z
    middle = share + z2 / (2 * trials)
    reach = _Z * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials * trials))
    scale = 1 + z2 / trials
    return (middle - reach) / scale, (middle + reach) / scale
