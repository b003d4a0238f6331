"""A device of the demo with a user in front of it: shows it images over its local API, and notices what it does."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import httpx

from cloud_pruner.demo.errors import DemoError
from cloud_pruner.demo.processes import ServerProcess, capnn_edge
from edge_runtime.errors import EdgeError
from edge_runtime.slots import ModelSlots

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import TracebackType

    from typing_extensions import Self

    from cloud_pruner.progress import Progress
    from edge_runtime.slots import StoredModel

__all__ = ["AUDIT_EVERY", "PERIOD", "Device", "Mark", "Swap", "Timeline"]

PERIOD: Final = 200
"""Counted predictions in a monitoring period of the demo's devices."""

AUDIT_EVERY: Final = 3
"""While a cut serves, every third image is audited: more than a device in the field needs; the demo is short."""

_RETRY_S: Final = 0.5
_LOOK_EVERY: Final = 5
_REQUESTS_MAX: Final = 20 * PERIOD * AUDIT_EVERY
_PATIENCE_S: Final = 300.0
_READY_POLL_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that happened after `request` requests; `kind` is "swap", "phase" or "cloud stopped"."""

    request: int
    kind: str
    text: str


@dataclass(slots=True)
class Timeline:
    """What all devices answered, request by request, in order.

    Attributes
    ----------
    classes
        The class that each answered request was taken for.
    sizes
        Parameters of the model that was active, relative to the base's.
    failed
        Requests that were not answered, and are in neither list.
    """

    classes: list[str] = field(default_factory=list)
    sizes: list[float] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    failed: int = 0

    @property
    def answered(self) -> int:
        """How many requests were answered."""
        return len(self.classes)

    def mark(self, kind: str, text: str) -> None:
        """Note that something happens now."""
        self.marks.append(Mark(self.answered, kind, text))


@dataclass(frozen=True, slots=True)
class Swap:
    """A cut that began to serve.

    Attributes
    ----------
    model
        The device's word on it: `model` of `/v1/status`.
    seconds
        From the end of the monitoring period that made the device ask for it.
    """

    model: dict[str, Any]
    seconds: float


class Device:
    """A running `capnn-edge run` and its user; use as a context manager.

    Parameters
    ----------
    name
        Its name, also in logs.
    cloud, key
        Address of the service, and the key that it signs with.
    folder
        Where configuration and state go.
    log
        Where the device's output goes.
    timeline
        Where the answers are noted.

    Raises
    ------
    DemoError
        On entering: the device does not start, or does not fetch the base model in time.
    """

    def __init__(self, name: str, cloud: str, key: str, folder: Path, log: Path, timeline: Timeline) -> None:
        self.name = name
        self.state = folder / f"{name}-state"
        self._timeline = timeline
        self._config = folder / f"{name}.toml"
        self._config.write_text(
            f'state = "{self.state.name}"\ndevice = "{name}"\n'
            f'[cloud]\nurl = "{cloud}"\nkeys = ["{key}"]\nretry_first_s = {_RETRY_S}\n'
            f"[api]\nport = 0\n[monitor]\nperiod = {PERIOD}\naudit_every = {AUDIT_EVERY}\n"
        )
        self.process = ServerProcess(name, capnn_edge("run", "--config", str(self._config)), log)
        self._resources = ExitStack()
        self._http: httpx.Client
        self._model: dict[str, Any] = {}
        self._counted = 0
        self._looked_at = 0.0
        self._period_ended_at: float | None = None

    def __enter__(self) -> Self:
        with ExitStack() as resources:
            resources.enter_context(self.process)
            # A proxy from the environment would be asked for its own loopback address.
            self._http = resources.enter_context(
                httpx.Client(base_url=self.process.url, trust_env=False, timeout=_PATIENCE_S)
            )
            self._wait_for_base()
            self._resources = resources.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._resources.__exit__(kind, error, trace)

    def active_model(self) -> StoredModel:
        """Return the file and manifest of the model that serves, from the device's state folder.

        Raises
        ------
        DemoError
            There is none.
        """
        try:
            stored = ModelSlots(self.state).read(self._model["slot"])
        except EdgeError as error:
            raise DemoError(f"{self.name}: {error}") from error
        if stored is None or stored.manifest.digest != self._model["digest"]:
            raise DemoError(f"{self.name}: {self.state} does not hold the model that serves")
        return stored

    def status(self) -> dict[str, Any]:
        """Return `/v1/status`.

        Raises
        ------
        DemoError
            The device does not answer.
        """
        try:
            response = self._http.get("/v1/status")
            response.raise_for_status()
            fields: dict[str, Any] = response.json()
        except (httpx.HTTPError, ValueError) as error:
            reason = str(error) or type(error).__name__
            raise DemoError(
                f"{self.name} does not answer ({reason}); its log ends: {self.process.last_line()}"
            ) from error
        return fields

    def until_swapped(self, images: Iterator[bytes], progress: Progress) -> Swap:
        """Show images until a new cut serves; they go on while the device asks for it and makes it ready."""
        swaps: list[Swap] = []
        self._period_ended_at = None
        self._show_until(images, swaps, lambda _status: bool(swaps), "swap in a cut", progress)
        return swaps[0]

    def until_settled(self, images: Iterator[bytes], progress: Progress) -> list[Swap]:
        """Show images until a monitoring period ends without a wish for another cut; return the swaps before that."""
        swaps: list[Swap] = []
        seen = 0
        self._period_ended_at = None

        def settled(status: dict[str, Any]) -> bool:
            nonlocal seen
            if self._period_ended_at is None or status["state"] != "monitoring":
                return False
            if len(swaps) == seen:
                return True
            seen, self._period_ended_at = len(swaps), None
            return False

        self._show_until(images, swaps, settled, "settle on a cut", progress)
        return swaps

    def until_refused(self, images: Iterator[bytes], progress: Progress) -> dict[str, Any]:
        """Show images until the device has asked the cloud in vain, and a whole further period; return its status."""
        asked = self.status()["counters"]["cloud_requests"]
        last: dict[str, Any] = {}

        def refused(status: dict[str, Any]) -> bool:
            last.update(status)
            return status["counters"]["cloud_requests"] > asked and status["last_error"] is not None

        self._show_until(images, [], refused, "ask the cloud", progress)
        for number in range(PERIOD * AUDIT_EVERY):
            self._show(next(images), [])
            progress("images without the cloud", number + 1, PERIOD * AUDIT_EVERY)
        return last

    def _show_until(
        self,
        images: Iterator[bytes],
        swaps: list[Swap],
        done: Callable[[dict[str, Any]], bool],
        what: str,
        progress: Progress,
    ) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        for number in range(_REQUESTS_MAX):
            self._show(next(images), swaps)
            if number % _LOOK_EVERY == 0:
                if done(self._look()):
                    return
                progress("predictions counted", min(self._counted, PERIOD), PERIOD)
                if time.monotonic() > deadline:
                    break
        raise DemoError(
            f"{self.name} did not {what} within {number + 1} images; its log ends: {self.process.last_line()}"
        )

    def _show(self, image: bytes, swaps: list[Swap]) -> None:
        """Have one image classified, and note the answer; a new model that answers is a swap."""
        try:
            response = self._http.post(
                "/v1/classify", content=image, headers={"content-type": "application/octet-stream"}
            )
            response.raise_for_status()
            answer = response.json()
        except (httpx.HTTPError, ValueError) as error:
            self._timeline.failed += 1
            if not self.process.running:
                raise DemoError(f"{self.name} has ended; its log ends: {self.process.last_line()}") from error
            return
        if not answer["audited"] and answer["model"] != self._model["digest"]:
            self._note_swap(swaps)
        self._timeline.classes.append(answer["class"])
        self._timeline.sizes.append(self._model["relative_size"])

    def _note_swap(self, swaps: list[Swap]) -> None:
        now = time.monotonic()
        since = self._looked_at if self._period_ended_at is None else self._period_ended_at
        self._model = self.status()["model"]
        swaps.append(Swap(self._model, now - since))
        self._timeline.mark("swap", f"{100 * self._model['relative_size']:.0f} %")

    def _look(self) -> dict[str, Any]:
        """Ask for the status, and notice the end of a monitoring period."""
        before, self._looked_at = self._looked_at, time.monotonic()
        status = self.status()
        counted = status["monitoring"]["counted"]
        if counted < self._counted:
            self._period_ended_at = before
        self._counted = counted
        return status

    def _wait_for_base(self) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            status = self.status()
            if status["ready"]:
                self._model = status["model"]
                return
            if time.monotonic() > deadline:
                raise DemoError(f"{self.name} did not fetch the base model: {status['last_error']}")
            time.sleep(_READY_POLL_S)
