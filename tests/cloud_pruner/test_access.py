"""Who may do what: devices their own things, operators everything; and devices over HTTP."""

from __future__ import annotations

import time

import httpx
import pytest

from cloud_pruner.personalize import Personalizer
from cloud_pruner.service.access import SESSION_COOKIE
from cloud_pruner.service.single import make_service
from cloud_pruner.signer import Signer
from cloud_pruner.signing_keys import generate
from edge_runtime.wire import PersonalizeRequest
from tests.support.server import running
from tests.support.waiting import until


@pytest.fixture(scope="module")
def make(digits_profile, tmp_path_factory):
    """What makes a service of its own, with or without tokens."""
    with Signer(generate(tmp_path_factory.mktemp("signing") / "keys").folder) as signer:
        personalizer = Personalizer(digits_profile)
        yield lambda folder, **options: make_service(personalizer, signer, "empirical", folder=folder, **options)


@pytest.fixture(scope="module")
def service(make, tmp_path_factory):
    folder = tmp_path_factory.mktemp("state")
    app = make(folder, tokens=True)
    with running(app) as url:
        app.state.folder = folder
        app.state.url = url
        app.state.operator = app.state.parts.operators.create("ada")
        yield app.state


def client(service, token=None, **cookies):
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    return httpx.Client(base_url=service.url, headers=headers, cookies=cookies, timeout=60)


@pytest.fixture
def operator(service):
    with client(service, service.operator) as http:
        yield http


class TestTokens:
    def test_of_a_device(self, service, operator):
        made = operator.post("/v1/devices", json={"name": "porch"})
        assert made.status_code == 201
        assert made.headers["location"] == "/v1/devices/porch"
        assert made.headers["cache-control"] == "no-store"
        with client(service, made.json()["token"]) as device:
            seen = device.get("/v1/devices/porch").json()
            assert (seen["name"], seen["model"], seen["revoked"]) == ("porch", "", False)
            assert device.get("/v1/devices/porch/cuts").json() == {"device": "porch", "cuts": []}
            # Whether another one is there is not for it to know.
            for other in ("yard", "never-registered"):
                for path in ("", "/cuts"):
                    assert device.get(f"/v1/devices/{other}{path}").status_code == 403
            for refused in (
                device.get("/v1/devices"),
                device.post("/v1/devices", json={"name": "mine"}),
                device.delete("/v1/devices/porch"),
                device.post("/v1/devices/porch/token"),
                device.get("/v1/rollouts"),
            ):
                assert refused.status_code == 403
                assert refused.json() == {"error": "this is for operators: a device's token does not do"}

    def test_that_is_renewed_and_revoked(self, service, operator):
        former = operator.post("/v1/devices", json={"name": "shed", "model": "model"}).json()["token"]
        token = operator.post("/v1/devices/shed/token").json()["token"]
        with client(service, former) as old, client(service, token) as new:
            assert old.get("/v1/base").status_code == 401
            assert new.get("/v1/base").status_code == 200
            assert operator.delete("/v1/devices/shed").json()["revoked"]
            refused = new.get("/v1/base")
            assert refused.status_code == 401
            assert "was revoked" in refused.json()["error"]
            assert refused.headers["www-authenticate"] == "Bearer"

    @pytest.mark.parametrize(
        "header",
        ["", "Bearer", "Basic YWRhOmFkYQ==", "Bearer nobody's", "Bearer " + "x" * 4000, "bearer \xff"],
    )
    def test_that_are_none(self, service, header):
        answer = httpx.get(f"{service.url}/v1/base", headers={"authorization": header.encode("latin-1")})
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"

    def test_go_on_while_the_database_is_away(self, make, tmp_path):
        folder = tmp_path / "state"
        folder.mkdir()
        app = make(folder, tokens=True)
        token = app.state.parts.devices.register("porch")
        with running(app) as url:
            app.state.url = url
            with client(app.state, token) as device, client(app.state, "x" * 43) as stranger:
                assert device.get("/v1/base").status_code == 200
                (folder / "state.sqlite").rename(folder / "away")
                for _ in range(20):
                    assert device.get("/v1/base").status_code == 200
                    time.sleep(0.1)
                refused = stranger.get("/v1/base")
                assert (refused.status_code, "retry-after" in refused.headers) == (503, True)
                (folder / "away").rename(folder / "state.sqlite")
                until(lambda: stranger.get("/v1/base").status_code == 401)


class TestSessions:
    def test_of_an_operator(self, service):
        with client(service, **{SESSION_COOKIE: service.operator}) as browser:
            assert browser.get("/v1/devices").status_code == 200
            assert browser.post("/v1/devices", json={"name": "cat"}, headers={"origin": service.url}).status_code == 201
            for origin in ({}, {"origin": "https://elsewhere.example"}, {"origin": "null"}, {"origin": "http://["}):
                refused = browser.post("/v1/devices", json={"name": "dog"}, headers=origin)
                assert refused.status_code == 403
                assert "sent from another site" in refused.json()["error"]

    def test_of_nobody(self, service, operator):
        device = operator.post("/v1/devices", json={"name": "cookie"}).json()["token"]
        for token in (device, "nonsense", "x" * 4000):
            with client(service, **{SESSION_COOKIE: token}) as browser:
                refused = browser.get("/v1/devices")
                assert refused.status_code == 401
                assert refused.json() == {"error": "this session has ended: log in again"}


class TestWithoutTokens:
    def test_everybody_may_do_everything(self, make, tmp_path, digits_profile):
        with running(make(tmp_path)) as url, httpx.Client(base_url=url, timeout=60) as anybody:
            token = anybody.post("/v1/devices", json={"name": "porch"}).json()["token"]
            wish = PersonalizeRequest(digits_profile.base.digest, {"one": 1.0}, "visitor").to_fields()
            # A token that a proxy before the service asks for is none of its own.
            for header in ({}, {"authorization": "Bearer a proxy's"}):
                assert anybody.post("/v1/personalize", json=wish, headers=header).status_code == 200
            assert [one["name"] for one in anybody.get("/v1/devices").json()["devices"]] == ["porch"]
            (cut,) = anybody.get("/v1/devices/visitor/cuts").json()["cuts"]
            assert cut["manifest"]["usage"] == {"one": 1.0}
            # A device that shows who it is is that device.
            assert anybody.get("/v1/devices", headers={"authorization": f"Bearer {token}"}).status_code == 403


class TestDevices:
    def test_page_by_page(self, operator):
        for number in range(5):
            operator.post("/v1/devices", json={"name": f"page-{number}"})
        names, after = [], ""
        while after is not None:
            page = operator.get("/v1/devices", params={"search": "PAGE-", "limit": 2, "after": after}).json()
            names += [device["name"] for device in page["devices"]]
            after = page["next"]
        assert names == [f"page-{number}" for number in range(5)]

    def test_their_cuts_with_what_was_certified(self, service, operator, digits_profile):
        token = operator.post("/v1/devices", json={"name": "cuts"}).json()["token"]
        with client(service, token) as device:
            for usage in ({"one": 1.0}, {"one": 1.0}, {"two": 1.0}):
                wish = PersonalizeRequest(digits_profile.base.digest, usage, "cuts", rolled_back="it was\nslow")
                assert device.post("/v1/personalize", json=wish.to_fields()).status_code == 200
            cuts = device.get("/v1/devices/cuts/cuts", params={"limit": 5}).json()["cuts"]
            assert [cut["manifest"]["usage"] for cut in cuts] == [{"two": 1.0}, {"one": 1.0}]
            assert cuts[0]["profile"] == digits_profile.digest
            until(lambda: device.get("/v1/devices/cuts").json()["rolled_back"] == "it was slow")

    @pytest.mark.parametrize(
        ("wish", "status", "line"),
        [
            ({"name": "twice"}, 409, "there is a device 'twice' already"),
            ({"name": "a/b"}, 400, "'a/b' is no name for a device"),
            ({"name": ".."}, 400, "'..' is no name for a device"),
            ({"name": 7}, 400, "field 'name' is a int"),
            ({}, 400, "field 'name' is missing"),
            ({"name": "new", "model": "cats"}, 400, "model 'cats' is not served: choose one of model"),
            ([], 400, "not a JSON object"),
        ],
    )
    def test_that_cannot_be_registered(self, operator, wish, status, line):
        operator.post("/v1/devices", json={"name": "twice"})
        answer = operator.post("/v1/devices", json=wish)
        assert answer.status_code == status
        assert line in answer.json()["error"]

    def test_that_are_not_there(self, operator):
        for answer in (
            operator.get("/v1/devices/nobody"),
            operator.delete("/v1/devices/nobody"),
            operator.post("/v1/devices/nobody/token"),
        ):
            assert answer.status_code == 404
            assert "there is no" in answer.json()["error"]

    @pytest.mark.parametrize("limit", ["0", "1001", "many"])
    def test_a_page_that_is_none(self, operator, limit):
        assert operator.get("/v1/devices", params={"limit": limit}).status_code == 400
