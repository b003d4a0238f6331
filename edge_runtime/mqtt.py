"""Publishes status and usage to an MQTT broker, where Home Assistant finds the device by itself.

===============================  ======================================================================================
`TOPIC/DEVICE/availability`      "online", or "offline" once the broker has lost the daemon (its last will)
`TOPIC/DEVICE/status`            JSON: state, problem, model, model_bytes, images, failed, swaps, rollbacks, top_class
`TOPIC/DEVICE/usage`             JSON: the estimated share of each class in use
`DISCOVERY/.../config`           what Home Assistant needs to show these
===============================  ======================================================================================

All are retained. Images and single predictions are never published. The library keeps the connection, in a thread of
its own; nothing here waits for the broker.
"""

from __future__ import annotations

import json
import logging
import re
from typing import TYPE_CHECKING, Any

from edge_runtime.background import Background
from edge_runtime.errors import ConfigError
from edge_runtime.secret_file import read_secret

try:
    import paho.mqtt.client as paho
    from paho.mqtt.enums import CallbackAPIVersion
except ImportError as error:
    raise ConfigError("[mqtt] needs a package that is not installed: pip install 'capnn[mqtt]'") from error

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from edge_runtime.config import MqttConfig

__all__ = ["MqttPublisher", "discovery_messages", "state_messages"]

_KEEPALIVE_S = 60
_RECONNECT_MAX_S = 120
_STOP_WAIT_S = 2.0
_AT_LEAST_ONCE = 1

# Object -> component, name, and what else Home Assistant should know.
_SENSORS: dict[str, tuple[str, str, dict[str, str]]] = {
    "state": ("sensor", "State", {"icon": "mdi:state-machine"}),
    "top_class": ("sensor", "Top class", {"icon": "mdi:shape"}),
    "images": ("sensor", "Images", {"state_class": "total_increasing", "icon": "mdi:image-multiple"}),
    "model_bytes": (
        "sensor",
        "Model size",
        {"device_class": "data_size", "unit_of_measurement": "B", "state_class": "measurement"},
    ),
    "problem": ("binary_sensor", "Problem", {"device_class": "problem", "entity_category": "diagnostic"}),
}
_TEMPLATES = {"problem": "{{ 'ON' if value_json.problem else 'OFF' }}"}

_log = logging.getLogger(__name__)


def state_messages(config: MqttConfig, device: str, fields: Mapping[str, Any]) -> dict[str, str]:
    """Return topic -> payload for a daemon's status, as `EdgeDaemon.status` gives it."""
    prefix, model, counters = _prefix(config, device), fields["model"], fields["counters"]
    usage = fields["monitoring"]["usage"]
    status = {
        "state": fields["state"],
        "problem": fields["problem"],
        "model": None if model is None else model["digest"],
        "model_bytes": None if model is None else model["bytes"],
        "images": counters["classified"],
        "failed": counters["failed"],
        "swaps": counters["swaps"],
        "rollbacks": counters["rollbacks"],
        "top_class": max(usage, key=usage.__getitem__, default=None),
    }
    return {f"{prefix}/status": json.dumps(status), f"{prefix}/usage": json.dumps(usage)}


def discovery_messages(config: MqttConfig, device: str) -> dict[str, str]:
    """Return topic -> payload of what Home Assistant reads once."""
    prefix, node = _prefix(config, device), f"capnn_{_level(device)}"
    messages = {}
    for item, (component, name, more) in _SENSORS.items():
        payload = {
            "name": name,
            "unique_id": f"{node}_{item}",
            "object_id": f"{node}_{item}",
            "state_topic": f"{prefix}/status",
            "value_template": _TEMPLATES.get(item, f"{{{{ value_json.{item} }}}}"),
            "availability_topic": f"{prefix}/availability",
            "device": {
                "identifiers": [node],
                "name": f"capnn {device}",
                "manufacturer": "capnn",
                "model": "capnn-edge",
            },
            **more,
        }
        messages[f"{config.discovery}/{component}/{node}/{item}/config"] = json.dumps(payload)
    return messages


def _prefix(config: MqttConfig, device: str) -> str:
    return f"{config.topic}/{_level(device)}"


def _level(device: str) -> str:
    """Return the device's name as one level of a topic and as a part of an identifier."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", device)


class MqttPublisher:
    """Keeps a broker informed, from `start` to `stop`.

    Parameters
    ----------
    config
        Which broker, and how.
    device
        Name of this device, its own among those of the broker.
    status
        Returns the daemon's status.

    Raises
    ------
    ConfigError
        The password file cannot be used.
    """

    def __init__(self, config: MqttConfig, device: str, status: Callable[[], Mapping[str, Any]]) -> None:
        self._config = config
        self._device = device
        self._status = status
        self._availability = f"{_prefix(config, device)}/availability"
        self._sent: dict[str, str] = {}
        self._failure = ""
        self._thread = Background("mqtt", self._step, lambda _: config.every_s)
        self._client = paho.Client(CallbackAPIVersion.VERSION2)
        self._client.reconnect_delay_set(1, _RECONNECT_MAX_S)
        self._client.will_set(self._availability, "offline", _AT_LEAST_ONCE, retain=True)
        if config.user is not None:
            password = None if config.password_file is None else read_secret(config.password_file)
            self._client.username_pw_set(config.user, password)
        if config.tls:
            self._client.tls_set(None if config.ca_file is None else str(config.ca_file))
        self._client.on_connect = self._connected
        self._client.on_connect_fail = lambda *_: self._failed("cannot be reached: check network, address and tls")
        self._client.on_disconnect = self._disconnected

    def start(self) -> None:
        """Connect, now or as soon as that can be done, and publish."""
        self._client.connect_async(self._config.host, self._config.port, _KEEPALIVE_S)
        self._client.loop_start()
        self._thread.start()

    def stop(self) -> None:
        """Say that the device is offline, and end the connection."""
        self._thread.stop(_STOP_WAIT_S)
        if self._client.is_connected():
            self._client.publish(self._availability, "offline", _AT_LEAST_ONCE, retain=True).wait_for_publish(
                _STOP_WAIT_S
            )
        self._client.disconnect()
        self._client.loop_stop()

    def _step(self) -> float:
        """Publish what has changed since it was last published."""
        if self._client.is_connected():
            messages = {
                **discovery_messages(self._config, self._device),
                **state_messages(self._config, self._device, self._status()),
                self._availability: "online",
            }
            for topic, payload in messages.items():
                if self._sent.get(topic) != payload:
                    self._client.publish(topic, payload, _AT_LEAST_ONCE, retain=True)
                    self._sent[topic] = payload
        return self._config.every_s

    def _connected(self, _client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if reason.is_failure:
            self._failed(f"refuses the connection ({reason}): check user, password_file and the broker's rules")
            return
        _log.info("connected to the MQTT broker %s:%d", self._config.host, self._config.port)
        self._failure = ""
        # Whatever the broker has of this device may be the last will by now.
        self._sent = {}
        self._thread.wake()

    def _disconnected(self, _client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if reason.is_failure:
            self._failed(f"has gone ({reason}): connecting again")

    def _failed(self, text: str) -> None:
        """Log what goes wrong, once for as long as it is the same."""
        if text != self._failure:
            _log.warning("MQTT broker %s:%d %s", self._config.host, self._config.port, text)
            self._failure = text
