"""Gets models from the cloud service, which is not trusted: asks, believes what is signed, fetches, and tries.

The order, each step only after the one before it:

1. the service's key statements, so that a key that was withdrawn no longer counts;
2. the manifest: signature, serial (`edge_runtime.trust`), then what it says (`edge_runtime.acceptance`);
3. the file, or the plan that makes it from the base that is held, whichever is fewer bytes (`edge_runtime.downloads`);
4. its digest, and a trial in a process of its own (`edge_runtime.trial`).

A file stays in the state folder until it is installed or another one is wanted: a trial that fails again, for want of
memory, say, does not fetch it again. Where the link breaks, the manifest is not asked for again.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from edge_runtime.acceptance import check_base, check_cut, takes_plan
from edge_runtime.digests import check_digest
from edge_runtime.downloads import Downloads
from edge_runtime.errors import CloudError, CloudRefusedError, DigestError, MessageError, ModelFileError, PlanError
from edge_runtime.flatmodel import BaseModel, PruningPlan
from edge_runtime.signing import TrustedKeys
from edge_runtime.slots import BASE, StoredModel
from edge_runtime.trial import try_model
from edge_runtime.trust import Trust, read_trust, write_trust
from edge_runtime.wire import PersonalizeRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from edge_runtime.cloud_client import CloudClient
    from edge_runtime.config import EdgeConfig
    from edge_runtime.signing import SignedManifest
    from edge_runtime.slots import ModelSlots
    from edge_runtime.status import Records
    from edge_runtime.wire import Manifest

__all__ = ["ModelSource"]

_log = logging.getLogger(__name__)


class ModelSource:
    """The cloud service as a source of models that can be used. For one thread, but for `activity` and `progress`.

    Parameters
    ----------
    serial
        The highest serial of the models held.
    """

    def __init__(
        self, config: EdgeConfig, slots: ModelSlots, client: CloudClient, records: Records, serial: int
    ) -> None:
        self._config = config
        self._slots = slots
        self._client = client
        self._records = records
        self._downloads = Downloads(
            slots.folder / "incoming", config.download, lambda amount: records.add("downloaded_bytes", amount)
        )
        self._trust_path = slots.folder / "trust.msgpack"
        self._offer: tuple[Any, Manifest] | None = None
        self.activity: str | None = None
        try:
            kept = read_trust(self._trust_path)
        except MessageError as error:
            records.fail(error)
            _log.warning("%s", error)
            kept = None
        self.trust = Trust.of(TrustedKeys.of(config.cloud.keys), kept, serial)

    @property
    def progress(self) -> tuple[str, int, int] | None:
        """Digest, bytes here and bytes promised of the file that is being fetched; None without one."""
        return self._downloads.progress

    def may_fetch(self, *, any_hour: bool) -> bool:
        """Return whether files may be fetched now; `any_hour`: at whatever hour."""
        return any_hour or self.opens_in_s() == 0

    def opens_in_s(self) -> float:
        """Return how long until files may be fetched, in s; 0 while they may."""
        return self._downloads.opens_in_s()

    def base(self, held: Manifest | None) -> Manifest:
        """Ask for the base model that is to follow `held`.

        Raises
        ------
        CloudError, ConfigError
            The service cannot be reached or asked, fails, or refuses.
        SignatureError, MessageError
            Its answer is not to be believed, or not to be used.
        OSError
            What is believed cannot be written to the state folder.
        """

        def check(manifest: Manifest) -> None:
            check_base(manifest, file_bytes_max=self._config.download.file_bytes_max)
            if held is not None and manifest.digest == held.digest:
                raise MessageError(
                    f"{self._client.url}: cuts another base model than {held.digest[:12]}, and has no other: "
                    "it contradicts itself"
                )

        return self._offered(None, self._client.base, check)

    def cut(self, base: Manifest, usage: Mapping[str, float]) -> Manifest:
        """Ask for a cut of `base` for `usage`; raises as `base`, and ModelFileError where it cannot stand in for it."""
        rejected = self._slots.rejected()
        rolled_back = next(reversed(rejected), None)
        told = rolled_back == self.trust.told
        request = PersonalizeRequest(
            base=base.digest,
            usage=dict(usage),
            device=self._config.device,
            rolled_back=None if rolled_back is None or told else f"{rolled_back}: {rejected[rolled_back]}",
        )

        def ask() -> SignedManifest:
            signed = self._client.personalize(request)
            self.trust = self.trust.telling(rolled_back)  # kept with the serial that comes with it
            return signed

        def check(manifest: Manifest) -> None:
            check_cut(
                manifest,
                base,
                usage,
                rejected=rejected,
                require_certificate=self._config.cloud.require_certificate,
                file_bytes_max=self._config.download.file_bytes_max,
            )

        return self._offered(request.to_fields() | {"rolled_back": None}, ask, check)

    def fetch(self, manifest: Manifest, *, any_hour: bool = False) -> StoredModel | None:
        """Return the model of a manifest that was offered, tried; None where the hours ended before it was here.

        Raises
        ------
        CloudError, ConfigError
            The service cannot be reached or asked, or fails.
        DigestError, ModelFileError
            The file is not the one of the manifest, or does not work here.
        OSError
            The disk is full or fails.
        """
        self.activity = "downloading"
        content: bytes | memoryview | None = None
        if takes_plan(manifest):
            content = self._from_plan(manifest, any_hour=any_hour)
        if content is None and self.may_fetch(any_hour=any_hour):
            content = self._whole(manifest, any_hour=any_hour)
        if content is None:
            return None
        self.activity = "verifying"
        self._offer = None
        stored = StoredModel(manifest, content)
        try_model(content, manifest, threads=self._config.threads)
        return stored

    def clear(self) -> None:
        """Forget what was offered and delete what came of it: it is in a slot."""
        self._offer = None
        self._downloads.keep_only(())

    def _offered(self, wish: Any, ask: Callable[[], SignedManifest], check: Callable[[Manifest], None]) -> Manifest:
        """Return the manifest that answers `wish`: the one whose file is on its way, or a new one."""
        if self._offer is not None and self._offer[0] == wish:
            return self._offer[1]
        self._offer = None
        self.activity = "requesting"
        self._records.add("cloud_requests")
        try:
            statements = self._client.keys()
        except CloudRefusedError as error:
            raise CloudError(str(error)) from error  # of the keys: it says nothing of what will be asked for
        self._keep(self.trust.following(statements))
        signed = ask()
        manifest, trust = self.trust.accepting(signed)
        check(manifest)
        self._keep(trust)
        plan = () if manifest.plan is None else (manifest.plan.digest,)
        self._downloads.keep_only((manifest.digest, *plan))
        self._offer = wish, manifest
        return manifest

    def _whole(self, manifest: Manifest, *, any_hour: bool) -> bytes | None:
        try:
            return self._downloads.fetch(
                self._client, manifest.digest, manifest.bytes, room=manifest.bytes, any_hour=any_hour
            )
        except CloudRefusedError as error:
            self._offer = None
            raise CloudError(f"{error}: asking anew") from error
        except DigestError:
            self._offer = None
            raise

    def _from_plan(self, manifest: Manifest, *, any_hour: bool) -> memoryview | None:
        """Return the file as its plan makes it; None where the plan does not, or the hours ended before it was here."""
        assert manifest.plan is not None
        digest, promised = manifest.plan.digest, manifest.plan.bytes
        try:
            plan = self._downloads.fetch(self._client, digest, promised, room=manifest.bytes, any_hour=any_hour)
            if plan is None:
                return None
            base = BaseModel.open(self._slots.folder / BASE / "model.tflite")
            content = base.apply(PruningPlan.from_bytes(plan))
            check_digest(content, manifest.digest, "what the plan makes of the base")
        except (CloudRefusedError, DigestError, ModelFileError, PlanError) as error:
            self._records.fail(error)
            _log.warning("%s: fetching the whole file", error)
            return None
        return content

    def _keep(self, trust: Trust) -> None:
        if trust != self.trust:
            write_trust(self._trust_path, trust)
            self.trust = trust
