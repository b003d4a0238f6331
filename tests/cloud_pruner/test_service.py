"""The service answers devices over HTTP, in msgpack and JSON, and refuses nonsense with one clear line."""

from __future__ import annotations

import base64

import httpx
import pytest

from cache import LayeredStore, MemoryStore, PlanCache
from cloud_pruner.personalize import Personalizer
from cloud_pruner.service import make_service
from edge_runtime.digests import check_digest
from edge_runtime.messages import pack
from edge_runtime.wire import MSGPACK, PersonalizeAnswer, PersonalizeRequest
from tests.support.server import running


@pytest.fixture(scope="module")
def client(digits_profile):
    cache = PlanCache(LayeredStore(MemoryStore(max_bytes=1 << 20)))
    with (
        cache,
        running(make_service(Personalizer(digits_profile, cache), "empirical")) as url,
        httpx.Client(base_url=url) as http,
    ):
        yield http


@pytest.fixture
def request_(digits_profile):
    return PersonalizeRequest(base=digits_profile.base.digest, usage={"one": 3, "seven": 1})


def ask(client, fields, **headers):
    return client.post("/v1/personalize", content=pack(fields), headers={"content-type": MSGPACK, **headers})


def test_msgpack_answer_has_manifest_plan_and_file(client, request_, digits_profile):
    response = ask(client, request_.to_fields())
    assert response.status_code == 200
    assert response.headers["content-type"] == MSGPACK
    answer = PersonalizeAnswer.from_bytes(response.content)
    check_digest(answer.model, answer.manifest.digest, "cut")
    assert answer.manifest.base == digits_profile.base.digest
    assert answer.manifest.usage == {"one": 0.75, "seven": 0.25}


def test_json_in_and_out(client, request_):
    response = client.post("/v1/personalize", json=request_.to_fields())
    fields = response.json()
    check_digest(base64.b64decode(fields["model"]), fields["manifest"]["digest"], "cut")
    assert fields["manifest"]["cache_tier"] in ("search", "exact")


def test_only_the_plan_on_request(client, request_):
    answer = PersonalizeAnswer.from_bytes(ask(client, request_.to_fields() | {"want_model": False}).content)
    assert answer.model is None
    assert answer.plan


def test_base_model(client, digits_profile):
    answer = PersonalizeAnswer.from_bytes(client.get("/v1/base").content)
    assert answer.manifest.is_base
    assert answer.model == digits_profile.base.content


def test_status_counts_where_answers_came_from(client, request_):
    ask(client, request_.to_fields())
    ask(client, request_.to_fields())
    status = client.get("/v1/status").json()
    assert status["answered"]["exact"] >= 1
    assert status["cache"]["exact"]["hits"] >= 1


def test_health(client):
    assert client.get("/livez").status_code == client.get("/readyz").status_code == 200


def test_the_interface_is_described(client):
    description = client.get("/openapi.json").json()
    assert MSGPACK in description["paths"]["/v1/personalize"]["post"]["requestBody"]["content"]


@pytest.mark.parametrize(
    ("change", "status", "message"),
    [
        ({"usage": {"eleven": 1.0}}, 400, "unknown class 'eleven'"),
        ({"usage": {}}, 400, "no classes"),
        ({"usage": {"one": -1.0}}, 400, "weight of class 'one' is -1.0"),
        ({"usage": {"one": "much"}}, 400, "request: usage: field 'one' is a str"),
        ({"usage": [1]}, 400, "field 'usage' is a list"),
        ({"epsilon": 2.0}, 400, "epsilon is 2.0"),
        ({"variant": "Z"}, 400, "variant 'Z' is unknown"),
        ({"version": 99}, 400, "wire version 99"),
        ({"base": "0" * 64}, 409, "fetch /v1/base"),
        ({"base": None}, 400, "field 'base' is a NoneType"),
    ],
)
def test_nonsense_is_refused_in_one_line(client, request_, change, status, message):
    for response in (
        ask(client, request_.to_fields() | change),
        client.post("/v1/personalize", json=request_.to_fields() | change),
    ):
        assert response.status_code == status
        assert message in response.json()["error"]
        assert "\n" not in response.json()["error"]


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", MSGPACK),
        (b"\xc1", MSGPACK),
        (b"\x93\x01\x02\x03", MSGPACK),
        (b"{", "application/json"),
        (b"[]", "application/json"),
    ],
)
def test_a_body_that_is_no_message(client, content, kind):
    response = client.post("/v1/personalize", content=content, headers={"content-type": kind})
    assert response.status_code == 400
    assert response.json()["error"]


def test_a_body_that_is_too_long(client):
    assert client.post("/v1/personalize", content=b" " * (2 << 20)).status_code == 413


def test_deeply_nested_messages_are_refused(client):
    for content, kind in ((b"[" * 100_000, "application/json"), (b"\x91" * 100_000, MSGPACK)):
        assert client.post("/v1/personalize", content=content, headers={"content-type": kind}).status_code == 400
