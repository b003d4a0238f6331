"""A device without its monitor: what it asks for is said by the test; and without its own thread, unless it is run."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING, Any

from edge_runtime.background import Background
from edge_runtime.classifier import EdgeClassifier
from edge_runtime.cloud_client import CloudClient
from edge_runtime.serving import Models, load_models
from edge_runtime.slots import ModelSlots
from edge_runtime.status import Records
from edge_runtime.updater import Updater
from tests.edge_runtime.tiny_models import EAST, WEST, picture

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from typing_extensions import Self

    from edge_runtime.config import EdgeConfig
    from edge_runtime.observation import Observation
    from edge_runtime.wire import Manifest

WEST_USAGE, EAST_USAGE = dict.fromkeys(WEST, 0.5), dict.fromkeys(EAST, 0.5)


class Wishes:
    """A monitor whose mind the test makes up."""

    def __init__(self) -> None:
        self.wish: dict[str, float] | None = None
        self.serves: tuple[str, str | None] | None = None
        self.refusals: list[dict[str, float]] = []
        self._due = False

    def want(self, usage: dict[str, float] | None) -> None:
        self.wish, self._due = usage, True

    def observe(self, _: Observation) -> bool:
        return self._due

    def status(self) -> dict[str, Any]:
        return {"counted": int(self._due), "period": 1}

    def decide(self) -> dict[str, float] | None:
        self._due = False
        return self.wish

    def refused(self, usage: dict[str, float]) -> None:
        self.refusals.append(usage)

    def serve(self, base: Manifest, cut: Manifest | None) -> None:
        self.serves = base.digest, None if cut is None else cut.digest
        self.wish = None


class Device:
    """A device without its threads."""

    def __init__(self, config: EdgeConfig) -> None:
        self.config = config
        config.state.mkdir(exist_ok=True)
        self.slots = ModelSlots(config.state)
        self.records = Records()
        self.monitor = Wishes()
        self.classifier = EdgeClassifier(
            load_models(self.slots)[0],
            observed=lambda observation: self.updater.observe(observation),  # noqa: PLW0108 - made below
            audit_every=0,
            failed=lambda model, error: self.updater.failed(model, error),  # noqa: PLW0108 - likewise
        )
        self.client = CloudClient(config.cloud, config.download)
        self.updater = Updater(
            config,
            self.slots,
            self.classifier,
            self.monitor,
            self.client,
            self.records,  # type: ignore[arg-type]
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.updater.close()
        self.client.close()

    @property
    def models(self) -> Models:
        return self.classifier.models

    @property
    def serving(self) -> str:
        assert self.models.active is not None
        return self.models.active.manifest.digest

    @property
    def status(self) -> dict[str, Any]:
        return self.updater.status()

    def show(self, labels: tuple[str, ...], count: int = 1) -> None:
        for number in range(count):
            self.classifier.classify(picture(labels[number % len(labels)]))

    def step(self) -> None:
        """Do what is due now, waiting for it if it is due in a moment."""
        time.sleep(self.updater.retry_in_s() or 0)
        self.updater.step()

    def want(self, usage: dict[str, float] | None) -> None:
        """Let the monitor want a cut for `usage`, and act on it."""
        self.monitor.want(usage)
        self.show(WEST)
        self.step()

    def step_until(self, condition: Callable[[], bool]) -> None:
        self.wait_until(condition, self.step)

    def wait_until(self, condition: Callable[[], bool], step: Callable[[], object] = lambda: time.sleep(0.01)) -> None:
        deadline = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline, f"what was waited for did not happen: {self.status}"
            step()

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Let a thread keep the models up to date, and another classify without a pause and without a failure."""
        errors: list[Exception] = []
        done = threading.Event()

        def step() -> float | None:
            self.updater.step()
            return self.updater.retry_in_s()

        def failed(error: Exception) -> float | None:
            errors.append(error)
            return None

        def classify() -> None:
            try:
                while not done.is_set():
                    self.classifier.classify(picture("north-west"))
                    keeping_up.wake()
            except Exception as error:  # noqa: BLE001 - whatever it is, it must reach the test
                errors.append(error)

        keeping_up = Background("updater", step, failed)
        client = threading.Thread(target=classify)
        keeping_up.start()
        client.start()
        try:
            yield
        finally:
            done.set()
            client.join()
            assert keeping_up.stop(60)
        assert errors == []
