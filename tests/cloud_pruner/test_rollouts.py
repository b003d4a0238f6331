"""A new profile is tried by the same devices at every share, and taken back from all of them at once."""

from __future__ import annotations

import json
import shutil
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_pruner.cli import main
from cloud_pruner.personalize import Personalizer
from cloud_pruner.profile import MANIFEST_FILE, Profile
from cloud_pruner.service.app import make_app
from cloud_pruner.service.assembly import assembled
from cloud_pruner.service.metrics import ServiceMetrics
from cloud_pruner.service.settings import KeysSettings, ServerSettings, ServiceSettings, StateSettings
from cloud_pruner.signer import Signer
from cloud_pruner.signing_keys import generate
from cloud_pruner.state import Rollout, profile_of
from edge_runtime.digests import check_digest, digest_of
from edge_runtime.signing import SignedManifest, TrustedKeys
from edge_runtime.wire import PersonalizeRequest
from tests.support.server import running
from tests.support.waiting import until

if TYPE_CHECKING:
    from pathlib import Path

    from cloud_pruner.service.parts import ServiceParts

names = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=64)
shares = st.floats(0, 1, exclude_min=True)
FLEET = [f"device {number}" for number in range(10_000)]


def cohort(share, candidate="new", model="birds"):
    rollout = Rollout(model, "old", candidate, share)
    return {device for device in FLEET if profile_of(rollout, device) == candidate}


class TestCohorts:
    @given(device=names, one=shares, other=shares)
    def test_who_is_in_a_small_one_is_in_every_larger_one(self, device, one, other):
        small, large = (profile_of(Rollout("birds", "old", "new", share), device) for share in sorted((one, other)))
        assert small == "old" or large == "new"

    @given(device=names)
    def test_all_and_none(self, device):
        assert profile_of(Rollout("birds", "old", "new", 1.0), device) == "new"
        assert profile_of(Rollout("birds", "old", None, 0.0), device) == "old"

    @pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9])
    def test_are_as_large_as_they_are_meant_to_be(self, share):
        assert len(cohort(share)) / len(FLEET) == pytest.approx(share, abs=0.015)

    def test_another_profile_is_tried_by_others(self):
        again, other_model = cohort(0.1, "newer"), cohort(0.1, model="cats")
        for others in (again, other_model):
            assert len(cohort(0.1) & others) / len(FLEET) == pytest.approx(0.01, abs=0.005)

    def test_stay_the_same_in_every_version_of_the_program(self):
        assert sorted(cohort(0.0005)) == [f"device {number}" for number in (1801, 2069, 7870, 8226, 8791)]


def retrained(profile, folder):
    """Return a profile of another base model: one weight differs in its last bit, what was measured is the same."""
    shutil.copytree(profile.folder, folder)
    manifest = json.loads((folder / MANIFEST_FILE).read_text())
    base = folder / manifest["base"]["file"]
    content = bytearray(base.read_bytes())
    weights = max((tensor.data for tensor in profile.base.graph.tensors if tensor.data is not None), key=len)
    content[bytes(content).index(bytes(weights))] ^= 1
    base.write_bytes(content)
    manifest["base"]["digest"] = digest_of(content)
    (folder / MANIFEST_FILE).write_text(json.dumps(manifest))
    return Profile.open(folder)


class Device:
    """A device that checks what it gets, and remembers the base model that it holds."""

    def __init__(self, url, token, trusted):
        self.http = httpx.Client(base_url=url, headers={"authorization": f"Bearer {token}"}, timeout=60)
        self.trusted = trusted
        self.base = ""
        self.serial = 0

    def fetch_base(self):
        self.base = self._checked(self.http.get("/v1/base")).digest
        return self.base

    def ask(self):
        """Return the manifest of a cut, None where the service cuts another base model."""
        answer = self.http.post("/v1/personalize", json=PersonalizeRequest(self.base, {"one": 1.0}).to_fields(),
                                headers={"accept": "application/vnd.msgpack"})  # fmt: skip
        if answer.status_code == 409:
            assert "fetch /v1/base" in answer.json()["error"]
            return None
        manifest = self._checked(answer)
        assert manifest.base == self.base
        for file in (manifest.digest, manifest.plan.digest):
            fetched = self.http.get(f"/v1/files/{file}")
            assert fetched.status_code == 200, fetched.text
            check_digest(fetched.content, file, "file")
        return manifest

    def _checked(self, answer):
        assert answer.status_code == 200, answer.text
        manifest = SignedManifest.from_bytes(answer.content).verified(self.trusted)
        assert manifest.serial > self.serial
        self.serial = manifest.serial
        return manifest


@dataclass
class Service:
    url: str
    parts: ServiceParts
    state: Path
    profiles: tuple[Profile, Profile]
    operator: httpx.Client

    def device(self, name):
        trusted = TrustedKeys.of([self.parts.signer.keys.public])
        return Device(self.url, self.parts.devices.register(name), trusted)


@pytest.fixture(scope="module")
def service(digits_profile, tmp_path_factory):
    folder = tmp_path_factory.mktemp("rollouts")
    profiles = (digits_profile, retrained(digits_profile, folder / "second"))
    settings = ServiceSettings(
        state=StateSettings.in_folder(folder / "state"),
        keys=KeysSettings(generate(folder / "keys").folder),
        models={"digits": tuple(one.folder for one in profiles)},
        server=ServerSettings(tokens=True, guarantee="empirical"),
    )
    settings.state.metrics.mkdir(parents=True)
    with ExitStack() as life:
        signer = life.enter_context(Signer(settings.keys.folder))
        personalizers = {"digits": [Personalizer(one) for one in profiles]}
        parts = assembled(settings, signer, personalizers, ServiceMetrics(), life)
        url = life.enter_context(running(make_app(parts)))
        headers = {"authorization": f"Bearer {parts.operators.create('ada')}"}
        operator = life.enter_context(httpx.Client(base_url=url, headers=headers, timeout=60))
        yield Service(url, parts, folder / "state", profiles, operator)


class TestADevice:
    def test_follows_a_rollout_and_comes_back_when_it_is_taken_back(self, service):
        old, new = (profile.base.digest for profile in service.profiles)
        device = service.device("porch")
        assert device.fetch_base() == old
        first = device.ask()

        started = service.operator.put(
            "/v1/rollouts/digits", json={"candidate": service.profiles[1].digest, "share": 1}
        )
        assert started.status_code == 200
        until(lambda: device.ask() is None)
        assert device.fetch_base() == new
        assert device.ask().profile == service.profiles[1].digest

        service.operator.post("/v1/rollouts/digits/take-back")
        until(lambda: device.ask() is None)
        assert device.fetch_base() == old
        again = device.ask()
        assert (again.digest, again.profile) == (first.digest, service.profiles[0].digest)
        assert again.serial > first.serial

    def test_follows_the_command_line_too(self, service, capsys):
        device = service.device("yard")
        device.fetch_base()
        state = ["--state", str(service.state)]
        assert main(["rollout", "start", "digits", str(service.profiles[1].folder), "--share", "1", *state]) == 0
        assert service.profiles[1].digest[:12] in capsys.readouterr().out
        until(lambda: device.ask() is None)
        assert main(["rollout", "take-back", "digits", *state]) == 0
        until(lambda: device.ask() is not None)


class TestWishes:
    def test_are_answered_with_what_is_served(self, service):
        old, new = (profile.digest for profile in service.profiles)
        (rollout,) = service.operator.get("/v1/rollouts").json()["rollouts"]
        assert rollout == {
            "model": "digits",
            "current": old,
            "candidate": None,
            "share": 0,
            "profiles": [*sorted((old, new))],
        }
        for share in (0.1, 0.5):
            answer = service.operator.put("/v1/rollouts/digits", json={"candidate": new[:16], "share": share})
            assert answer.json() == {"model": "digits", "current": old, "candidate": new, "share": share}
        assert service.operator.post("/v1/rollouts/digits/take-back").json()["candidate"] is None

    @pytest.mark.parametrize(
        ("wish", "status", "line"),
        [
            ({"candidate": "beef", "share": 0.1}, 400, "'beef' is no profile of model digits"),
            ({"candidate": "CURRENT", "share": 0.1}, 400, "is current for model digits"),
            ({"candidate": "CANDIDATE", "share": 0}, 400, "share 0 is none"),
            ({"candidate": "CANDIDATE", "share": 1.5}, 400, "share 1.5 is none"),
            ({"candidate": "CANDIDATE"}, 400, "field 'share' is missing"),
            ({"candidate": 7, "share": 0.1}, 400, "field 'candidate' is a int, expected str"),
        ],
    )
    def test_that_cannot_be(self, service, wish, status, line):
        named = {"CURRENT": service.profiles[0].digest, "CANDIDATE": service.profiles[1].digest}
        wish = wish | {"candidate": named.get(wish["candidate"], wish["candidate"])}
        answer = service.operator.put("/v1/rollouts/digits", json=wish)
        assert answer.status_code == status
        assert line in answer.json()["error"]

    def test_for_what_is_not_there(self, service):
        for answer in (
            service.operator.put("/v1/rollouts/cats", json={"candidate": service.profiles[1].digest, "share": 0.1}),
            service.operator.post("/v1/rollouts/cats/finish"),
            service.operator.post("/v1/rollouts/digits/finish"),
        ):
            assert answer.status_code == 404, answer.text
