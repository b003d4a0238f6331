"""A small fleet to look at: a real service with tokens, two profiles of a model, and devices with cuts."""

from __future__ import annotations

import json
import shutil
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx

from cache import LayeredStore, MemoryStore, PlanCache
from cloud_pruner.personalize import Personalizer
from cloud_pruner.profile import MANIFEST_FILE, Profile
from cloud_pruner.service.app import make_app
from cloud_pruner.service.assembly import assembled
from cloud_pruner.service.metrics import ServiceMetrics
from cloud_pruner.service.settings import KeysSettings, LimitsSettings, ServerSettings, ServiceSettings, StateSettings
from cloud_pruner.signer import Signer
from cloud_pruner.signing_keys import generate
from edge_runtime.wire import PersonalizeRequest
from tests.support.server import running

if TYPE_CHECKING:
    from cloud_pruner.service.parts import ServiceParts

# As a device without a name of its own could call itself, and say.
HOSTILE_NAME = '"><img src=x onerror=alert(1)>'
HOSTILE_REASON = "<script>alert(2)</script> too slow"


@dataclass
class Fleet:
    """The running service; `profiles` are the current one and another of the same base model."""

    url: str
    parts: ServiceParts
    profiles: tuple[Profile, Profile]
    operator: str
    devices: dict[str, str]

    @property
    def cookie(self) -> dict[str, str]:
        return {"name": "capnn_session", "value": self.operator, "url": self.url}

    def client(self, token: str | None = None, **cookies: str) -> httpx.Client:
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        return httpx.Client(base_url=self.url, headers=headers, cookies=cookies, timeout=60)

    def ask(self, device: str, usage: dict[str, float], **wishes: object) -> httpx.Response:
        """Ask for a cut as a device; as the operator, for one that is not registered."""
        request = PersonalizeRequest(self.profiles[0].base.digest, usage, device, **wishes)
        with self.client(self.devices.get(device, self.operator)) as http:
            answer = http.post("/v1/personalize", json=request.to_fields())
        assert answer.status_code == 200, answer.text
        return answer


def another_version(profile: Profile, folder) -> Profile:
    """Return the same measurements under another digest, as a profile that was made anew would have."""
    shutil.copytree(profile.folder, folder)
    manifest = folder / MANIFEST_FILE
    manifest.write_text(json.dumps(json.loads(manifest.read_text()), indent=3))
    return Profile.open(folder)


@contextmanager
def running_fleet(folder, profile: Profile, **limits: object):
    profiles = (profile, another_version(profile, folder / "second"))
    settings = ServiceSettings(
        state=StateSettings.in_folder(folder / "state"),
        keys=KeysSettings(generate(folder / "keys").folder),
        models={"digits": tuple(one.folder for one in profiles)},
        server=ServerSettings(tokens=True, guarantee="empirical"),
        limits=LimitsSettings(**limits),
    )
    settings.state.metrics.mkdir(parents=True)
    with ExitStack() as life:
        signer = life.enter_context(Signer(settings.keys.folder))
        cache = life.enter_context(PlanCache(LayeredStore(MemoryStore(max_bytes=1 << 24))))
        personalizers = {"digits": [Personalizer(one, cache) for one in profiles]}
        parts = assembled(settings, signer, personalizers, ServiceMetrics(), life)
        operator = parts.operators.create("ada")
        devices = {name: parts.devices.register(name, "digits") for name in ("porch-cam", "kitchen")}
        url = life.enter_context(running(make_app(parts)))
        yield Fleet(url, parts, profiles, operator, devices)


def hand_out_cuts(fleet: Fleet) -> None:
    """Let the devices ask for what they would: two cuts, one of them certified, and one that was taken back."""
    fleet.ask("porch-cam", {"one": 3, "seven": 1})
    fleet.ask("porch-cam", {"zero": 1, "nine": 1}, guarantee="certified", epsilon=0.2)
    fleet.ask("kitchen", {"one": 3, "seven": 1}, rolled_back=HOSTILE_REASON)
    fleet.ask(HOSTILE_NAME, {"two": 1, "three": 1})
