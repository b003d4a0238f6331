"""Keeps a device's models up to date: fetches the base, asks for a cut when usage has changed, swaps it in, watches it.

Rules
-----
1. Without a base model, or when the cloud cuts another one by now, that is fetched first; cuts of the former go.
2. What the monitor wants at the end of a period replaces or withdraws a wish that could not be met yet.
3. A model is believed, checked, fetched and tried (`edge_runtime.model_source`) before it is stored, and stored before
   it serves.
4. A new cut is on probation, during which nothing is asked for. If it fails that, the former model is back at once;
   later too, if it fails on several images in a row, which the base has answered.
5. After a failure the next try waits: doubling, with a random part, up to a bound. Where the link failed the bound is
   `cloud.retry_max_s`; a download that got on starts the waits over. Where an answer or a file was not good enough,
   waits begin at that bound: the next try may cost all its bytes again. A refusal is final until usage has changed.
6. Outside of `download.hours` nothing is asked for, but by a device that has no model at all.

Nothing here runs in a thread of its own or waits: the daemon calls `step` whenever something may be due.
"""

from __future__ import annotations

import logging
import re
import time
from typing import TYPE_CHECKING, Any, Final

from edge_runtime.acceptance import check_replaces
from edge_runtime.backoff import Backoff
from edge_runtime.cut_watch import CutWatch
from edge_runtime.errors import (
    BaseChangedError,
    CloudError,
    CloudRefusedError,
    ConfigError,
    EdgeError,
    MessageError,
)
from edge_runtime.model_source import ModelSource
from edge_runtime.serving import ServingModel, load_models
from edge_runtime.slots import BASE, StoredModel

if TYPE_CHECKING:
    from edge_runtime.classifier import EdgeClassifier
    from edge_runtime.cloud_client import CloudClient
    from edge_runtime.config import EdgeConfig
    from edge_runtime.errors import ModelFileError
    from edge_runtime.monitor import UsageMonitor
    from edge_runtime.observation import Observation
    from edge_runtime.probation import Probation
    from edge_runtime.slots import ModelSlots
    from edge_runtime.status import Records

__all__ = ["Updater"]

# How much longer than a lost link an answer that was not good enough is waited for at most.
_REFUSED_FACTOR: Final = 24
# Images in a row on which a cut may not fail that was on no probation any more: once may be for want of memory.
_FAILURES_MAX: Final = 3
# The wall clock is looked at again after so long: somebody may have set it right.
_HOURS_LOOK_S: Final = 600.0

_log = logging.getLogger(__name__)


class Updater:
    """The update rules, on the parts that they work with.

    `step`, `retry_later` and `close` are for one thread; the rest is for any.
    """

    def __init__(
        self,
        config: EdgeConfig,
        slots: ModelSlots,
        classifier: EdgeClassifier,
        monitor: UsageMonitor,
        client: CloudClient,
        records: Records,
    ) -> None:
        self._config = config
        self._slots = slots
        self._classifier = classifier
        self._monitor = monitor
        self._client = client
        self._records = records
        held = [model.manifest for model in (classifier.models.base, classifier.models.cut) if model is not None]
        serial = max((manifest.serial for manifest in held), default=0)
        self._source = ModelSource(config, slots, client, records, serial)
        longest_s = config.cloud.retry_max_s
        self._link_wait = Backoff(config.cloud.retry_first_s, longest_s)
        self._refused_wait = Backoff(longest_s, _REFUSED_FACTOR * longest_s)
        self._got_on = config.download.bytes_per_s_min * config.cloud.timeout_s
        self._retry_at: float | None = None  # on the monotonic clock: a clock set backwards changes nothing
        self._wish: dict[str, float] | None = None
        self._base_is_outdated = False
        self._watch = CutWatch(config.probation, slots)
        self._failures: list[str] = []
        rejected = slots.rejected()
        self._rolled_back = next((f"{digest}: {rejected[digest]}" for digest in reversed(rejected)), None)
        self._refusal: str | None = None
        self._warned: str | None = None
        self._updated_at: float | None = None
        self._resume()
        self._serve()

    def status(self) -> dict[str, Any]:
        """Return how updates go, as plain values.

        `state` is one of monitoring, requesting, waiting (for the next try, or for the hours of downloads),
        downloading, verifying, probation.
        """
        progress = self._source.progress
        return {
            "state": self._state(),
            "retry_in_s": self.retry_in_s(),
            "download": None if progress is None else dict(zip(("digest", "bytes", "of"), progress, strict=True)),
            "probation": self._watch.to_fields(),
            "rolled_back": self._rolled_back,
            "refused": self._refusal,
            "keys": sorted(self._source.trust.keys.keys),
            "serial": self._source.trust.serial,
            "updated_age_s": None if self._updated_at is None else round(time.monotonic() - self._updated_at, 1),
        }

    def _state(self) -> str:
        if self._source.activity is not None:
            return self._source.activity
        if self._watch.active:
            return "probation"
        return "monitoring" if self._wish is None and not self._base_is_due() else "waiting"

    def retry_in_s(self) -> float | None:
        """Return the time until `step` should be called without another reason, in s; None for never."""
        return None if self._retry_at is None else max(0.0, self._retry_at - time.monotonic())

    def observe(self, observation: Observation) -> bool:
        """Take in an answer of the classifier; return whether `step` has something to do now."""
        if self._failures and not observation.manifest.is_base:
            self._failures = []
        period_over = self._monitor.observe(observation)
        return self._watch.observe(observation) or period_over

    def failed(self, model: ServingModel, error: ModelFileError) -> bool:
        """Take in that the cut failed on an image, which the base has answered; return whether `step` is due."""
        if self._watch.failed(model, error):
            return True
        self._records.fail(error)
        self._failures = [*self._failures, str(error)]
        return len(self._failures) >= _FAILURES_MAX

    def stop(self) -> None:
        """End what is under way with the cloud; `step` returns soon, and asks for nothing more."""
        self._client.cancel()

    def close(self) -> None:
        """Keep what a restart goes on with."""
        try:
            self._watch.save(stopped=True)
        except OSError as error:
            self._fail(error)

    def step(self) -> None:
        """Do what is due: judge the probation, end a complete period, then send at most one wish to the cloud."""
        self._judge()
        period = self._monitor.status()
        if period["counted"] >= period["period"]:
            self._wish = self._monitor.decide()
        if self._retry_at is not None and time.monotonic() < self._retry_at:
            return
        self._retry_at = None
        came = self._records.count("downloaded_bytes")
        try:
            self._update()
        except BaseChangedError as error:
            self._fail(error)
            self._base_is_outdated, self._wish = True, None
            self._wait(self._link_wait)
        except CloudRefusedError as error:
            self._refuse(error)
            self._withdraw()
        except CloudError as error:
            self._fail(error)
            if self._records.count("downloaded_bytes") - came >= self._got_on:
                self._link_wait.reset()
            self._wait(self._link_wait)
        except (ConfigError, OSError) as error:
            self._fail(error)
            self._wait(self._refused_wait)
        except EdgeError as error:
            self._refuse(error)
            self._wait(self._refused_wait)
        finally:
            self._source.activity = None

    def retry_later(self) -> None:
        """Let `step` send nothing before the next wait is over."""
        self._wait(self._refused_wait)

    def _base_is_due(self) -> bool:
        return self._classifier.models.base is None or self._base_is_outdated

    def _update(self) -> None:
        """Fetch the base, or the cut that is wished for, if one is due and the hours allow it."""
        models, wish = self._classifier.models, self._wish
        any_hour = models.active is None
        if models.base is None or self._base_is_outdated:
            done = self._source.may_fetch(any_hour=any_hour) and self._fetch_base(models.base, any_hour=any_hour)
        elif wish is not None and not self._watch.active:
            done = self._source.may_fetch(any_hour=any_hour) and self._fetch_cut(models.base, wish)
        else:
            return
        if not done:
            self._retry_at = time.monotonic() + min(self._source.opens_in_s(), _HOURS_LOOK_S)
            return
        self._source.clear()
        self._link_wait.reset()
        self._refused_wait.reset()
        self._refusal = self._warned = None
        self._updated_at = time.monotonic()

    def _fetch_base(self, former: ServingModel | None, *, any_hour: bool) -> bool:
        """Replace the base; return whether it came, or the hours ended before."""
        stored = self._source.fetch(self._source.base(None if former is None else former.manifest), any_hour=any_hour)
        if stored is None:
            return False
        base = ServingModel(stored, BASE, threads=self._config.threads)
        self._slots.install_base(stored)
        self._monitor.serve(base.manifest, None)  # first, or what it answers before that would not count
        self._classifier.swap(base=base)
        self._base_is_outdated = False
        if self._classifier.models.cut is None:
            self._watch.drop()
        self._serve()
        _log.info("base model %s is here", stored.manifest.digest[:12])
        return True

    def _fetch_cut(self, base: ServingModel, wish: dict[str, float]) -> bool:
        """Swap in a cut for `wish`; return whether it came, or the hours ended before."""
        manifest = self._source.cut(base.manifest, wish)
        former = self._classifier.models.cut
        if former is not None and former.slot is not None and former.manifest.digest == manifest.digest:
            held = self._slots.read(former.slot)
            if held is not None:
                self._swap_in(StoredModel(manifest, held.content), base, former, None)
                _log.info("cut %s serves on, for other usage", manifest.digest[:12])
                return True
        stored = self._source.fetch(manifest)
        if stored is None:
            return False
        probation = self._watch.prepared(manifest, self._classifier.models)
        self._swap_in(stored, base, former, probation)
        self._records.add("swaps")
        _log.info(
            "cut %s serves now, %.1f %% of the base's parameters", manifest.digest[:12], 100 * manifest.relative_size
        )
        return True

    def _swap_in(
        self, stored: StoredModel, base: ServingModel, former: ServingModel | None, probation: Probation | None
    ) -> None:
        slot = self._slots.free_slot(None if former is None else former.slot)
        cut = ServingModel(stored, slot, threads=self._config.threads)
        check_replaces(cut.manifest, base.manifest)
        self._slots.install_cut(stored, slot, probation=None if probation is None else probation.to_fields())
        self._watch.begin(stored.manifest, probation)
        self._classifier.swap(cut=cut)
        self._wish = None
        self._serve()

    def _resume(self) -> None:
        """Go on with the probation of the cut that serves."""
        cut = self._classifier.models.cut
        try:
            if cut is not None:
                self._watch.resume(cut.manifest)
        except MessageError as error:
            self._fail(error)

    def _judge(self) -> None:
        """Roll the cut back if its probation says so."""
        try:
            reason = self._watch.judge()
            if reason is None and len(self._failures) >= _FAILURES_MAX:
                reason = f"it failed on {len(self._failures)} images in a row: {self._failures[-1]}"
            if reason is not None:
                self._failures = []
                self._roll_back(reason)
        except OSError as error:
            self._fail(error)

    def _roll_back(self, reason: str) -> None:
        """Serve the former model again; where that cannot be written down, at least the base, until the next start."""
        models = self._classifier.models
        if models.cut is None:
            return
        digest = models.cut.manifest.digest
        former = None
        try:
            self._slots.roll_back(digest, reason)
            former = load_models(self._slots, threads=self._config.threads, base=models.base)[0].cut
        except OSError as error:
            self._fail(error)
        if former is None:
            self._classifier.drop_cut()
        else:
            self._classifier.swap(cut=former)
        self._serve()
        self._rolled_back = f"{digest}: {reason}"
        self._records.add("rollbacks")
        self._fail(EdgeError(f"cut {digest[:12]} was rolled back: {reason}"))

    def _serve(self) -> None:
        """Tell the monitor which models answer."""
        models = self._classifier.models
        if models.base is not None:
            self._monitor.serve(models.base.manifest, None if models.cut is None else models.cut.manifest)

    def _withdraw(self) -> None:
        """Give up the wish that was refused, or ask for the base again later."""
        if self._wish is None:
            self._wait(self._refused_wait)
        else:
            self._monitor.refused(self._wish)
            self._wish = None

    def _refuse(self, error: Exception) -> None:
        self._records.add("refused_updates")
        self._refusal = str(error)
        self._fail(error)

    def _fail(self, error: Exception) -> None:
        """Record an error, and log it unless it is the last one again, with other numbers at most."""
        self._records.fail(error)
        kind = re.sub(r"\d+", "0", str(error))
        _log.log(logging.DEBUG if kind == self._warned else logging.WARNING, "%s", error)
        self._warned = kind

    def _wait(self, backoff: Backoff) -> None:
        wait_s = backoff.next_s()
        self._retry_at = time.monotonic() + wait_s
        _log.debug("next try in %.1f s", wait_s)
