"""`capnn serve`: the cloud service."""

from __future__ import annotations

import logging
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloud_pruner.cli.options import add_cache_options, open_cache
from cloud_pruner.errors import SigningKeyError
from cloud_pruner.personalize import Personalizer
from cloud_pruner.profile import Profile
from cloud_pruner.requests import GUARANTEES
from cloud_pruner.service import make_service
from cloud_pruner.signer import Signer
from edge_runtime.http_server import listen, serve, url_of

if TYPE_CHECKING:
    import argparse
    from types import FrameType

__all__ = ["add_command"]

_PORT = 8750


def add_command(commands: Any) -> None:
    """Add `capnn serve` to the subcommands."""
    parser = commands.add_parser(
        "serve",
        help="answer devices that ask for cuts",
        description="Serve the base model of a profile, and cuts of it, over HTTP (/docs describes the interface).",
        example="capnn serve profile/ --keys keys/ --port 8750 --cache plans.sqlite",
    )
    parser.add_argument("profile", type=Path, metavar="PROFILE", help="folder made by 'capnn profile'")
    parser.add_argument("--keys", type=Path, metavar="DIR", help="folder made by 'capnn keys generate'; required")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument(
        "--port", type=int, default=_PORT, help=f"port to listen on, 0 for a free one (default: {_PORT})"
    )
    parser.add_argument(
        "--guarantee",
        choices=GUARANTEES,
        default="certified",
        help="for requests that name none: shown on held-out images, or measured on the search's own (default: "
        "certified)",
    )
    add_cache_options(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    logging.basicConfig(level=logging.INFO, format="capnn serve: %(message)s", stream=sys.stderr)
    signal.signal(signal.SIGTERM, _terminate)
    if arguments.keys is None:
        raise SigningKeyError(
            "there is no key to sign with: make one with 'capnn keys generate keys/' and add --keys keys/"
        )
    with (
        Signer(arguments.keys) as signer,
        open_cache(arguments, patient=True) as cache,
        listen(arguments.host, arguments.port) as listener,
    ):
        service = make_service(Personalizer(Profile.open(arguments.profile), cache), signer, arguments.guarantee)
        print(f"capnn serve: signing with {signer.keys.public}", flush=True)
        print(f"capnn serve: serving on {url_of(listener)}", flush=True)
        serve(service, listener)
    return 0


def _terminate(_number: int, _frame: FrameType | None) -> None:
    sys.exit(0)
