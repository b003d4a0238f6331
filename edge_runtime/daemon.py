"""The device daemon without its HTTP face: a classifier that serves, and a thread that keeps it up to date."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

from edge_runtime.classifier import EdgeClassifier, Prediction
from edge_runtime.cloud_client import CloudClient
from edge_runtime.errors import EdgeError
from edge_runtime.monitor import UsageMonitor
from edge_runtime.serving import Models, load_models
from edge_runtime.slots import ModelSlots
from edge_runtime.status import Records, model_fields
from edge_runtime.updater import Updater

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from typing_extensions import Self

    from edge_runtime.config import EdgeConfig

__all__ = ["SAVE_EVERY", "EdgeDaemon"]

SAVE_EVERY = 50
"""Counted predictions between two writes of the counts. As many, at most, are lost in a power cut; so is a request
that was still to be sent, until the next period ends."""

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
        self._slots = ModelSlots(config.state)
        self._records = Records()
        self._monitor = UsageMonitor(period=config.period, floor=config.floor, change=config.change)
        self.classifier = EdgeClassifier(Models(), counted=self._count, audit_every=config.audit_every)
        self._client = CloudClient(config.cloud, timeout_s=config.timeout_s, answer_bytes_max=config.answer_bytes_max)
        self._updater: Updater
        self._wake = threading.Event()
        self._stopping = threading.Event()
        # A daemon thread: where the network holds it longer than `_STOP_WAIT_S`, the process ends without it.
        self._thread = threading.Thread(target=self._keep_up, name="updater", daemon=True)

    def __enter__(self) -> Self:
        self._slots.lock()
        models, damage = load_models(self._slots, threads=self.config.threads)
        for line in damage:
            error = EdgeError(f"{line}: it is not used")
            self._records.fail(error)
            _log.warning("%s", error)
        if models.active is None:
            _log.warning(
                "no verified model in %s: fetching the base model from %s", self.config.state, self.config.cloud
            )
        self.classifier.swap(base=models.base, cut=models.cut)
        self._updater = Updater(self.config, self._slots, self.classifier, self._monitor, self._client, self._records)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._wake.set()
        self._thread.join(_STOP_WAIT_S)
        if not self._thread.is_alive():
            self._updater.save_counts()
            self._client.close()
            self._slots.unlock()

    @property
    def ready(self) -> bool:
        """Whether there is a model that serves."""
        return self.classifier.models.active is not None

    @property
    def alive(self) -> bool:
        """Whether the background thread runs."""
        return self._thread.is_alive()

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
            self._records.add("failed")
            raise
        self._records.add("classified")
        return prediction

    def status(self) -> dict[str, Any]:
        """Return the daemon's status: plain values, fit for JSON."""
        return {
            "state": self._updater.state,
            "ready": self.ready,
            "model": model_fields(self.classifier.models),
            "monitoring": {
                "counted": self._monitor.counted,
                "period": self._monitor.period,
                "usage": self._monitor.usage(),
            },
            "cloud": self._client.url,
            "retry_in_s": self._updater.retry_in_s(),
            **self._records.to_fields(),
        }

    def _count(self, label: str) -> None:
        counted = self._monitor.count(label)
        if counted % SAVE_EVERY == 0 or counted == self._monitor.period:
            self._wake.set()

    def _keep_up(self) -> None:
        while True:
            # Before looking at anything, not after the wait: what comes up meanwhile then ends the wait at once.
            self._wake.clear()
            if self._stopping.is_set():
                return
            try:
                self._updater.step()
                self._updater.save_counts()
            except Exception as error:  # noqa: BLE001 - without this thread the device would never be updated again
                _log.exception("an update failed unexpectedly")
                self._records.fail(error)
                self._updater.retry_later()
            self._wake.wait(self._updater.retry_in_s())
