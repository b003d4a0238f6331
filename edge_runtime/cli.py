"""`capnn-edge`: the daemon and its tools."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_runtime.commandline import CommandParser, run_command
from edge_runtime.errors import EdgeError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

__all__ = ["main"]

_DEFAULT_URL = "http://127.0.0.1:8765"
_URL_HELP = f"the daemon's address, http://... or unix:/path (default {_DEFAULT_URL})"
_REDRAW_S = 1.0
_CLEAR = "\033[H\033[J"
_EXAMPLES = {"config": "example.toml", "unit": "capnn-edge.service"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run `capnn-edge` with `argv`, or the process's own arguments; return its exit code."""
    return run_command(_parser(), lambda arguments: int(arguments.action(arguments)), (EdgeError,), argv)


def _parser() -> CommandParser:
    parser = CommandParser(
        prog="capnn-edge",
        description="Run a classifier on this device, cut down to the classes that come up here.",
        example="capnn-edge run --config /etc/capnn/edge.toml",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=CommandParser)

    text = "serve classifications, and keep the model cut to the usage seen"
    run = commands.add_parser(
        "run", help=text, description=text, example="capnn-edge run --config /etc/capnn/edge.toml"
    )
    _add_settings(run)
    run.set_defaults(action=_run)

    text = "look whether the settings are right and fit this machine, and name everything that is wrong"
    check = commands.add_parser(
        "check", help=text, description=text, example="capnn-edge check --config /etc/capnn/edge.toml"
    )
    _add_settings(check)
    check.add_argument("--json", action="store_true", help="print a JSON object")
    check.set_defaults(action=_check)

    text = "print a configuration file to start from, or a systemd unit"
    example = commands.add_parser(
        "example", help=text, description=text, example="capnn-edge example config > /etc/capnn/edge.toml"
    )
    example.add_argument("kind", choices=_EXAMPLES, help="what to print")
    example.set_defaults(action=_example)

    text = "classify pictures, through the daemon or from its state folder"
    classify = commands.add_parser(
        "classify", help=text, description=text, example="capnn-edge classify cat.jpg dog.png --state /var/lib/capnn"
    )
    classify.add_argument(
        "images", nargs="+", type=Path, metavar="IMAGE", help="PNG, JPEG, BMP, GIF, WebP or PPM files"
    )
    source = classify.add_mutually_exclusive_group()
    source.add_argument(
        "--state", type=Path, metavar="DIR", help="classify in this process, with the model from this folder"
    )
    source.add_argument("--url", default=_DEFAULT_URL, help=_URL_HELP)
    classify.add_argument("--json", action="store_true", help="print a JSON list")
    classify.set_defaults(action=_classify)

    text = "show what the daemon does"
    status = commands.add_parser("status", help=text, description=text, example="capnn-edge status --watch")
    status.add_argument("--url", default=_DEFAULT_URL, help=_URL_HELP)
    form = status.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print the JSON of /v1/status")
    form.add_argument("--watch", action="store_true", help="show it again every second, until Ctrl-C")
    status.set_defaults(action=_status)
    return parser


def _add_settings(parser: argparse.ArgumentParser) -> None:
    """Add the options that make up the settings."""
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="TOML file with the settings; the options below go before it"
    )
    parser.add_argument("--cloud", metavar="URL", help="address of the cloud service")
    parser.add_argument(
        "--key", action="append", metavar="KEY", help="public key of the cloud service, ed25519:...; may be repeated"
    )
    parser.add_argument("--state", metavar="DIR", help="folder for models and usage")
    parser.add_argument(
        "--port", type=int, metavar="N", help="port of the local API, 0 for any free one (default 8765)"
    )
    parser.add_argument(
        "--host", metavar="ADDRESS", help="address of the local API (default 127.0.0.1, this machine alone)"
    )


def _options(arguments: argparse.Namespace) -> dict[str, Any]:
    return {name: getattr(arguments, name) for name in ("cloud", "key", "state", "port", "host")}


def _run(arguments: argparse.Namespace) -> int:
    from edge_runtime.config_check import read_config  # noqa: PLC0415 - `classify` and `status` need no settings
    from edge_runtime.process import run_daemon  # noqa: PLC0415 - likewise

    run_daemon(read_config(arguments.config, _options(arguments)))
    return 0


def _check(arguments: argparse.Namespace) -> int:
    from edge_runtime.config_check import check_address, check_settings, summary  # noqa: PLC0415 - as in `_run`
    from edge_runtime.config_file import read_settings  # noqa: PLC0415 - likewise

    settings = read_settings(arguments.config, _options(arguments))
    check_settings(settings)
    check_address(settings)
    if arguments.json:
        problems = [{"where": one.where, "setting": one.setting, "problem": one.text} for one in settings.problems]
        print(json.dumps({"ok": not problems, "problems": problems}, indent=2))
    elif settings.problems:
        for problem in settings.problems:
            print(problem, file=sys.stderr)
    else:
        print(summary(settings.config()))
    return 1 if settings.problems else 0


def _example(arguments: argparse.Namespace) -> int:
    print((Path(__file__).parent / "examples" / _EXAMPLES[arguments.kind]).read_text(encoding="utf-8"), end="")
    return 0


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
    from edge_runtime.local_client import ask  # noqa: PLC0415 - not for `run`

    return lambda image: ask(url, "POST", "/v1/classify", image)


def _status(arguments: argparse.Namespace) -> int:
    from edge_runtime.local_client import ask  # noqa: PLC0415 - not for `run`
    from edge_runtime.status_text import status_text  # noqa: PLC0415 - only this command shows it

    if arguments.watch:
        while True:
            try:
                shown = status_text(ask(arguments.url, "GET", "/v1/status"))
            except EdgeError as error:  # a daemon that is started anew comes back
                shown = str(error)
            print(f"{_CLEAR}{shown}", flush=True)
            time.sleep(_REDRAW_S)
    fields = ask(arguments.url, "GET", "/v1/status")
    print(json.dumps(fields, indent=2) if arguments.json else status_text(fields))
    return 0


if __name__ == "__main__":
    sys.exit(main())
