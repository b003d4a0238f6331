from __future__ import annotations

import datetime as dt
import ssl
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from edge_runtime.cloud_client import CloudClient
from edge_runtime.config import CloudConfig, DownloadConfig
from edge_runtime.errors import BaseChangedError, CloudError, CloudRefusedError, ConfigError, EdgeError, MessageError
from edge_runtime.signing import TrustedKeys
from edge_runtime.wire import PersonalizeRequest
from tests.edge_runtime.faults import Fault
from tests.support.signing import TestKey

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edge_runtime.slots import StoredModel
    from tests.edge_runtime.cloud_simulator import CloudSimulator

REQUEST = PersonalizeRequest(base="digest", usage={"north-west": 0.5, "south-west": 0.5})
SLOW = DownloadConfig(bytes_per_s_min=10_000)


@pytest.fixture
def config(cloud: CloudSimulator) -> CloudConfig:
    return CloudConfig(cloud.url, (cloud.key.public,), timeout_s=10)


@pytest.fixture
def client(config: CloudConfig) -> Iterator[CloudClient]:
    with CloudClient(config, DownloadConfig()) as client:
        yield client


def test_manifests_come_signed(client: CloudClient, cloud: CloudSimulator, base: StoredModel, west: StoredModel):
    keys = TrustedKeys.of([cloud.key.public])

    for answer, model in ((client.base(), base), (client.personalize(REQUEST), west)):
        manifest = answer.verified(keys)
        assert manifest.serial > 0
        assert replace(manifest, serial=0) == model.manifest
    assert cloud.cut_requests == [REQUEST]


def test_key_statements_come_as_they_were_signed(client: CloudClient, cloud: CloudSimulator):
    assert client.keys() == []
    other = TestKey()
    cloud.statements = [cloud.key.statement(1, other)]

    assert TrustedKeys.of([cloud.key.public]).successor(client.keys()).keys.keys() == {other.id}


@pytest.mark.parametrize(
    ("fault", "error", "message"),
    [
        (Fault.ERROR_500, CloudError, r"/v1/personalize: answered 500 .*: the search failed$"),
        (Fault.OVERLOADED, CloudError, r"answered 429 .*: no reason given$"),
        (Fault.REDIRECT, CloudError, r"answered 302: redirects are not followed"),
        (Fault.TRUNCATED, CloudError, r"cannot be reached"),
        (Fault.ENDLESS, CloudError, r"the answer is longer than \d+ bytes"),
        (Fault.GARBAGE, MessageError, r"/v1/personalize: message is .*: is it the right service\?"),
    ],
)
def test_every_fault_is_an_error_that_says_what_happened(
    client: CloudClient, cloud: CloudSimulator, fault: Fault, error: type[Exception], message: str
):
    cloud.faults.append(fault)

    with pytest.raises(error, match=message) as caught:
        client.personalize(REQUEST)

    assert not isinstance(caught.value, CloudRefusedError)
    assert "\n" not in str(caught.value)
    assert client.personalize(REQUEST)


def test_what_a_cloud_says_is_cut_short_and_does_nothing_to_a_terminal(client: CloudClient, cloud: CloudSimulator):
    cloud.error = "\x1b[2Jgone\n" + 1000 * "x"
    cloud.faults.append(Fault.ERROR_500)

    with pytest.raises(CloudError) as caught:
        client.base()
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


def test_a_refusal_is_told_from_a_failure(client: CloudClient, cloud: CloudSimulator):
    cloud.faults.append(Fault.REFUSED)

    with pytest.raises(CloudRefusedError, match=r"answered 422 .*: these classes cannot be served$") as caught:
        client.personalize(REQUEST)
    assert not isinstance(caught.value, BaseChangedError)


@pytest.mark.parametrize("fault", [Fault.STALL, Fault.STALL_MIDDLE, Fault.DRIP_HEAD, Fault.DRIP])
def test_a_silent_or_dripping_cloud_is_given_up_on(config: CloudConfig, cloud: CloudSimulator, fault: Fault):
    cloud.always = fault

    with CloudClient(replace(config, timeout_s=0.2), SLOW) as client:
        with pytest.raises(CloudError, match=r"no answer within 0\.2 s|only \d+ bytes came in 0\.\d s: given up"):
            client.base()
        cloud.behave()
        assert client.base()


def test_an_absent_cloud_is_named(client: CloudClient, cloud: CloudSimulator):
    cloud.go_away()

    with pytest.raises(CloudError, match=rf"{cloud.url}/v1/keys: cannot be reached"):
        client.keys()


def test_another_thread_ends_what_is_under_way(client: CloudClient, cloud: CloudSimulator):
    cloud.always = Fault.STALL
    errors: list[EdgeError] = []

    def ask() -> None:
        try:
            client.base()
        except EdgeError as error:
            errors.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    cloud.wait_until(lambda: cloud.base_requests == 1)
    client.cancel()
    thread.join(30)

    assert [str(error) for error in errors] == [f"{cloud.url}: broken off: the daemon is stopping"]
    with pytest.raises(CloudError, match="not asked: the daemon is stopping"):
        client.base()


def test_the_token_is_shown_and_read_anew(tmp_path: Path, config: CloudConfig, cloud: CloudSimulator):
    token = tmp_path / "token"
    token.write_text("first\n")
    token.chmod(0o600)

    with CloudClient(replace(config, token_file=token), DownloadConfig()) as client:
        client.base()
        token.write_text("second\n")
        client.keys()
        token.chmod(0o604)
        with pytest.raises(ConfigError, match="too open for a secret"):
            client.base()

    assert cloud.authorizations == {"Bearer first", "Bearer second"}


def test_a_token_is_not_sent_in_the_clear(tmp_path: Path, config: CloudConfig):
    token = tmp_path / "token"
    token.write_text("secret")
    token.chmod(0o600)
    open_network = replace(config, url="http://198.51.100.1", token_file=token)

    with (
        CloudClient(open_network, DownloadConfig()) as client,
        pytest.raises(ConfigError, match="a token would be sent where others can read it"),
    ):
        client.base()


@pytest.fixture
def certificates(tmp_path: Path, cloud: CloudSimulator) -> dict[str, Path]:
    """Let the cloud speak TLS; return the certificate that it shows, and one of somebody else."""
    paths = {}
    for name in ("own", "other"):
        paths[name], key = tmp_path / f"{name}.pem", tmp_path / f"{name}.key"
        _write_certificate(paths[name], key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(paths["own"], tmp_path / "own.key")
    cloud.speak_tls(context)
    return paths


def _write_certificate(path: Path, key_path: Path) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.timezone.utc)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


def test_only_the_pinned_authority_is_believed(
    certificates: dict[str, Path], config: CloudConfig, cloud: CloudSimulator
):
    pinned = replace(config, url=cloud.url, ca_file=certificates["own"])

    with CloudClient(pinned, DownloadConfig()) as client:
        assert client.base()
    for wrong in (certificates["other"], None):
        with (
            CloudClient(replace(pinned, ca_file=wrong), DownloadConfig()) as client,
            pytest.raises(CloudError, match="certificate verify failed"),
        ):
            client.base()


def test_an_unusable_authority_is_named(tmp_path: Path, config: CloudConfig):
    path = tmp_path / "ca.pem"
    for content in (None, b"no certificate"):
        if content is not None:
            path.write_bytes(content)
        with (
            CloudClient(replace(config, ca_file=path), DownloadConfig()) as client,
            pytest.raises(ConfigError, match=r"ca.pem: cannot be used as ca_file"),
        ):
            client.base()
