"""`capnn serve`: the cloud service."""

from __future__ import annotations

import re
import tempfile
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cloud_pruner.cli.options import add_cache_options, positive
from cloud_pruner.errors import SigningKeyError
from cloud_pruner.requests import GUARANTEES
from cloud_pruner.service.settings import (
    DEFAULT_PORT,
    CacheSettings,
    KeysSettings,
    ServerSettings,
    ServiceSettings,
    StateSettings,
)
from cloud_pruner.service.settings_file import read_settings
from edge_runtime.errors import ConfigError

if TYPE_CHECKING:
    import argparse

__all__ = ["add_command"]

_SERVER_OPTIONS: Final = ("host", "port", "workers", "tls_cert", "tls_key", "tokens", "guarantee", "log")
_OTHERS: Final = ("profile", "keys", "state", "cache", "redis")


def add_command(commands: Any) -> None:
    """Add `capnn serve` to the subcommands."""
    parser = commands.add_parser(
        "serve",
        help="answer devices that ask for cuts",
        description="Serve the base model of a profile, and cuts of it, over HTTP: /docs describes the interface, / "
        "shows the fleet.\nOne model by options; several, their versions and limits by --config service.toml.",
        example="capnn serve profile/ --keys keys/ --state /var/lib/capnn --workers 2 --cache plans.sqlite\n"
        "  capnn serve --config service.toml",
    )
    parser.add_argument("profile", nargs="?", type=Path, metavar="PROFILE", help="folder made by 'capnn profile'")
    parser.add_argument("--config", type=Path, metavar="FILE", help="all settings in one TOML file, instead of PROFILE")
    parser.add_argument("--keys", type=Path, metavar="DIR", help="folder made by 'capnn keys generate'; required")
    parser.add_argument(
        "--state", type=Path, metavar="DIR", help="where devices, jobs and plans lie (default: a temporary folder)"
    )
    parser.add_argument("--workers", type=positive, metavar="N", help="processes that answer (default: 1)")
    parser.add_argument("--host", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, help=f"port to listen on, 0 for a free one (default: {DEFAULT_PORT})")
    tokens = parser.add_mutually_exclusive_group()
    tokens.add_argument(
        "--tokens",
        action="store_true",
        default=None,
        help="answer only who shows a token ('capnn devices register'; default unless --host is this machine's own)",
    )
    tokens.add_argument("--no-tokens", dest="tokens", action="store_false", help="answer anybody")
    parser.add_argument("--tls-cert", type=Path, metavar="FILE", help="certificate and its chain, PEM: speak TLS")
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="its private key, PEM")
    parser.add_argument(
        "--guarantee",
        choices=GUARANTEES,
        help="for requests that name none: shown on held-out images, or measured on the search's own (default: "
        "certified)",
    )
    parser.add_argument("--log", choices=("plain", "json"), help="lines for people, or for machines (default: plain)")
    add_cache_options(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from cloud_pruner.service.supervisor import prepared  # noqa: PLC0415 - other commands start faster without it

    with ExitStack() as life:
        settings = _from_file(arguments) if arguments.config is not None else _from_options(arguments, life)
        service = prepared(settings, life)
        _say(f"signing with {service.key}")
        if arguments.config is None and arguments.state is None:
            _say(f"keeps its state in {Path(settings.state.files).parent} while it runs: add --state DIR to keep it")
        return service.run(lambda: _say(f"serving on {service.url}"))


def _say(line: str) -> None:
    print(f"capnn serve: {line}", flush=True)


def _from_file(arguments: argparse.Namespace) -> ServiceSettings:
    """Return the file's settings, with the server's options over them."""
    given = [name for name in _OTHERS if getattr(arguments, name) is not None]
    if given:
        named = "PROFILE" if given[0] == "profile" else f"--{given[0]}"
        raise ConfigError(f"{named} and --config do not go together: say it in {arguments.config}")
    settings = read_settings(arguments.config)
    return replace(settings, server=replace(settings.server, **_server_options(arguments)))


def _from_options(arguments: argparse.Namespace, life: ExitStack) -> ServiceSettings:
    if arguments.profile is None:
        raise ConfigError("nothing to serve: name a PROFILE made by 'capnn profile', or --config service.toml")
    if arguments.keys is None:
        raise SigningKeyError(
            "there is no key to sign with: make one with 'capnn keys generate keys/' and add --keys keys/"
        )
    server = ServerSettings(**_server_options(arguments))
    folder = arguments.state
    if folder is None:
        folder = Path(life.enter_context(tempfile.TemporaryDirectory(prefix="capnn-state-")))
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return ServiceSettings(
        state=StateSettings.in_folder(folder),
        keys=KeysSettings(arguments.keys),
        models={_model_name(arguments.profile): (arguments.profile,)},
        server=server,
        cache=CacheSettings(arguments.cache, arguments.redis, arguments.cache_policy),
    )


def _server_options(arguments: argparse.Namespace) -> dict[str, Any]:
    values = {name: getattr(arguments, name) for name in _SERVER_OPTIONS}
    return {name: value for name, value in values.items() if value is not None}


def _model_name(profile: Path) -> str:
    """Return what a model is called that has only a folder: by the folder, as far as names may be so."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", profile.absolute().name)[:64] or "model"
