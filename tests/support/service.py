"""A cloud service as an operator sets it up, in real processes; and devices that check what they get."""

from __future__ import annotations

import json
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx

from benchmarks.service_process import ServiceProcess
from cloud_pruner.service.settings_file import read_settings
from cloud_pruner.signing_keys import generate
from cloud_pruner.state.database import Database
from cloud_pruner.state.operators import Operators
from edge_runtime.digests import check_digest
from edge_runtime.flatmodel import PruningPlan
from edge_runtime.messages import pack, unpack
from edge_runtime.signing import SignedManifest, TrustedKeys
from edge_runtime.wire import MSGPACK, PersonalizeRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cloud_pruner.profile import Profile
    from edge_runtime.wire import Manifest


def wait_until(true: Callable[[], object], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def write_settings(folder: Path, profile: Profile, sections: dict[str, dict[str, Any]]) -> Path:
    """Write a `service.toml`: two workers, tokens, state and keys in `folder`, and what `sections` say otherwise."""
    settings: dict[str, dict[str, Any]] = {
        "server": {"port": 0, "workers": 2, "tokens": True, "guarantee": "empirical"},
        "state": {"database": f"sqlite:///{folder / 'state.sqlite'}", "files": str(folder / "files")},
        "keys": {"folder": str(folder / "keys")},
        "models.digits": {"profiles": [str(profile.folder)]},
    }
    for section, values in sections.items():
        settings[section] = settings.get(section, {}) | values
    lines = []
    for section, values in settings.items():
        lines += [f"[{section}]", *(f"{name} = {json.dumps(value)}" for name, value in values.items()), ""]
    (folder / "service.toml").write_text("\n".join(lines))
    return folder / "service.toml"


@dataclass
class Service:
    """A running service, and those who may ask it."""

    process: ServiceProcess
    settings: Path
    profile: Profile
    operator: str
    trusted: TrustedKeys
    tokens: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return self.process.url

    def client(self, token: str | None = None, **options: Any) -> httpx.Client:
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=60, **options)

    def device(self, name: str) -> Device:
        """Register a device; it asks by itself from then on."""
        with self.client(self.operator) as http:
            answer = http.post("/v1/devices", json={"name": name})
        assert answer.status_code == 201, answer.text
        self.tokens[name] = answer.json()["token"]
        return Device(self, name, self.client(self.tokens[name]))

    def metrics(self) -> dict[str, float]:
        """Return the samples of `/metrics`, with their labels, by name."""
        with self.client() as http:
            lines = http.get("/metrics").text.splitlines()
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[:1] != "#")}


@contextmanager
def running_service(folder: Path, profile: Profile, **sections: dict[str, Any]) -> Iterator[Service]:
    """Set a service up in `folder`, as the documentation says, and run it."""
    settings = write_settings(folder, profile, sections)
    keys = generate(folder / "keys")
    with Database.open(read_settings(settings).state.database) as database:
        operator = Operators(database).create("ana")
    with ServiceProcess("--config", settings) as process:
        yield Service(process, settings, profile, operator, TrustedKeys.of([keys.public]))


@dataclass
class Device:
    """Asks for cuts, believes what is signed, and keeps in mind all that it was told."""

    service: Service
    name: str
    http: httpx.Client
    told: list[Manifest] = field(default_factory=list)
    jobs: list[str] = field(default_factory=list)
    refusals: list[tuple[int, str]] = field(default_factory=list)
    broken: int = 0

    def wish(self, usage: dict[str, float], **wishes: Any) -> bytes:
        request = PersonalizeRequest(self.service.profile.base.digest, usage, self.name, **wishes)
        return pack(request.to_fields())

    def ask(self, usage: dict[str, float], *, later: bool = False, **wishes: Any) -> Manifest | None:
        """Ask for a cut, or for one `later`; None where it is refused, or the connection breaks."""
        headers = {"content-type": MSGPACK} | ({"prefer": "respond-async"} if later else {})
        try:
            answer = self.http.post("/v1/personalize", content=self.wish(usage, **wishes), headers=headers)
        except httpx.TransportError:
            self.broken += 1
            return None
        if answer.status_code == 202:
            self.jobs.append(answer.headers["location"])
            return None
        if answer.status_code != 200:
            self.refusals.append((answer.status_code, answer.json()["error"]))
            return None
        return self._believe(answer.content, usage)

    def _believe(self, signed: bytes, usage: dict[str, float]) -> Manifest:
        manifest = SignedManifest.from_bytes(signed).verified(self.service.trusted)
        assert set(manifest.usage) == set(usage)
        assert all(manifest.serial != other.serial for other in self.told)
        self.told.append(manifest)
        return manifest

    def check_all(self) -> None:
        """All that this device was ever told is true: every file is there and is what was signed, every job ends."""
        base = self.service.profile.base
        for job in self.jobs:
            wait_until(lambda job=job: self.job(job)["state"] == "done")
            self.told.append(SignedManifest.from_bytes(self.job(job)["answer"]).verified(self.service.trusted))
        for digest, plan in {(manifest.digest, manifest.plan.digest) for manifest in self.told}:
            self._check_files(digest, plan, base)

    def job(self, path: str) -> dict[str, Any]:
        """Return how a job stands."""
        answer = self.http.get(path)
        assert answer.status_code == 200, answer.text
        return unpack(answer.content)

    def _check_files(self, digest: str, plan: str, base: Any) -> None:
        contents = []
        for name in (digest, plan):
            answer = self.http.get(f"/v1/files/{name}")
            assert answer.status_code == 200, answer.text
            check_digest(answer.content, name, "file")
            contents.append(answer.content)
        assert base.apply(PruningPlan.from_bytes(contents[1])) == contents[0]
