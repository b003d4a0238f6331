"""The service answers devices over HTTP, in msgpack and JSON, and refuses nonsense with one clear line."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace

import httpx
import jsonschema
import msgpack
import pytest

from cache import LayeredStore, MemoryStore, PlanCache
from cloud_pruner.personalize import Personalizer
from cloud_pruner.service import make_service
from cloud_pruner.signer import Signer
from cloud_pruner.signing_keys import generate, revoke, rotate
from edge_runtime.digests import check_digest
from edge_runtime.errors import UnknownKeyError
from edge_runtime.flatmodel import PruningPlan
from edge_runtime.messages import pack
from edge_runtime.self_test import run_self_test
from edge_runtime.serving import ServingModel
from edge_runtime.signing import SignedManifest, TrustedKeys
from edge_runtime.slots import StoredModel
from edge_runtime.wire import MSGPACK, PersonalizeRequest
from tests.support.server import running


@pytest.fixture(scope="module")
def signer(tmp_path_factory):
    with Signer(generate(tmp_path_factory.mktemp("signing") / "keys").folder) as signer:
        yield signer


@pytest.fixture(scope="module")
def trusted(signer):
    return TrustedKeys.of([signer.keys.public])


@pytest.fixture(scope="module")
def client(digits_profile, signer):
    cache = PlanCache(LayeredStore(MemoryStore(max_bytes=1 << 20)))
    with (
        cache,
        running(make_service(Personalizer(digits_profile, cache), signer, "empirical")) as url,
        httpx.Client(base_url=url, headers={"accept-encoding": "identity"}) as http,
    ):
        yield http


@pytest.fixture
def request_(digits_profile):
    return PersonalizeRequest(base=digits_profile.base.digest, usage={"one": 3, "seven": 1})


def ask(client, fields, **headers):
    return client.post("/v1/personalize", content=pack(fields), headers={"content-type": MSGPACK, **headers})


@pytest.fixture
def manifest(client, request_, trusted):
    return SignedManifest.from_bytes(ask(client, request_.to_fields()).content).verified(trusted)


class TestManifests:
    def test_a_cut_is_described_and_signed(self, client, request_, digits_profile, trusted):
        response = ask(client, request_.to_fields())
        assert response.status_code == 200
        assert response.headers["content-type"] == MSGPACK
        manifest = SignedManifest.from_bytes(response.content).verified(trusted)
        assert manifest.base == digits_profile.base.digest
        assert manifest.usage == {"one": 0.75, "seven": 0.25}
        assert manifest.serial > 0

    def test_so_is_the_base_model(self, client, digits_profile, trusted):
        manifest = SignedManifest.from_bytes(client.get("/v1/base").content).verified(trusted)
        assert manifest.is_base
        assert manifest.digest == digits_profile.base.digest
        assert manifest.plan is None

    def test_serials_rise_from_answer_to_answer(self, client, request_, trusted):
        answers = [client.get("/v1/base"), ask(client, request_.to_fields()), client.get("/v1/base")]
        serials = [SignedManifest.from_bytes(answer.content).verified(trusted).serial for answer in answers]
        assert serials == sorted(set(serials))

    def test_a_device_tries_the_file_by_its_self_test(self, client, manifest):
        """The same interpreter gives the very same answers; another model does not."""
        content = client.get(f"/v1/files/{manifest.digest}").content
        test = manifest.self_test
        assert run_self_test(ServingModel(StoredModel(manifest, content)), replace(test, tolerance=1e-6)) is None
        others = tuple(tuple(((index + 1) % 10, share) for index, share in image) for image in test.expected)
        reason = run_self_test(ServingModel(StoredModel(manifest, content)), replace(test, expected=others))
        assert "self-test image 0" in reason

    def test_json_is_for_people(self, client, request_, trusted):
        fields = client.post("/v1/personalize", json=request_.to_fields()).json()
        signed = SignedManifest.from_bytes(base64.b64decode(fields["signed"])).verified(trusted)
        assert fields["manifest"]["digest"] == signed.digest
        assert fields["manifest"]["serial"] == signed.serial
        assert fields["manifest"]["cache_tier"] in ("search", "exact")
        assert fields["manifest"]["temperature"] == signed.temperature

    def test_a_rotated_key_is_found_through_its_statements(self, client, signer, trusted):
        rotate(signer.keys.folder)
        signed = SignedManifest.from_bytes(client.get("/v1/base").content)
        with pytest.raises(UnknownKeyError):
            signed.verified(trusted)
        statements = msgpack.unpackb(client.get("/v1/keys").content)
        assert signed.verified(trusted.successor(statements)).is_base
        shown = client.get("/v1/keys", headers={"accept": "application/json"}).json()
        assert shown["keys"][shown["signing"]] == signer.keys.public
        assert [base64.b64decode(statement) for statement in shown["statements"]] == statements
        revoke(signer.keys.folder, signer.keys.signing)

    def test_a_device_that_has_rolled_back_is_heard(self, client, request_, caplog):
        before = client.get("/v1/status").json()["answered"].get("rolled_back", 0)
        ask(client, request_.to_fields() | {"device": "porch\nfake", "rolled_back": "ab12…: too slow\nfake line"})
        assert client.get("/v1/status").json()["answered"]["rolled_back"] == before + 1
        assert "porch fake: rolled back: ab12…: too slow fake line" in caplog.messages


class TestFiles:
    def test_every_file_of_a_manifest_can_be_had(self, client, manifest, digits_profile):
        for digest, length in (
            (manifest.digest, manifest.bytes),
            (manifest.plan.digest, manifest.plan.bytes),
            (digits_profile.base.digest, len(digits_profile.base.content)),
        ):
            response = client.get(f"/v1/files/{digest}")
            assert response.status_code == 200
            assert response.headers["etag"] == f'"{digest}"'
            assert response.headers["content-length"] == str(length)
            assert "immutable" in response.headers["cache-control"]
            check_digest(response.content, digest, "file")

    def test_what_a_client_has_is_not_sent_again(self, client, manifest):
        path = f"/v1/files/{manifest.digest}"
        for tags in (f'"{manifest.digest}"', f'"another", W/"{manifest.digest}"', "*"):
            response = client.get(path, headers={"if-none-match": tags})
            assert (response.status_code, response.content) == (304, b"")
        assert client.get(path, headers={"if-none-match": '"another"'}).status_code == 200

    def test_a_plan_is_compressed_for_those_who_ask(self, client, manifest):
        path = f"/v1/files/{manifest.plan.digest}"
        response = client.get(path, headers={"accept-encoding": "gzip"})
        assert response.headers["content-encoding"] == "gzip"
        assert int(response.headers["content-length"]) < 0.9 * manifest.plan.bytes
        check_digest(response.content, manifest.plan.digest, "plan")
        again = client.get(path, headers={"accept-encoding": "gzip", "if-none-match": response.headers["etag"]})
        assert again.status_code == 304
        # A part is one of the file itself.
        part = client.get(path, headers={"accept-encoding": "gzip", "range": "bytes=0-9"})
        assert (part.status_code, len(part.content)) == (206, 10)
        for refused in ("identity", "gzip;q=0"):
            assert "content-encoding" not in client.get(path, headers={"accept-encoding": refused}).headers

    def test_the_plan_makes_the_file(self, client, manifest, digits_profile):
        plan = PruningPlan.from_bytes(client.get(f"/v1/files/{manifest.plan.digest}").content)
        check_digest(digits_profile.base.apply(plan), manifest.digest, "cut")

    @pytest.mark.parametrize(
        ("asked", "start", "stop"),
        [
            ("bytes=0-", 0, None),
            ("bytes=1000-", 1000, None),
            ("bytes=0-0", 0, 1),
            ("bytes=500-999", 500, 1000),
            ("bytes=500-999999999999", 500, None),
            ("bytes=-100", -100, None),
            ("bytes=-999999999999", 0, None),
        ],
    )
    def test_a_part(self, client, manifest, asked, start, stop):
        whole = client.get(f"/v1/files/{manifest.digest}").content
        response = client.get(f"/v1/files/{manifest.digest}", headers={"range": asked})
        assert response.status_code == 206
        assert response.content == whole[start:stop]
        first = start % len(whole)
        assert response.headers["content-range"] == f"bytes {first}-{first + len(response.content) - 1}/{len(whole)}"

    @pytest.mark.parametrize("asked", ["bytes=", "bytes=-", "bytes=5-2", "bytes=0-1,5-6", "lines=1-2", "bytes=x-", "1"])
    def test_what_is_no_range_gets_all(self, client, manifest, asked):
        response = client.get(f"/v1/files/{manifest.digest}", headers={"range": asked})
        assert (response.status_code, len(response.content)) == (200, manifest.bytes)

    @pytest.mark.parametrize("asked", ["bytes={length}-", "bytes=999999999999-", "bytes=-0"])
    def test_a_part_behind_the_end(self, client, manifest, asked):
        asked = asked.format(length=manifest.bytes)
        response = client.get(f"/v1/files/{manifest.digest}", headers={"range": asked})
        assert response.status_code == 416
        assert response.headers["content-range"] == f"bytes */{manifest.bytes}"
        assert f"the file has {manifest.bytes} bytes" in response.json()["error"]

    def test_a_part_only_of_the_same_file(self, client, manifest):
        for tag, status in ((f'"{manifest.digest}"', 206), ('"another"', 200), (f'W/"{manifest.digest}"', 200)):
            headers = {"range": "bytes=5-", "if-range": tag}
            assert client.get(f"/v1/files/{manifest.digest}", headers=headers).status_code == status

    def test_a_file_that_nobody_was_told_of(self, client):
        response = client.get(f"/v1/files/{'0' * 64}")
        assert response.status_code == 404
        assert "file 000000000000… is not kept here any more: ask for a manifest anew" in response.json()["error"]

    @pytest.mark.parametrize("name", ["x", "AB" * 32, "ab" * 31, "ab" * 33, "..%2f..%2fetc%2fpasswd", "%00", "a%0ab"])
    def test_what_is_no_digest(self, client, name):
        response = client.get(f"/v1/files/{name}")
        assert response.status_code in (400, 404)
        assert "\n" not in response.json()["error"]

    def test_a_client_that_leaves_in_the_middle_hurts_nobody(self, client, digits_profile, caplog):
        path = f"/v1/files/{digits_profile.base.digest}"
        for _ in range(3):
            with client.stream("GET", path) as response:
                next(response.iter_raw(100))
        assert client.get(path).content == digits_profile.base.content
        assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_status_says_what_is_served_and_where_answers_came_from(client, request_, digits_profile):
    ask(client, request_.to_fields())
    ask(client, request_.to_fields())
    status = client.get("/v1/status").json()
    assert status["answered"]["exact"] >= 1
    assert status["models"]["model"]["base"] == digits_profile.base.digest
    assert status["models"]["model"]["served"] == [digits_profile.digest]


def test_health(client):
    assert client.get("/livez").status_code == client.get("/readyz").status_code == 200


def test_the_interface_is_described(client):
    document = client.get("/openapi.json").json()
    paths = document["paths"]
    assert MSGPACK in paths["/v1/personalize"]["post"]["requestBody"]["content"]
    assert paths["/v1/personalize"]["post"]["responses"].keys() >= {"200", "202", "400", "401", "409", "429", "503"}
    assert paths["/v1/files/{sha256}"]["get"]["responses"].keys() >= {"200", "206", "304", "400", "404", "416"}
    assert paths["/v1/keys"]["get"]["responses"]["200"]["content"].keys() == {MSGPACK, "application/json"}
    operations = [operation for path in paths.values() for operation in path.values()]
    assert not [operation for operation in operations if "422" in operation["responses"]]
    assert len({operation["operationId"] for operation in operations}) == len(operations)
    assert not re.findall(r'"\$ref": "(?!#/)', json.dumps(document)), "the document stands alone"


def test_examples_are_what_they_are_examples_of(client):
    """Of requests and answers alike: what a reader copies will do."""
    document = client.get("/openapi.json").json()
    components = {"components": document["components"]}
    bodies = [
        *contents(document["paths"]),
        *({"schema": one, **one} for one in components["components"]["schemas"].values()),
    ]
    examples = [
        (body["schema"], one) for body in bodies for one in [body.get("example"), *body.get("examples", [])] if one
    ]
    for schema, example in examples:
        jsonschema.Draft202012Validator({**schema, **components}).validate(example)
    assert len(examples) > 30


def contents(part):
    """Yield every description of a JSON body below `part`."""
    if isinstance(part, dict):
        if "schema" in part:
            yield part
        for inner in part.values():
            yield from contents(inner)


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
        (b'{"version": 2, "base": "x", "usage": {"one": NaN}}', "application/json"),
        (b'{"version": 2, "base": "x", "usage": {"one": 1' + b"0" * 400 + b"}}", "application/json"),
        (b'{"version": 2, "base": "x", "usage": {"\\ud800": 1}}', "application/json"),
        (b"\xdf\xff\xff\xff\xff", MSGPACK),
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
