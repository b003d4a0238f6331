"""The publisher against a real broker; a client of the broker's own library looks on."""

from __future__ import annotations

import datetime as dt
import json
import logging
import shutil
import socket
import subprocess
import sys
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from edge_runtime.config import MqttConfig
from edge_runtime.errors import ConfigError

paho = pytest.importorskip("paho.mqtt.client", reason="paho-mqtt is not installed: pip install 'capnn[mqtt]'")

from paho.mqtt.enums import CallbackAPIVersion  # noqa: E402 - after the skip

from edge_runtime.mqtt import MqttPublisher, discovery_messages  # noqa: E402 - likewise

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

BROKER = shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin:/opt/homebrew/sbin")
STATUS: dict[str, Any] = {
    "state": "monitoring",
    "problem": None,
    "model": {"digest": "d" * 64, "bytes": 123456},
    "counters": {"classified": 7, "failed": 1, "swaps": 2, "rollbacks": 0},
    "monitoring": {"usage": {"cat": 0.7, "dog": 0.3}},
}


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "what was waited for did not happen"
        time.sleep(0.01)


class Broker:
    """A Mosquitto on a port of its own."""

    def __init__(self, folder: Path, settings: str = "allow_anonymous true\n") -> None:
        if BROKER is None:
            pytest.skip("mosquitto is not installed")
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self._file = folder / "mosquitto.conf"
        self._file.write_text(f"user root\nlistener {self.port} 127.0.0.1\n{settings}")
        self.start()

    def start(self) -> None:
        assert BROKER is not None
        self._process = subprocess.Popen([BROKER, "-c", str(self._file)], stderr=subprocess.DEVNULL)
        wait_for(self._listens)

    def _listens(self) -> bool:
        assert self._process.poll() is None, "mosquitto has ended"
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self) -> None:
        self._process.kill()
        self._process.wait(30)


class Subscriber:
    """Gathers everything that is published, with whether it was retained when it came."""

    def __init__(self, port: int) -> None:
        self.messages: dict[str, str] = {}
        self._client = paho.Client(CallbackAPIVersion.VERSION2)
        self._client.on_connect = lambda client, *_: client.subscribe("#", 1)
        self._client.on_message = self._message
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def _message(self, _client: Any, _data: Any, message: Any) -> None:
        self.messages[message.topic] = message.payload.decode()

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    broker = Broker(tmp_path)
    yield broker
    broker.stop()


@pytest.fixture
def seen(broker: Broker) -> Iterator[Subscriber]:
    subscriber = Subscriber(broker.port)
    yield subscriber
    subscriber.close()


def config(broker: Broker, **settings: Any) -> MqttConfig:
    return MqttConfig("127.0.0.1", broker.port, every_s=0.1, **settings)


def test_status_and_usage_are_there_for_whoever_comes_and_offline_at_the_end(broker: Broker):
    publisher = MqttPublisher(config(broker), "kitchen/1", lambda: STATUS)
    publisher.start()
    first = Subscriber(broker.port)
    wait_for(lambda: first.messages.get("capnn/kitchen_1/availability") == "online")
    first.close()

    later = Subscriber(broker.port)
    wait_for(lambda: len(later.messages) >= 8)
    status = json.loads(later.messages["capnn/kitchen_1/status"])
    assert status["top_class"] == "cat"
    assert status["model_bytes"] == 123456
    assert json.loads(later.messages["capnn/kitchen_1/usage"]) == {"cat": 0.7, "dog": 0.3}

    publisher.stop()
    wait_for(lambda: later.messages["capnn/kitchen_1/availability"] == "offline")
    later.close()


def test_home_assistant_finds_sensors_that_read_the_status(broker: Broker, seen: Subscriber):
    settings = config(broker)
    publisher = MqttPublisher(settings, "kitchen", lambda: STATUS)
    publisher.start()
    wait_for(lambda: discovery_messages(settings, "kitchen").items() <= seen.messages.items())
    publisher.stop()

    found = {topic: json.loads(text) for topic, text in seen.messages.items() if topic.startswith("homeassistant/")}
    assert sorted(found) == [
        "homeassistant/binary_sensor/capnn_kitchen/problem/config",
        "homeassistant/sensor/capnn_kitchen/images/config",
        "homeassistant/sensor/capnn_kitchen/model_bytes/config",
        "homeassistant/sensor/capnn_kitchen/state/config",
        "homeassistant/sensor/capnn_kitchen/top_class/config",
    ]
    fields = json.loads(seen.messages["capnn/kitchen/status"])
    for payload in found.values():
        assert payload["state_topic"] == "capnn/kitchen/status"
        assert payload["availability_topic"] == "capnn/kitchen/availability"
        assert payload["device"]["identifiers"] == ["capnn_kitchen"]
    for name in ("images", "model_bytes", "state", "top_class"):
        assert (
            found[f"homeassistant/sensor/capnn_kitchen/{name}/config"]["value_template"]
            == f"{{{{ value_json.{name} }}}}"
        )
        assert name in fields
    jinja2 = pytest.importorskip("jinja2")
    template = jinja2.Template(found["homeassistant/binary_sensor/capnn_kitchen/problem/config"]["value_template"])
    assert template.render(value_json=fields) == "OFF"
    assert template.render(value_json={**fields, "problem": "the cloud is away"}) == "ON"


def test_a_daemon_that_is_killed_is_offline_by_its_last_will(broker: Broker, seen: Subscriber):
    script = (
        "import time\nfrom edge_runtime.config import MqttConfig\nfrom edge_runtime.mqtt import MqttPublisher\n"
        f"status = {STATUS!r}\n"
        f"MqttPublisher(MqttConfig('127.0.0.1', {broker.port}), 'kitchen', lambda: status).start()\ntime.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script])
    try:
        wait_for(lambda: seen.messages.get("capnn/kitchen/availability") == "online")
    finally:
        process.kill()
        process.wait(30)

    wait_for(lambda: seen.messages["capnn/kitchen/availability"] == "offline")


def test_a_broker_that_goes_and_comes_back_gets_everything_again(broker: Broker, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    broker.stop()
    publisher = MqttPublisher(config(broker), "kitchen", lambda: STATUS)
    publisher.start()  # does not wait for a broker that is away
    wait_for(lambda: "cannot be reached" in caplog.text)
    for _ in range(2):
        broker.start()
        seen = Subscriber(broker.port)
        wait_for(partial(_is_online, seen))
        seen.close()
        broker.stop()
    publisher.stop()


def _is_online(seen: Subscriber) -> bool:
    return seen.messages.get("capnn/kitchen/availability") == "online" and "capnn/kitchen/status" in seen.messages


def test_nothing_is_repeated_that_has_not_changed(broker: Broker):
    count: list[str] = []
    asked = threading.Semaphore(0)

    def status() -> dict[str, Any]:
        asked.release()
        return STATUS

    looker = paho.Client(CallbackAPIVersion.VERSION2)
    looker.on_message = lambda _client, _data, message: count.append(message.topic)
    subscribed = threading.Event()
    looker.on_subscribe = lambda *_: subscribed.set()
    looker.connect("127.0.0.1", broker.port)
    looker.loop_start()
    looker.subscribe("capnn/#", 1)
    assert subscribed.wait(30)
    publisher = MqttPublisher(config(broker), "kitchen", status)
    publisher.start()
    for _ in range(5):
        assert asked.acquire(timeout=30)
    publisher.stop()
    wait_for(lambda: count.count("capnn/kitchen/availability") == 2)  # online and offline
    looker.disconnect()
    looker.loop_stop()

    assert count.count("capnn/kitchen/status") == count.count("capnn/kitchen/usage") == 1


def test_a_password_comes_from_its_file(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    maker = shutil.which("mosquitto_passwd")
    if maker is None:
        pytest.skip("mosquitto_passwd is not installed")
    users = tmp_path / "users"
    subprocess.run([maker, "-b", "-c", str(users), "kitchen", "secret"], check=True, capture_output=True)
    broker = Broker(tmp_path, f"allow_anonymous false\npassword_file {users}\n")
    password = tmp_path / "password"
    password.write_text("wrong\n")
    password.chmod(0o600)
    settings = config(broker, user="kitchen", password_file=password)
    try:
        publisher = MqttPublisher(settings, "kitchen", lambda: STATUS)
        publisher.start()
        wait_for(lambda: "refuses the connection" in caplog.text)
        publisher.stop()

        password.write_text("secret\n")
        publisher = MqttPublisher(settings, "kitchen", lambda: STATUS)
        publisher.start()
        wait_for(lambda: "connected to the MQTT broker" in caplog.text)
        publisher.stop()
    finally:
        broker.stop()
    password.chmod(0o644)
    with pytest.raises(ConfigError, match="too open for a secret"):
        MqttPublisher(settings, "kitchen", lambda: STATUS)


def test_tls_by_a_pinned_authority(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    certificate, key = self_signed(tmp_path, "own")
    other, _ = self_signed(tmp_path, "other")
    broker = Broker(tmp_path, f"allow_anonymous true\ncertfile {certificate}\nkeyfile {key}\n")
    try:
        publisher = MqttPublisher(config(broker, tls=True, ca_file=other), "kitchen", lambda: STATUS)
        publisher.start()
        wait_for(lambda: "cannot be reached" in caplog.text)
        publisher.stop()
        assert "connected to the MQTT broker" not in caplog.text

        publisher = MqttPublisher(config(broker, tls=True, ca_file=certificate), "kitchen", lambda: STATUS)
        publisher.start()
        wait_for(lambda: "connected to the MQTT broker" in caplog.text)
        publisher.stop()
    finally:
        broker.stop()


def self_signed(folder: Path, name: str) -> tuple[Path, Path]:
    """Make a key and a certificate for 127.0.0.1 that is its own authority."""
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    own = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(own)
        .issuer_name(own)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    files = folder / f"{name}.pem", folder / f"{name}.key"
    files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return files
