"""`capnn serve` as an operator meets it: how it starts, refuses to start, speaks TLS, logs, drains and ends."""

from __future__ import annotations

import datetime as dt
import ipaddress
import json
import os
import signal
import socket
import ssl
import threading

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from benchmarks.service_process import ServiceProcess
from cloud_pruner.cli import main
from cloud_pruner.signing_keys import generate
from edge_runtime.messages import pack
from edge_runtime.wire import MSGPACK, PersonalizeRequest
from tests.support.service import wait_until, write_settings


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("service")
    generate(folder / "keys")
    write_certificate(folder)
    return folder


def write_certificate(folder):
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.timezone.utc)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


def log_of(service, what):
    """Return the lines of a JSON log about `what`."""
    lines = [json.loads(line) for line in service.log.splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == what]


def test_it_speaks_tls_logs_for_machines_and_drains(digits_profile, folder, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(folder / "cert.pem"))
    server = {
        "tls_cert": "cert.pem",
        "tls_key": "key.pem",
        "log": "json",
        "drain_s": 600,
        "stop_s": 30,
        "tokens": False,
    }
    settings = write_settings(folder, digits_profile, {"server": server})
    with ServiceProcess("--config", settings) as service:
        assert service.url.startswith("https://")
        own = ssl.create_default_context(cafile=folder / "cert.pem")
        with httpx.Client(base_url=service.url, verify=own, timeout=60) as client:
            fields = PersonalizeRequest(digits_profile.base.digest, {"one": 1.0}, "porch").to_fields()
            answer = client.post(
                "/v1/personalize", content=pack(fields), headers={"content-type": MSGPACK, "x-request-id": "first"}
            )
            assert answer.status_code == 200
            wait_until(lambda: log_of(service, "request"))  # it is written once the answer is sent
            (line,) = log_of(service, "request")
            assert line["id"] == "first"
            assert (line["device"], line["status"], line["tier"]) == ("porch", 200, "search")
            assert line["seconds"] > 0
            # Whichever worker is asked, all have counted.
            assert 'capnn_answers_total{tier="search"} 1.0' in client.get("/metrics").text
            assert client.get("/v1/status").json()["answered"]["search"] == 1

            # Told to end, it says so to whoever asks, and goes on answering until the time is over.
            os.kill(service._process.pid, signal.SIGTERM)
            wait_until(lambda: client.get("/readyz").status_code == 503)
            assert client.get("/readyz").json()["failed"].keys() == {"draining"}
            assert client.get("/v1/base").status_code == 200
        for worker in service.workers:
            os.kill(worker, signal.SIGINT)
        assert service.stop() == 0
    assert log_of(service, "told to end: what is under way is answered first")


def test_who_waits_is_answered_before_it_ends(digits_profile, folder):
    """Somebody presses Ctrl-C, of which the terminal tells all processes, while a request is under way."""
    settings = write_settings(folder, digits_profile, {"server": {"workers": 1, "tokens": False, "stop_s": 60}})
    with ServiceProcess("--config", settings) as service, httpx.Client(base_url=service.url, timeout=60) as client:
        fields = PersonalizeRequest(digits_profile.base.digest, {"two": 1.0, "six": 1.0, "eight": 2.0}).to_fields()
        answers = []
        asking = threading.Thread(target=lambda: answers.append(client.post("/v1/personalize", json=fields)))
        asking.start()
        wait_until(lambda: "capnn_queue 1.0" in httpx.get(f"{service.url}/metrics", timeout=60).text or answers)
        for process in (service._process.pid, *service.workers):
            os.kill(process, signal.SIGINT)
        assert service.stop() == 130
        asking.join()
        assert answers[0].status_code == 200, answers[0].text


class TestRefusedStarts:
    """One line, exit code 1, and nothing is left running."""

    @pytest.fixture
    def refused(self, folder, digits_profile, capsys):
        def refused(*arguments, **sections):
            code = main(["serve", *arguments, "--config", str(write_settings(folder, digits_profile, sections))])
            said = capsys.readouterr().err
            assert code == 1
            assert said.startswith("capnn: error: ")
            assert said.count("\n") == 1
            return said

        return refused

    def test_a_port_that_another_has(self, refused):
        with socket.create_server(("127.0.0.1", 0)) as other:
            assert "choose another with --port" in refused(server={"port": other.getsockname()[1]})

    def test_a_profile_that_is_not_there(self, refused):
        assert "no profile there" in refused(**{"models.digits": {"profiles": ["nowhere"]}})

    def test_the_same_profile_twice(self, refused, digits_profile):
        folder = str(digits_profile.folder)
        assert "models.digits.profiles names a profile twice" in refused(
            **{"models.digits": {"profiles": [folder, folder]}}
        )

    def test_a_setting_that_makes_no_sense(self, refused):
        said = refused(limits={"queue": 0})
        assert "service.toml:" in said
        assert "limits.queue is 0: expected a whole number from 1" in said

    def test_a_key_that_is_not_the_certificates(self, refused):
        assert "check tls_cert and tls_key" in refused(server={"tls_cert": "cert.pem", "tls_key": "keys/statements"})

    def test_a_database_that_is_none(self, refused, folder):
        (folder / "other.sqlite").write_text("this is something else, and long enough to be looked at" * 100)
        assert "other.sqlite" in refused(state={"database": "sqlite:///other.sqlite"})

    def test_options_that_do_not_go_together(self, refused):
        assert "--state and --config do not go together" in refused("--state", "elsewhere")
