"""The demo's story: a user whose interests change three times, a second one like the first, a cloud that stops."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cloud_pruner.demo import network
from cloud_pruner.demo.device import Device, Swap, Timeline
from cloud_pruner.demo.errors import DemoError
from cloud_pruner.demo.measure import Meter
from cloud_pruner.demo.processes import ServerProcess, capnn
from cloud_pruner.demo.report import report_folder, write_report
from cloud_pruner.demo.summary import Phase, Summary
from cloud_pruner.demo.teller import FROM, Teller
from cloud_pruner.demo.users import CHANGES, FIRST, LAST, image_stream, interests_text
from cloud_pruner.signing_keys import generate

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import FrameType

    from cloud_pruner.profile import Profile
    from cloud_pruner.signing_keys import SigningKeys
    from edge_runtime.slots import StoredModel

__all__ = ["SEED", "tell_story"]

SEED: Final = 1
"""Of the split of the images, the network's first weights, and the users' streams."""

_STOP_PHASE: Final = "cloud stopped"
_SECOND_USER_PHASE: Final = "second user"


def tell_story(output: Path, *, as_json: bool, seed: int = SEED) -> int:
    """Play the demo, print what happens, write the report to `output`, and return 0.

    Raises
    ------
    DemoError
        As `cloud_pruner.demo.play`.
    """
    teller = Teller(to_stderr=as_json)
    with _ended_by_signals(), report_folder(output) as folder:
        with tempfile.TemporaryDirectory(prefix="capnn-demo-") as work, ExitStack() as running:
            story = _Story(teller, seed, Path(work), folder, running)
            summary = story.play()
        write_report(folder, summary, story.timeline)
    teller.table(summary)
    teller.tell(f"report: {output / 'report.html'} ({summary.seconds:.0f} s in all)")
    if as_json:
        print(json.dumps(summary.to_fields(), indent=2))
    broken = [f"{promise.text}: {promise.broken}" for promise in summary.promises() if promise.broken]
    if broken:
        raise DemoError(f"a promise of the demo does not hold: {'; '.join(broken)}")
    return 0


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the demo as an interrupt does: with all that it started."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, _frame: FrameType | None) -> None:
        sys.exit(128 + number)

    former = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


class _Story:
    """One telling. `running` is what its processes are entered into; logs go to `logs`, everything else to `work`."""

    def __init__(self, teller: Teller, seed: int, work: Path, logs: Path, running: ExitStack) -> None:
        self.timeline = Timeline()
        self._teller, self._seed = teller, seed
        self._work, self._logs = work, logs
        self._running = running
        self._images = network.load_images(seed)
        self._phases: list[Phase] = []
        self._began = (0, 0)
        self._meter: Meter

    def play(self) -> Summary:
        """Play it all, and return what was found.

        Raises
        ------
        DemoError
            A process does not start, end or do what it should.
        """
        start = time.monotonic()
        profile = self._prepare()
        keys = generate(self._work / "keys")
        service = self._running.enter_context(
            ServerProcess("service", _service(profile, keys), self._logs / "service.log")
        )
        self._teller.tell(f"service: serving on {service.url}")
        first = self._device("device-1", service, keys)
        self._turn("first cut", "user 1", first, FIRST, before="getting to know")
        for number, interests in enumerate(CHANGES, start=1):
            self._turn(f"change {number}", "user 1", first, interests)
        second = self._device("device-2", service, keys)
        self._turn(_SECOND_USER_PHASE, "user 2", second, FIRST)
        service.stop()
        self.timeline.mark("cloud stopped", "cloud stopped")
        self._teller.tell("service: stopped")
        cloud_error = self._without_cloud(first)
        base = profile.base
        return Summary(
            seed=self._seed,
            images={
                "train": len(self._images.train.labels),
                **{name: len(profile.splits[name].labels) for name in ("select", "certify")},
                "unseen": len(self._images.report.labels),
            },
            parameters=base.graph.parameters,
            bytes=len(base.content),
            base_accuracy=self._meter.base_accuracy,
            phases=tuple(self._phases),
            stop_phase=_STOP_PHASE,
            second_user_phase=_SECOND_USER_PHASE,
            cloud_error=cloud_error,
            seconds=time.monotonic() - start,
        )

    def _prepare(self) -> Profile:
        images, tell = self._images, self._teller.tell
        train, shown = network.IMAGES["train"], network.IMAGES["select"] + network.IMAGES["certify"]
        total = sum(len(part.labels) for part in (images.train, images.held_out, images.report))
        tell(
            f"images: {total} handwritten digits; of each, {train} to train on, {shown} to search with and to show, "
            f"the others to report on"
        )
        start = time.monotonic()
        trained = self._work / "digits.keras"
        with self._teller.bar("training") as progress:
            network.train(images.train, trained, self._seed, progress)
        tell(f"trained a small VGG-style network in {time.monotonic() - start:.1f} s")
        start = time.monotonic()
        with self._teller.bar("profiling") as progress:
            profile = network.make_profile(trained, images, self._work, progress)
        base = bytes(profile.base.content)
        self._meter = Meter(base, images.report, profile.preprocessing)
        tell(
            f"converted and profiled it in {time.monotonic() - start:.1f} s: "
            f"{profile.base.graph.parameters:,} parameters, {len(base):,} bytes, "
            f"{self._meter.base_accuracy:.1%} right on {len(images.report.labels)} unseen images"
        )
        return profile

    def _device(self, name: str, service: ServerProcess, keys: SigningKeys) -> Device:
        device = Device(name, service.url, keys.public, self._work, self._logs / f"{name}.log", self.timeline)
        self._running.enter_context(device)
        self._teller.tell(f"{name}: serving on {device.process.url}, base model fetched")
        return device

    def _turn(
        self, name: str, user: str, device: Device, interests: Mapping[str, float], *, before: str | None = None
    ) -> None:
        """Play a user's turn to `interests`, until the cut for these has proved to be the right one.

        The time until that cut serves is a phase of its own, `before`, where that is given.
        """
        serving = device.active_model()
        self._begin(before or name, user, interests)
        images = self._stream(interests)
        with self._teller.bar(device.name) as progress:
            swap = device.until_swapped(images, progress)
            if before is not None:
                self._end(before, user, device, interests, serving)
                self._begin(name, user, interests)
            self._tell_swap(device, swap)
            for swap in device.until_settled(images, progress):
                self._tell_swap(device, swap)
        self._end(name, user, device, interests, device.active_model(), swap.seconds)

    def _without_cloud(self, device: Device) -> str:
        """Play the first user's last turn, which the cloud does not hear of; return what the device says of that."""
        self._begin(_STOP_PHASE, "user 1", LAST)
        with self._teller.bar(device.name) as progress:
            status = device.until_refused(self._stream(LAST), progress)
        self._end(_STOP_PHASE, "user 1", device, LAST, device.active_model())
        phase = self._phases[-1]
        self._teller.tell(
            f"{device.name}: usage changed -> asked the cloud, which is away -> goes on with its cut and will ask "
            f"again: {phase.requests} images answered since, {phase.failed} failed"
        )
        return str(status["last_error"])

    def _stream(self, interests: Mapping[str, float]) -> Iterator[bytes]:
        return image_stream(self._images.held_out, interests, seed=1000 * self._seed + len(self._phases))

    def _begin(self, name: str, user: str, interests: Mapping[str, float]) -> None:
        self._began = (self.timeline.answered, self.timeline.failed)
        self.timeline.mark("phase", name)
        self._teller.tell(f"{name}: {user} shows {interests_text(interests)}")

    def _end(
        self,
        name: str,
        user: str,
        device: Device,
        interests: Mapping[str, float],
        serving: StoredModel,
        seconds: float | None = None,
    ) -> None:
        answered, failed = self._began
        self._phases.append(
            Phase(
                name=name,
                user=user,
                device=device.name,
                interests=interests,
                bytes=serving.manifest.bytes,
                relative_size=serving.manifest.relative_size,
                cache_tier=serving.manifest.cache_tier,
                seconds=seconds,
                requests=self.timeline.answered - answered,
                failed=self.timeline.failed - failed,
                figures=self._meter.measure(bytes(serving.content), interests),
            )
        )

    def _tell_swap(self, device: Device, swap: Swap) -> None:
        model = swap.model
        self._teller.tell(
            f"{device.name}: usage changed: {interests_text(model['usage'])} -> asked the cloud -> cut of "
            f"{100 * model['relative_size']:.0f} % from {FROM[model['cache_tier']]} -> swapped in after "
            f"{swap.seconds:.2f} s"
        )


def _service(profile: Profile, keys: SigningKeys) -> list[str]:
    """Return the command of the cloud service.

    The demo's images are too few to certify a loss of three points: 76 a class and more are needed.
    """
    folder, keys_folder = str(profile.folder), str(keys.folder)
    return capnn("serve", folder, "--keys", keys_folder, "--port", "0", "--guarantee", "empirical")
