"""Jobs: what takes long is asked for once and fetched later, whatever happens to the worker that had it."""

from __future__ import annotations

import base64
import contextlib
import threading
import time

import httpx
import pytest

from cache import LayeredStore, MemoryStore, PlanCache
from cloud_pruner.personalize import Personalizer
from cloud_pruner.service import make_service
from cloud_pruner.signer import Signer
from cloud_pruner.signing_keys import generate
from edge_runtime.digests import check_digest
from edge_runtime.messages import pack, unpack
from edge_runtime.signing import SignedManifest, TrustedKeys
from edge_runtime.wire import MSGPACK, PersonalizeRequest
from tests.support.server import running


@pytest.fixture(scope="module")
def signer(tmp_path_factory):
    with Signer(generate(tmp_path_factory.mktemp("signing") / "keys").folder) as signer:
        yield signer


@pytest.fixture
def personalizer(digits_profile):
    with PlanCache(LayeredStore(MemoryStore(max_bytes=1 << 20))) as cache:
        yield Personalizer(digits_profile, cache)


@contextlib.contextmanager
def served(personalizer, signer, **options):
    app = make_service(personalizer, signer, "empirical", **options)
    with running(app) as url, httpx.Client(base_url=url, timeout=60) as client:
        yield client, app.state.parts


def hand_in(client, profile, *names, **headers):
    wish = PersonalizeRequest(base=profile.base.digest, usage=dict.fromkeys(names, 1.0))
    headers = {"content-type": MSGPACK, "prefer": "respond-async, wait=5", **headers}
    return client.post("/v1/personalize", content=pack(wish.to_fields()), headers=headers)


def ended(client, location, **headers):
    deadline = time.monotonic() + 60
    while True:
        job = unpack(client.get(location, headers=headers).content)
        if job["state"] in ("done", "failed"):
            return job
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_job_is_handed_in_and_its_cut_fetched(personalizer, signer):
    trusted = TrustedKeys.of([signer.keys.public])
    with served(personalizer, signer) as (client, _):
        accepted = hand_in(client, personalizer.profile, "one", "seven")
        assert accepted.status_code == 202
        job = unpack(accepted.content)
        assert (job["state"], accepted.headers["location"]) == ("queued", f"/v1/jobs/{job['id']}")
        done = ended(client, accepted.headers["location"])
        assert (done["state"], done["error"]) == ("done", "")
        manifest = SignedManifest.from_bytes(done["answer"]).verified(trusted)
        assert manifest.usage == {"one": 0.5, "seven": 0.5}
        for file in (manifest.digest, manifest.plan.digest):
            check_digest(client.get(f"/v1/files/{file}").content, file, "file")
        # It is signed when it is fetched: a device takes rising serials only.
        shown = client.get(accepted.headers["location"], headers={"accept": "application/json"}).json()
        again = SignedManifest.from_bytes(base64.b64decode(shown["signed"])).verified(trusted)
        assert (again.digest, shown["manifest"]["digest"]) == (manifest.digest, manifest.digest)
        assert again.serial > manifest.serial


def test_nonsense_is_refused_before_there_is_a_job(personalizer, signer):
    with served(personalizer, signer) as (client, parts):
        assert hand_in(client, personalizer.profile, "eleven").status_code == 400
        assert parts.jobs.waiting() == 0


def test_what_cannot_be_done_fails_with_its_reason(personalizer, signer):
    wish = PersonalizeRequest(
        base=personalizer.profile.base.digest, usage={"one": 1}, guarantee="certified", delta=1e-9
    )
    with served(personalizer, signer) as (client, _):
        accepted = client.post("/v1/personalize", json=wish.to_fields(), headers={"prefer": "respond-async"})
        failed = ended(client, accepted.headers["location"])
        assert failed["state"] == "failed"
        assert "or ask for guarantee 'empirical'" in failed["error"]


def test_a_worker_that_ends_gives_its_job_to_the_next(personalizer, signer, tmp_path):
    allowed = threading.Event()

    class Held(Personalizer):
        def personalize(self, request, *rest):
            assert allowed.wait(60)
            return super().personalize(request, *rest)

    with served(Held(personalizer.profile), signer, folder=tmp_path) as (client, parts):
        location = hand_in(client, personalizer.profile, "two", "six").headers["location"]
        deadline = time.monotonic() + 60
        while parts.jobs.waiting() and time.monotonic() < deadline:
            time.sleep(0.01)
    with served(personalizer, signer, folder=tmp_path) as (client, parts):
        assert ended(client, location)["state"] == "done"
    allowed.set()


def test_a_job_is_its_devices_own(personalizer, signer):
    with served(personalizer, signer, tokens=True) as (client, parts):
        porch, gate, operator = (
            {"authorization": f"Bearer {token}"}
            for token in (
                parts.devices.register("porch"),
                parts.devices.register("gate"),
                parts.operators.create("ada"),
            )
        )
        assert hand_in(client, personalizer.profile, "one").status_code == 401
        location = hand_in(client, personalizer.profile, "one", **porch).headers["location"]
        assert ended(client, location, **porch)["device"] == "porch"
        assert ended(client, location, **operator)["device"] == "porch"
        stranger = client.get(location, headers=gate)
        assert stranger.status_code == 404
        assert stranger.json() == client.get(f"/v1/jobs/{'0' * 32}", headers=gate).json() | {
            "error": stranger.json()["error"]
        }
