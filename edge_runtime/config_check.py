"""Looks whether the settings fit this machine: files that can be read, folders that can be written, a free port."""

from __future__ import annotations

import os
import socket
import stat
from typing import TYPE_CHECKING

from edge_runtime.config import DEFAULT_PORT
from edge_runtime.config_file import read_settings
from edge_runtime.errors import ConfigError
from edge_runtime.secret_file import is_private, read_secret

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Any

    from edge_runtime.config import EdgeConfig
    from edge_runtime.config_file import Settings

__all__ = ["check_address", "check_settings", "read_config", "summary"]

# Of a Unix socket's name, by the kernel's `sockaddr_un`; one byte ends it.
_SOCKET_NAME_BYTES_MAX = 107


def read_config(path: Path | None, options: Mapping[str, Any]) -> EdgeConfig:
    """Read the settings as `read_settings`, and look whether they fit this machine.

    Raises
    ------
    ConfigError
        Something is wrong with them: the first problem, and how many more there are.
    """
    settings = read_settings(path, options)
    check_settings(settings)
    return settings.config()


def check_settings(settings: Settings) -> None:
    """Note what of the settings does not fit this machine; whether the address is free is left to `check_address`."""
    _check_secrets(settings)
    _check_authorities(settings)
    _check_folders(settings)
    _check_socket(settings)
    _check_mqtt(settings)


def check_address(settings: Settings) -> None:
    """Note where the local API cannot be served, because something else is; a free port is tried and given back."""
    values = settings.values
    if any(problem.setting.startswith("api.") for problem in settings.problems):
        return
    if "api.socket" in values:
        return  # a daemon that has ended may have left it: `listen_unix` finds out
    host, port = values.get("api.host", "127.0.0.1"), values.get("api.port", DEFAULT_PORT)
    try:
        with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            pass
    except OSError as error:
        reason = (error.strerror or str(error)).partition(" (while")[0]  # Python repeats the address there
        setting = "api.host" if isinstance(error, socket.gaierror) else "api.port"
        settings.wrong(
            setting,
            f"cannot be had: listening on {host} port {port} fails ({reason}): "
            f"choose another, or end what listens there",
        )


def _check_secrets(settings: Settings) -> None:
    for name in ("cloud.token_file", "mqtt.password_file"):
        if name in settings.values:
            try:
                read_secret(settings.values[name])
            except ConfigError as error:
                settings.wrong(name, f"will not do: {error}")
    url = settings.values.get("cloud.url")
    if "cloud.token_file" in settings.values and url is not None and not is_private(url):
        settings.wrong("cloud.url", f"is {url!r}, where everybody on the way could read the token: use https://")


def _check_authorities(settings: Settings) -> None:
    for name in ("cloud.ca_file", "mqtt.ca_file"):
        path = settings.values.get(name)
        if path is not None:
            import ssl  # noqa: PLC0415 - a device without such a file starts faster

            try:
                ssl.create_default_context(cafile=path)
            except ssl.SSLError as error:
                settings.wrong(name, f"is {path}, which holds no certificates ({error.reason}): expected PEM")
            except OSError as error:
                settings.wrong(
                    name, f"is {path}, which cannot be read ({error.strerror}): give it to the daemon's user"
                )


def _check_folders(settings: Settings) -> None:
    values = settings.values
    for name in ("state", "watch.folder"):
        if name in values and (reason := _cannot_make(values[name])):
            settings.wrong(name, f"is {values[name]}, {reason}")
    results = values.get("watch.results")
    if results is not None and (reason := _cannot_make(results.parent)):
        settings.wrong("watch.results", f"is in {results.parent}, {reason}")


def _check_socket(settings: Settings) -> None:
    path = settings.values.get("api.socket")
    if path is None:
        return
    if len(os.fsencode(path)) > _SOCKET_NAME_BYTES_MAX:
        settings.wrong("api.socket", f"is longer than {_SOCKET_NAME_BYTES_MAX} bytes: choose a shorter name")
    elif path.exists() and not stat.S_ISSOCK(path.stat().st_mode):
        settings.wrong("api.socket", f"is {path}, which is there already and is no socket: choose another name")
    elif reason := _cannot_make(path.parent):
        settings.wrong("api.socket", f"is in {path.parent}, {reason}")


def _check_mqtt(settings: Settings) -> None:
    if any(name.startswith("mqtt.") for name in settings.values):
        from importlib.util import find_spec  # noqa: PLC0415 - needed here alone

        if find_spec("paho") is None:
            settings.wrong("mqtt.host", "needs a package that is not installed: pip install 'capnn[mqtt]'")


def _cannot_make(folder: Path) -> str:
    """Return why files cannot be written below `folder`, which need not be there yet; empty where they can."""
    there = folder
    while not there.exists() and there != there.parent:
        there = there.parent
    if not there.is_dir():
        return f"but {there} is no folder: choose another name"
    if not os.access(there, os.W_OK | os.X_OK):
        return f"but {there} cannot be written to by this user: give it to the daemon's user, or choose another folder"
    return ""


def summary(config: EdgeConfig) -> str:
    """Return what the settings come to, as lines for people."""
    cloud, api = config.cloud, config.api
    lines = [
        ("state", str(config.state)),
        ("cloud", f"{cloud.url}, {len(cloud.keys)} {'key' if len(cloud.keys) == 1 else 'keys'}"),
        ("api", f"unix:{api.socket}" if api.socket is not None else f"{api.host} port {api.port}"),
        ("monitor", f"every {config.monitor.period} predictions, upload: {config.monitor.upload}"),
        ("download", f"at {config.download.hours}" if config.download.hours else "at any time"),
    ]
    if config.watch is not None:
        lines.append(("watch", str(config.watch.folder)))
    if config.mqtt is not None:
        lines.append(("mqtt", f"{config.mqtt.host} port {config.mqtt.port}"))
    return "\n".join(["the settings are right", *(f"{subject:<11} {text}" for subject, text in lines)])
