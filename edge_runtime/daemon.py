"""The device daemon without its HTTP face: a classifier that serves, and a thread that keeps it up to date."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_runtime.background import Background
from edge_runtime.classifier import EdgeClassifier, Prediction
from edge_runtime.cloud_client import CloudClient
from edge_runtime.errors import EdgeError
from edge_runtime.monitor import UsageMonitor
from edge_runtime.serving import Models, load_models
from edge_runtime.slots import ModelSlots
from edge_runtime.status import Records, model_fields
from edge_runtime.updater import Updater
from edge_runtime.usage_journal import UsageJournal

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from typing_extensions import Self

    from edge_runtime.config import EdgeConfig
    from edge_runtime.errors import ModelFileError
    from edge_runtime.observation import Observation
    from edge_runtime.serving import ServingModel

__all__ = ["EdgeDaemon"]

_STOP_WAIT_S = 5.0

_log = logging.getLogger(__name__)


class EdgeDaemon:
    """A running device: use as a context manager.

    Parameters
    ----------
    config
        The settings.

    Raises
    ------
    ConfigError
        On entering: the state folder is in use, or cannot be used.
    """

    def __init__(self, config: EdgeConfig) -> None:
        self.config = config
        self.records = Records()
        self._slots = ModelSlots(config.state)
        self._monitor = UsageMonitor(config.monitor, UsageJournal(config.state / "usage.journal"))
        self.classifier = EdgeClassifier(
            Models(), observed=self._observed, audit_every=config.monitor.audit_every, failed=self._failed
        )
        self._client = CloudClient(config.cloud, config.download)
        self._updater: Updater
        self._thread = Background("updater", self._keep_up, self._failed_to_keep_up)
        self._answered_before = 0

    def __enter__(self) -> Self:
        self._slots.lock()
        stopped = self._slots.start()
        if stopped is not None:
            self._say(EdgeError(stopped))
            self.records.add("rollbacks")
        models, damage = load_models(self._slots, threads=self.config.threads)
        for line in damage:
            self._say(EdgeError(f"{line}: it is not used"))
        if models.active is None:
            _log.warning(
                "no verified model in %s: fetching the base model from %s", self.config.state, self.config.cloud.url
            )
        self.classifier.swap(base=models.base, cut=models.cut)
        self._updater = Updater(self.config, self._slots, self.classifier, self._monitor, self._client, self.records)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._updater.stop()
        if self._thread.stop(_STOP_WAIT_S):
            self._updater.close()
            self._monitor.close()
            self._client.close()
            self._slots.unlock()

    @property
    def ready(self) -> bool:
        """Whether there is a model that serves."""
        return self.classifier.models.active is not None

    @property
    def alive(self) -> bool:
        """Whether the background thread runs."""
        return self._thread.alive

    def works(self) -> bool:
        """Whether the background thread runs and the models answer: tried, unless they did since the last call."""
        if not self.alive:
            return False
        models = self.classifier.models
        answered = self.records.count("classified")
        if answered != self._answered_before or models.active is None:
            self._answered_before = answered
            return True
        # As `EdgeClassifier` does: the base stands in for a cut that fails.
        return any(model is not None and _answers(model) for model in (models.cut, models.base))

    def classify(self, run: Callable[[EdgeClassifier], Prediction]) -> Prediction:
        """Classify by `run`, and count whether it went well.

        Raises
        ------
        InputError, ModelFileError
            As `EdgeClassifier.classify`.
        """
        try:
            prediction = run(self.classifier)
        except EdgeError:
            self.records.add("failed")
            raise
        self.records.add("classified")
        return prediction

    def status(self) -> dict[str, Any]:
        """Return the daemon's status: plain values, fit for JSON."""
        records, update = self.records.to_fields(), self._updater.status()
        return {
            "state": update.pop("state"),
            "ready": self.ready,
            "problem": self._problem(records["last_error"], update["retry_in_s"]),
            "model": model_fields(self.classifier.models),
            "monitoring": self._monitor.status(),
            "update": update,
            "cloud": self._client.url,
            **records,
        }

    def _problem(self, last_error: str | None, retry_in_s: float | None) -> str | None:
        """Return what is wrong now, in words; None while all is well."""
        if not self.alive:
            return "the background thread has ended: start the daemon anew"
        if not self.ready:
            return f"there is no model yet: {last_error or 'the base model is being fetched'}"
        return last_error if retry_in_s is not None else None

    def _observed(self, observation: Observation) -> None:
        self.records.inferred(observation.seconds)
        if self._updater.observe(observation):
            self._thread.wake()

    def _failed(self, model: ServingModel, error: ModelFileError) -> None:
        if self._updater.failed(model, error):
            self._thread.wake()

    def _keep_up(self) -> float | None:
        self._updater.step()
        return self._updater.retry_in_s()

    def _failed_to_keep_up(self, error: Exception) -> float | None:
        self.records.fail(error)
        self._updater.retry_later()
        return self._updater.retry_in_s()

    def _say(self, error: EdgeError) -> None:
        self.records.fail(error)
        _log.warning("%s", error)


def _answers(model: ServingModel) -> bool:
    try:
        model.probabilities(np.zeros(model.manifest.preprocessing.shape, dtype=np.uint8))
    except EdgeError:
        return False
    return True
