"""`capnn-edge`: the daemon and its tools."""

from __future__ import annotations

import json
import logging
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_runtime.commandline import CommandParser, run_command
from edge_runtime.config import DEFAULT_PORT, read_config
from edge_runtime.errors import EdgeError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence
    from types import FrameType

__all__ = ["main"]

_DEFAULT_URL = f"http://127.0.0.1:{DEFAULT_PORT}"
_TIMEOUT_S = 30.0


def main(argv: Sequence[str] | None = None) -> int:
    """Run `capnn-edge` with `argv`, or the process's own arguments; return its exit code."""
    return run_command(_parser(), lambda arguments: int(arguments.action(arguments)), (EdgeError,), argv)


def _parser() -> CommandParser:
    parser = CommandParser(
        prog="capnn-edge",
        description="Run a classifier on this device, cut down to the classes that come up here.",
        example="capnn-edge run --cloud http://cloud.local:8080 --state /var/lib/capnn",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=CommandParser)

    text = "serve classifications, and keep the model cut to the usage seen"
    example = "capnn-edge run --config /etc/capnn/edge.toml"
    run = commands.add_parser("run", help=text, description=text, example=example)
    run.add_argument(
        "--config", type=Path, metavar="FILE", help="TOML file with the settings; the options below go before it"
    )
    run.add_argument("--cloud", metavar="URL", help="address of the cloud service")
    run.add_argument("--state", metavar="DIR", help="folder for models and counts")
    run.add_argument(
        "--port", type=int, metavar="N", help=f"port of the local API, 0 for any free one (default {DEFAULT_PORT})"
    )
    run.add_argument(
        "--host", metavar="ADDRESS", help="address of the local API (default 127.0.0.1, this machine alone)"
    )
    run.set_defaults(action=_run)

    text = "classify pictures, through the daemon or from its state folder"
    example = "capnn-edge classify cat.jpg dog.png --state /var/lib/capnn"
    classify = commands.add_parser("classify", help=text, description=text, example=example)
    classify.add_argument(
        "images", nargs="+", type=Path, metavar="IMAGE", help="PNG, JPEG, BMP, GIF, WebP or PPM files"
    )
    source = classify.add_mutually_exclusive_group()
    source.add_argument(
        "--state", type=Path, metavar="DIR", help="classify in this process, with the model from this folder"
    )
    source.add_argument("--url", default=_DEFAULT_URL, help=f"the daemon's address (default {_DEFAULT_URL})")
    classify.add_argument("--json", action="store_true", help="print a JSON list")
    classify.set_defaults(action=_classify)

    text = "show what the daemon does"
    status = commands.add_parser(
        "status", help=text, description=text, example=f"capnn-edge status --url {_DEFAULT_URL}"
    )
    status.add_argument("--url", default=_DEFAULT_URL, help=f"the daemon's address (default {_DEFAULT_URL})")
    status.add_argument("--json", action="store_true", help="print the JSON of /v1/status")
    status.set_defaults(action=_status)
    return parser


def _run(arguments: argparse.Namespace) -> int:
    options = {name: getattr(arguments, name) for name in ("cloud", "state", "port", "host")}
    config = read_config(arguments.config, options)
    logging.basicConfig(level=logging.INFO, format="capnn-edge: %(message)s", stream=sys.stderr)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    signal.signal(signal.SIGTERM, _terminate)

    from edge_runtime.api import make_app  # noqa: PLC0415 - `classify` and `status` start faster without it
    from edge_runtime.daemon import EdgeDaemon  # noqa: PLC0415 - likewise
    from edge_runtime.http_server import listen, serve, url_of  # noqa: PLC0415 - likewise

    with listen(config.host, config.port) as listener, EdgeDaemon(config) as daemon:
        print(f"capnn-edge: serving on {url_of(listener)}", flush=True)
        serve(make_app(daemon), listener)
    return 0


def _terminate(_number: int, _frame: FrameType | None) -> None:
    sys.exit(0)


def _classify(arguments: argparse.Namespace) -> int:
    answer = _classify_here(arguments.state) if arguments.state is not None else _classify_there(arguments.url)
    answers: list[dict[str, Any]] = []
    for path in arguments.images:
        try:
            fields = {"image": str(path), **answer(path.read_bytes())}
        except (EdgeError, OSError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else error
            print(f"capnn-edge: error: {path}: {reason}", file=sys.stderr)
            continue
        answers.append(fields)
        if not arguments.json:
            print(f"{path}: {fields['class']} ({100 * fields['confidence']:.1f} %)", flush=True)
    if arguments.json:
        print(json.dumps(answers, indent=2))
    return 0 if len(answers) == len(arguments.images) else 1


def _classify_here(state: Path) -> Callable[[bytes], dict[str, Any]]:
    from edge_runtime.classifier import EdgeClassifier  # noqa: PLC0415 - loads the interpreter

    classifier = EdgeClassifier.open(state)
    return lambda image: classifier.classify(image).to_fields()


def _classify_there(url: str) -> Callable[[bytes], dict[str, Any]]:
    return lambda image: _ask(url, "POST", "/v1/classify", image)


def _status(arguments: argparse.Namespace) -> int:
    from edge_runtime.status import status_text  # noqa: PLC0415 - only this command shows it

    fields = _ask(arguments.url, "GET", "/v1/status")
    print(json.dumps(fields, indent=2) if arguments.json else status_text(fields))
    return 0


def _ask(url: str, method: str, path: str, body: bytes | None = None) -> dict[str, Any]:
    """Return the daemon's answer; anything but its own JSON is an error, so that a wrong address is noticed."""
    import httpx  # noqa: PLC0415 - `run` and `classify --state` do not ask

    where = f"{url.rstrip('/')}{path}"
    try:
        # A proxy from the environment would be asked for its own loopback address.
        with httpx.Client(trust_env=False, timeout=_TIMEOUT_S) as client:
            response = client.request(method, where, content=body)
        fields = response.json()
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise EdgeError(f"{where}: no daemon answers ({error}): is capnn-edge run running there?") from error
    except ValueError as error:
        raise EdgeError(f"{where}: answers, but not as capnn-edge does: check --url") from error
    if not isinstance(fields, dict) or (response.status_code == httpx.codes.OK and "error" in fields):
        raise EdgeError(f"{where}: answers, but not as capnn-edge does: check --url")
    if response.status_code != httpx.codes.OK:
        raise EdgeError(f"{fields.get('error', response.reason_phrase)}")
    return fields


if __name__ == "__main__":
    sys.exit(main())
