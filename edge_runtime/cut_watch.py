"""The active cut on probation: from its first image to the verdict, and over restarts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from edge_runtime.probation import KEPT, Probation, RecentAnswers, measure_baseline

if TYPE_CHECKING:
    from edge_runtime.config import ProbationConfig
    from edge_runtime.errors import ModelFileError
    from edge_runtime.observation import Observation
    from edge_runtime.serving import Models, ServingModel
    from edge_runtime.slots import ModelSlots
    from edge_runtime.wire import Manifest

__all__ = ["CutWatch"]

# Images between two writes of how it goes.
_SAVED_EVERY: Final = 50


class CutWatch:
    """Watches one cut at a time, or none. `observe` and `failed` are for any thread, the rest is for one.

    Parameters
    ----------
    slots
        Where a probation is kept.
    """

    def __init__(self, config: ProbationConfig, slots: ModelSlots) -> None:
        self._config = config
        self._slots = slots
        self._recent = RecentAnswers(config.confidence)
        self._watched: tuple[str, Probation] | None = None
        self._saved = 0

    @property
    def active(self) -> bool:
        """Whether a cut is on probation."""
        return self._watched is not None

    def to_fields(self) -> dict[str, Any] | None:
        """Return how far it has come, as plain values; None without a cut on probation."""
        watched = self._watched
        return None if watched is None else {"images": watched[1].images, "of": self._config.images}

    def resume(self, cut: Manifest) -> None:
        """Go on with what was kept of the probation of `cut`, if it is on one.

        Raises
        ------
        MessageError
            What was kept cannot be used.
        """
        kept = self._slots.probation(cut.digest)
        if kept is not None:
            self._watched = cut.digest, Probation.from_fields(self._config, cut, kept)

    def prepared(self, cut: Manifest, models: Models) -> Probation:
        """Return the probation of a cut that is to follow `models`, which are timed for it; it has not begun.

        Raises
        ------
        ModelFileError
            They fail.
        """
        return Probation(self._config, cut, measure_baseline(models, self._recent))

    def begin(self, cut: Manifest, probation: Probation | None) -> None:
        """Watch `cut` from now on; None: it needs no probation."""
        self._watched = None if probation is None else (cut.digest, probation)
        self._saved = 0

    def observe(self, observation: Observation) -> bool:
        """Take in an answer; return whether there is something to `judge` or to keep."""
        self._recent.observe(observation)
        watched = self._watched
        if watched is None:
            return False
        _, probation = watched
        probation.observe(observation)
        return probation.verdict is not None or probation.images >= self._saved + _SAVED_EVERY

    def failed(self, model: ServingModel, error: ModelFileError) -> bool:
        """Take in that a cut failed on an image; return whether that is the one on probation."""
        watched = self._watched
        if watched is None or watched[0] != model.manifest.digest:
            return False
        watched[1].fail(error)
        return True

    def judge(self) -> str | None:
        """Return why the cut must go, if it must. Its probation is over then, and where it is kept for good.

        Raises
        ------
        OSError
            What there is to keep cannot be written.
        """
        if self._watched is None:
            return None
        _, probation = self._watched
        verdict = probation.verdict
        if verdict is None:
            if probation.images >= self._saved + _SAVED_EVERY:
                self.save()
            return None
        self._watched = None
        if verdict != KEPT:
            return verdict
        self._slots.end_probation()
        return None

    def save(self, *, stopped: bool = False) -> None:
        """Keep how far it has come; `stopped`: the process ends, and cleanly.

        Raises
        ------
        OSError
            It cannot be written.
        """
        if self._watched is not None:
            digest, probation = self._watched
            self._saved = probation.images
            self._slots.save_probation(digest, probation.to_fields(), stopped=stopped)

    def drop(self) -> None:
        """Watch nothing more: the cut went with its base.

        Raises
        ------
        OSError
            That cannot be written.
        """
        if self._watched is not None:
            self._watched = None
            self._slots.end_probation()
