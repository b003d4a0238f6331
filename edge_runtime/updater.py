"""Keeps a device's models up to date: fetches the base, asks for a cut when usage has changed, and swaps it in.

Rules
-----
1. Without a base model, or when the cloud cuts another one by now, that is fetched first; cuts of the former go.
2. At the end of a monitoring period whose usage differs from the active cut's (or without a cut), a cut for that usage
   is asked for. A later period replaces or withdraws a wish that could not be met yet.
3. A cut is verified, loaded, tried and compared with the base before it is stored, and stored before it serves.
4. After a failure of any kind the next try waits: doubling, with a random part, up to a bound. A refusal is final until
   usage has changed again.

Nothing here runs in a thread of its own or waits: the daemon calls `step` whenever something may be due.
"""

from __future__ import annotations

import logging
import random
import time
from typing import TYPE_CHECKING

from edge_runtime.errors import BaseChangedError, CloudRefusedError, EdgeError, MessageError
from edge_runtime.monitor import UsageMonitor, load_counts, save_counts
from edge_runtime.serving import ServingModel
from edge_runtime.slots import BASE, ModelSlots
from edge_runtime.wire import PersonalizeRequest

if TYPE_CHECKING:
    from edge_runtime.classifier import EdgeClassifier
    from edge_runtime.cloud_client import CloudClient
    from edge_runtime.config import EdgeConfig
    from edge_runtime.status import Records

__all__ = ["Backoff", "Updater"]

_log = logging.getLogger(__name__)


class Backoff:
    """Waits between tries: from `first_s`, doubling up to `max_s`, each with a random part of up to half taken off."""

    def __init__(self, first_s: float, max_s: float) -> None:
        self._first_s = first_s
        self._max_s = max_s
        self._wait_s = first_s

    def next_s(self) -> float:
        """Return the time to wait now, in s."""
        wait_s, self._wait_s = self._wait_s, min(2 * self._wait_s, self._max_s)
        return wait_s * random.uniform(0.5, 1.0)  # noqa: S311 - spreads devices in time, protects nothing

    def reset(self) -> None:
        """Start over from `first_s`, after a success."""
        self._wait_s = self._first_s


class Updater:
    """The update rules, on the parts that they work with. `step` and `save_counts` are for one thread."""

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
        self._backoff = Backoff(config.retry_first_s, config.retry_max_s)
        self._retry_at: float | None = None  # on the monotonic clock: a clock set backwards changes nothing
        self._wish: dict[str, float] | None = None
        self._refused: dict[str, float] | None = None
        self._base_is_outdated = False
        self._activity: str | None = None
        base = classifier.models.base
        if base is not None:
            self._restore_counts(base)

    @property
    def state(self) -> str:
        """What is going on, in words."""
        if self._activity is not None:
            return self._activity
        if self._classifier.models.base is None:
            return "waiting to fetch the base model"
        return "monitoring" if self._wish is None else "waiting to ask for a cut"

    def retry_in_s(self) -> float | None:
        """Return the time until `step` should be called without another reason, in s; None for never."""
        return None if self._retry_at is None else max(0.0, self._retry_at - time.monotonic())

    def step(self) -> None:
        """Do what is due: end a complete period, then send at most one request."""
        if self._monitor.period_complete and self._classifier.models.base is not None:
            self._judge(self._monitor.next_period())
            self.save_counts()
        if self._retry_at is not None and time.monotonic() < self._retry_at:
            return
        self._retry_at = None
        try:
            base = self._classifier.models.base
            if base is None or self._base_is_outdated:
                self._fetch_base()
            elif self._wish is not None:
                self._swap_cut(base, self._wish)
            self._backoff.reset()
        except BaseChangedError as error:
            self._fail(error)
            self._base_is_outdated, self._wish = True, None
            self.retry_later()
        except CloudRefusedError as error:
            self._fail(error)
            if self._wish is None:
                self.retry_later()
            self._refused, self._wish = self._wish, None
        except (EdgeError, OSError) as error:
            self._fail(error)
            self.retry_later()
        finally:
            self._activity = None

    def retry_later(self) -> None:
        """Let `step` send nothing before the next wait is over."""
        wait_s = self._backoff.next_s()
        self._retry_at = time.monotonic() + wait_s
        _log.info("next try in %.1f s", wait_s)

    def save_counts(self) -> None:
        """Write this period's counts to the state folder; a failure is recorded, and counting goes on."""
        base = self._classifier.models.base
        if base is None:
            return
        try:
            save_counts(self._slots.folder / "usage.msgpack", self._monitor.counts(), base.manifest.digest)
        except OSError as error:
            self._fail(error)

    def _restore_counts(self, base: ServingModel) -> None:
        try:
            counts = load_counts(self._slots.folder / "usage.msgpack", base.manifest.digest)
        except MessageError as error:
            self._fail(error)
            counts = {}
        self._monitor.restore({label: n for label, n in counts.items() if label in base.manifest.classes})

    def _judge(self, usage: dict[str, float]) -> None:
        cut = self._classifier.models.cut
        if not self._monitor.changed(usage, None if cut is None else cut.manifest.usage):
            self._wish = None
        elif self._monitor.changed(usage, self._refused):
            _log.info("usage has changed: %s", ", ".join(f"{label} {share:.2f}" for label, share in usage.items()))
            self._wish, self._refused = usage, None

    def _fetch_base(self) -> None:
        self._activity = "fetching the base model"
        self._records.add("cloud_requests")
        stored = self._client.base()
        self._activity = "verifying the base model"
        base = ServingModel(stored, BASE, threads=self._config.threads)
        self._slots.install_base(stored)
        self._restore_counts(base)
        self._classifier.swap(base=base)
        self._base_is_outdated = False
        _log.info("base model %s is here", stored.manifest.digest[:12])

    def _swap_cut(self, base: ServingModel, usage: dict[str, float]) -> None:
        self._activity = "asking for a cut"
        self._records.add("cloud_requests")
        request = PersonalizeRequest(base=base.manifest.digest, usage=usage, device=self._config.device)
        stored = self._client.personalize(request)
        self._activity = "verifying the cut"
        missing = sorted(usage.keys() - stored.manifest.usage.keys())
        if missing:
            raise MessageError(f"{self._client.url}: answered with a cut that was not made for {', '.join(missing)}")
        if stored.manifest.certificate is not None:
            stored.manifest.certificate.check(stored.manifest.digest, stored.manifest.usage)
        former = self._classifier.models.cut
        slot = self._slots.free_slot(None if former is None else former.slot)
        cut = ServingModel(stored, slot, threads=self._config.threads)
        cut.check_replaces(base)
        self._slots.install_cut(stored, slot)
        self._classifier.swap(cut=cut)
        self._wish = None
        self._records.add("swaps")
        _log.info(
            "cut %s serves now, %.1f %% of the base's parameters",
            stored.manifest.digest[:12],
            100 * stored.manifest.relative_size,
        )

    def _fail(self, error: Exception) -> None:
        self._records.fail(error)
        _log.warning("%s", error)
