"""Who may see and change what on the dashboard, and what browsers are told of its pages."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import pytest

from cloud_pruner.personalize import Personalizer
from cloud_pruner.service import make_service
from cloud_pruner.signer import Signer
from cloud_pruner.signing_keys import generate
from tests.support.dashboard import running_fleet
from tests.support.server import running

PAGES = ["/", "/devices", "/devices/porch-cam", "/models", "/models/digits", "/try"]


@pytest.fixture(scope="module")
def fleet(digits_profile, tmp_path_factory):
    with running_fleet(tmp_path_factory.mktemp("fleet"), digits_profile, queue=1) as fleet:
        yield fleet


@pytest.fixture
def operator(fleet):
    with fleet.client(capnn_session=fleet.operator) as http:
        http.headers["origin"] = fleet.url  # as a browser sends it
        yield http


class TestWhoMaySee:
    @pytest.mark.parametrize("path", [*PAGES, "/models/digits/confirm?step=finish"])
    def test_only_operators(self, fleet, operator, path):
        for token in (None, "wrong", fleet.devices["porch-cam"]):
            with fleet.client(token) as http:
                answer = http.get(path)
            assert answer.status_code == 303
            assert answer.headers["location"].startswith("/login")
        assert operator.get(path).status_code != 303

    def test_a_page_is_come_back_to(self, fleet):
        with fleet.client() as http:
            form = http.get("/try?class=one&class=two", follow_redirects=True)
        assert 'value="/try?class=one&amp;class=two"' in form.text

    def test_events(self, fleet, operator):
        with fleet.client() as http:
            assert http.get("/live").status_code == 401
        with operator.stream("GET", "/live") as answer:
            assert answer.status_code == 200
            assert answer.headers["content-type"].startswith("text/event-stream")
            assert any(line.startswith("data: {") for line in answer.iter_lines())

    def test_a_revoked_operator(self, fleet):
        token = fleet.parts.operators.create("bob")
        with fleet.client(capnn_session=token) as http:
            assert http.get("/").status_code == 200
            fleet.parts.operators.revoke("bob")
            assert http.get("/").status_code == 303

    def test_anybody_where_tokens_are_not_required(self, digits_profile, tmp_path):
        with (
            Signer(generate(tmp_path / "keys").folder) as signer,
            running(make_service(Personalizer(digits_profile), signer, folder=tmp_path)) as url,
        ):
            import httpx

            with httpx.Client(base_url=url) as http:
                assert http.get("/").status_code == 200
                assert "Sign out" not in http.get("/").text
                assert http.get("/login").headers["location"] == "/"
                wish = {"step": "start", "candidate": "ab", "share": "10"}
                assert http.post("/models/model/rollout", data=wish).status_code == 403
                assert http.post("/models/model/rollout", data=wish, headers={"origin": url}).status_code == 400


class TestSigningIn:
    def test_and_out(self, fleet):
        with fleet.client() as http:
            http.headers["origin"] = fleet.url
            answer = http.post("/login", data={"token": f" {fleet.operator}\n", "next": "/devices?search=x"})
            assert answer.status_code == 303
            assert answer.headers["location"] == "/devices?search=x"
            cookie = answer.headers["set-cookie"].lower()
            assert "httponly" in cookie
            assert "samesite=strict" in cookie
            assert "ada" in http.get("/").text
            http.post("/logout")
            assert http.get("/").status_code == 303

    def test_with_what_is_no_operators_token(self, fleet):
        with fleet.client() as http:
            for token in ("", "wrong", "x" * 5000, fleet.devices["porch-cam"]):
                answer = http.post("/login", data={"token": token}, headers={"origin": fleet.url})
                assert answer.status_code == 403
                assert "set-cookie" not in answer.headers
                assert "no operator" in answer.text

    @pytest.mark.parametrize(
        "address", ["//evil.example", "/\\evil.example", "https://evil.example", "/\t/evil.example"]
    )
    def test_leads_nowhere_else(self, fleet, address):
        with fleet.client() as http:
            answer = http.post("/login", data={"token": fleet.operator, "next": address}, headers={"origin": fleet.url})
        assert answer.headers["location"] == "/"


class TestChanges:
    @pytest.mark.parametrize(
        "headers",
        [
            {"origin": "https://evil.example"},
            {"origin": "null"},
            {"origin": "http://["},
            {"origin": ""},
            {"sec-fetch-site": "cross-site", "origin": "{own}"},
            {"sec-fetch-site": "same-site", "origin": "{own}"},
        ],
    )
    def test_not_from_another_site(self, fleet, operator, headers):
        wish = {"step": "start", "candidate": fleet.profiles[1].digest, "share": "10"}
        sent = {name: value.format(own=fleet.url) for name, value in headers.items()}
        for path in ("/models/digits/rollout", "/login", "/logout"):
            answer = operator.post(path, data=wish, headers=sent)
            assert answer.status_code == 403
            assert "set-cookie" not in answer.headers
        assert fleet.parts.rollouts.get("digits").candidate is None

    def test_not_by_others(self, fleet):
        wish = {"step": "start", "candidate": fleet.profiles[1].digest, "share": "10"}
        for token in (None, "wrong", fleet.devices["porch-cam"]):
            with fleet.client(token) as http:
                answer = http.post("/models/digits/rollout", data=wish, headers={"origin": fleet.url})
            assert answer.headers["location"] == "/login"
        assert fleet.parts.rollouts.get("digits").candidate is None

    @pytest.mark.parametrize(
        ("wish", "status", "message"),
        [
            ({"step": "explode"}, 400, "no step of a rollout"),
            ({"step": "start", "candidate": "{other}", "share": "0"}, 400, "no share of the devices"),
            ({"step": "start", "candidate": "{other}", "share": "many"}, 400, "no share of the devices"),
            ({"step": "start", "candidate": "{other}", "share": "nan"}, 400, "no share of the devices"),
            ({"step": "start", "candidate": "f" * 64, "share": "10"}, 400, "no profile of model digits"),
            ({"step": "start", "candidate": "{current}", "share": "10"}, 400, "is current for model digits"),
            ({"step": "finish", "candidate": "{other}"}, 409, "not on trial any more"),
        ],
    )
    def test_that_make_no_sense(self, fleet, operator, wish, status, message):
        current, other = (profile.digest for profile in fleet.profiles)
        fields = {name: value.format(current=current, other=other) for name, value in wish.items()}
        answer = operator.post("/models/digits/rollout", data=fields)
        assert (answer.status_code, message in answer.text) == (status, True)

    def test_a_form_that_is_too_long(self, operator):
        assert operator.post("/models/digits/rollout", content=b"a=" + b"b" * 20_000).status_code == 413

    def test_a_form_of_too_many_fields(self, operator):
        assert operator.post("/models/digits/rollout", content=b"a=1&" * 1000).status_code == 400


class TestAnswers:
    @pytest.mark.parametrize(
        "path", [*PAGES, "/live", "/login", "/devices/nobody", "/models/nothing", "/dashboard/x.js"]
    )
    def test_browsers_are_told_to_be_strict(self, operator, path):
        with operator.stream("GET", path) as answer:
            policy = answer.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["cache-control"] == "no-store"

    def test_what_pages_link_to_may_be_kept(self, operator):
        links = re.findall(r'(?:href|src)="(/dashboard/[^"]+)"', operator.get("/").text + operator.get("/try").text)
        assert {link.partition("?")[0] for link in links} == {
            f"/dashboard/{name}" for name in ("style.css", "icon.svg", "live.js", "try.js")
        }
        for link in links:
            answer = operator.get(link)
            assert answer.status_code == 200
            assert "immutable" in answer.headers["cache-control"]

    @pytest.mark.parametrize(
        ("path", "message"),
        [
            ("/devices/nobody", "no device &#39;nobody&#39;"),
            ("/models/nothing", "no model &#39;nothing&#39;"),
            ("/try?model=nothing", "no model &#39;nothing&#39;"),
            ("/try?profile=nothing", "no profile &#39;nothing&#39;"),
            ("/dashboard/pages.py", "no such file"),
        ],
    )
    def test_what_is_not_there(self, operator, path, message):
        answer = operator.get(path)
        assert (answer.status_code, message in answer.text) == (404, True)

    def test_pages_are_no_part_of_the_described_interface(self, operator):
        assert not {"/", "/try", "/login", "/live"} & operator.get("/openapi.json").json()["paths"].keys()

    def test_every_profile_can_be_tried(self, fleet, operator):
        second = fleet.profiles[1].digest
        text = operator.get(f"/try?profile={second}").text
        assert f'profile={second}" aria-current="true"' in text
        assert text.count('aria-current="true"') == 1

    def test_a_full_queue_is_answered_in_words(self, fleet, operator):
        """One search is under way and one waits, which is all that may: the next is told to come back."""
        end, begun = threading.Event(), threading.Event()

        def searching():
            begun.set()
            end.wait(60)
            raise TimeoutError

        try:
            fleet.parts.searches.submit("first", searching)
            assert begun.wait(60)
            fleet.parts.searches.submit("second", searching)
            answer = operator.get("/try?class=four&class=six")
        finally:
            end.set()
        assert answer.status_code == 429
        assert fleet.parts.metrics.totals()["rejected"] == 1
        assert int(answer.headers["retry-after"]) >= 1
        assert "Too busy now" in answer.text
        assert 'value="four" checked' in answer.text

    def test_a_database_that_is_away_is_answered_in_words(self, fleet, operator):
        database = fleet.parts.settings.state.database.removeprefix("sqlite:///")
        aside = Path(f"{database}.aside")
        fleet.parts.database.close()
        Path(database).rename(aside)
        Path(database).mkdir()
        try:
            answer = operator.get("/devices")
        finally:
            Path(database).rmdir()
            aside.rename(database)
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "2"
        assert "unable to open database file" in answer.text
        assert operator.get("/devices").status_code == 200
