"""The interface is as `/openapi.json` describes it, for everybody, and each may do what is theirs and no more."""

from __future__ import annotations

import subprocess
import sys

import pytest

from edge_runtime.wire import MSGPACK
from tests.support.service import running_service, wait_until

# To check the description against the service; what is refused although it fits the description is another matter, as
# classes and names are not all known to it.
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
)
EVERYBODY = {"nobody": 200, "wrong": 200, "other": 200, "own": 200, "operator": 200}
DEVICES = {"nobody": 401, "wrong": 401, "other": 200, "own": 200, "operator": 200}
# The other device is told of neither file nor job: not even that there is one.
OWN = {"nobody": 401, "wrong": 401, "other": 404, "own": 200, "operator": 200}
OWN_RECORD = {**OWN, "other": 403}
OPERATORS = {"nobody": 401, "wrong": 401, "other": 403, "own": 403, "operator": 200}


@pytest.fixture(scope="module")
def service(digits_profile, tmp_path_factory):
    # Searches without end are not what is looked for here.
    limits = {"device_rate": "100000/minute", "queue": 2}
    folder = tmp_path_factory.mktemp("interface")
    with running_service(folder, digits_profile, limits=limits, server={"workers": 1}) as service:
        yield service
        assert "Traceback" not in service.process.log


@pytest.fixture(scope="module")
def tokens(service):
    porch = service.device("porch")
    garden = service.device("garden")
    assert porch.ask({"one": 1.0, "seven": 1.0}) is not None
    assert porch.ask({"one": 1.0}, later=True) is None
    return {
        "nobody": None,
        "wrong": service.tokens["porch"][:-1] + "-",
        "other": service.tokens[garden.name],
        "own": service.tokens[porch.name],
        "operator": service.operator,
        "porch": porch,
    }


class TestRights:
    """Each route, asked for what is the device porch's, by everybody there is."""

    def asked(self, service, tokens, method, path, **options):
        found = {}
        for who in EVERYBODY:
            with service.client(tokens[who]) as http:
                answer = http.request(method, path, **options)
            found[who] = answer.status_code
            if answer.status_code == 401:
                assert answer.headers["www-authenticate"] == "Bearer"
            if answer.status_code >= 400:
                assert answer.json()["error"].isprintable()
        return found

    def test_what_everybody_may(self, service, tokens):
        for path in ("/livez", "/readyz", "/metrics", "/v1/keys", "/openapi.json"):
            assert self.asked(service, tokens, "GET", path) == EVERYBODY, path

    def test_what_devices_may(self, service, tokens):
        assert self.asked(service, tokens, "GET", "/v1/base") == DEVICES

    def test_what_only_this_device_may(self, service, tokens, digits_profile):
        porch = tokens["porch"]
        wish = {"content": porch.wish({"one": 1.0, "seven": 1.0}), "headers": {"content-type": MSGPACK}}
        assert self.asked(service, tokens, "POST", "/v1/personalize", **wish) == OWN_RECORD
        wait_until(lambda: porch.http.get(porch.jobs[0]).status_code == 200)
        assert self.asked(service, tokens, "GET", porch.jobs[0]) == OWN
        manifest = porch.ask({"one": 1.0, "three": 2.0})  # nobody else was told of this
        for digest in (manifest.digest, manifest.plan.digest):
            assert self.asked(service, tokens, "GET", f"/v1/files/{digest}") == OWN
        assert self.asked(service, tokens, "GET", f"/v1/files/{digits_profile.base.digest}") == DEVICES
        for path in ("/v1/devices/porch", "/v1/devices/porch/cuts"):
            assert self.asked(service, tokens, "GET", path) == OWN_RECORD

    def test_what_operators_may(self, service, tokens):
        for path in ("/v1/devices", "/v1/rollouts", "/v1/status"):
            assert self.asked(service, tokens, "GET", path) == OPERATORS, path
        new = {"json": {"name": "cellar"}}
        assert self.asked(service, tokens, "POST", "/v1/devices", **new) == {**OPERATORS, "operator": 201}
        assert self.asked(service, tokens, "POST", "/v1/devices/cellar/token") == OPERATORS
        revoked = self.asked(service, tokens, "DELETE", "/v1/devices/cellar")
        assert revoked == {**OPERATORS, "operator": revoked["operator"]}
        assert revoked["operator"] in (200, 204)
        for method, path, options in (
            ("PUT", "/v1/rollouts/digits", {"json": {"candidate": "0" * 64, "share": 0.1}}),
            ("POST", "/v1/rollouts/digits/finish", {}),
            ("POST", "/v1/rollouts/digits/take-back", {}),
        ):
            found = self.asked(service, tokens, method, path, **options)
            assert found.pop("operator") in (400, 404, 409), path  # there is no such candidate, and none is on its way
            assert found == {who: status for who, status in OPERATORS.items() if who != "operator"}, path

    def test_that_is_all_there_is(self, service):
        with service.client() as http:
            paths = http.get("/openapi.json").json()["paths"]
        routes = {(method, path) for path, methods in paths.items() for method in methods}
        assert routes == {
            ("get", "/livez"), ("get", "/readyz"), ("get", "/metrics"), ("get", "/v1/keys"), ("get", "/v1/base"),
            ("post", "/v1/personalize"), ("get", "/v1/jobs/{id}"), ("get", "/v1/files/{sha256}"), ("get", "/v1/status"),
            ("get", "/v1/devices"), ("post", "/v1/devices"), ("get", "/v1/devices/{name}"),
            ("delete", "/v1/devices/{name}"), ("post", "/v1/devices/{name}/token"), ("get", "/v1/devices/{name}/cuts"),
            ("get", "/v1/rollouts"), ("put", "/v1/rollouts/{model}"), ("post", "/v1/rollouts/{model}/finish"),
            ("post", "/v1/rollouts/{model}/take-back"),
        }  # fmt: skip

    @pytest.mark.parametrize("header", ["Bearer", "Basic eDp5", "bearer x y", "Bearer \xff", "x" * 5000])
    def test_what_is_no_token(self, service, header):
        with service.client() as http:
            answer = http.get("/v1/base", headers={"authorization": header.encode("latin-1")})
        assert answer.status_code == 401


@pytest.mark.parametrize(("who", "examples"), [("operator", 8), ("own", 4), ("nobody", 1)])
def test_the_service_is_as_it_describes_itself(service, tokens, who, examples):
    """Requests made from the description, right and wrong ones: no answer that it does not tell of, and never 5xx."""
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{service.url}/openapi.json", "--no-color"]
    command += ["--checks", ",".join(CHECKS), "--phases", "examples,coverage,fuzzing", "--max-examples", str(examples)]
    command += ["--seed", "1", "--no-shrink", "--generation-database", "none", "--suppress-health-check", "all"]
    if tokens[who] is not None:
        command += ["--header", f"Authorization: Bearer {tokens[who]}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-10_000:] + done.stderr[-2000:]
    assert "passed" in done.stdout
