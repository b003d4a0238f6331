"""`capnn keys`: the keys that the service signs with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloud_pruner.cli.terminal import print_json
from cloud_pruner.signing_keys import SigningKeys, generate, revoke, rotate
from edge_runtime.commandline import CommandParser
from edge_runtime.signing import public_text

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

__all__ = ["add_command"]


def add_command(commands: Any) -> None:
    """Add `capnn keys` to the subcommands."""
    parser = commands.add_parser(
        "keys",
        help="make, show, replace and take out the keys that the service signs with",
        description="A device takes only what is signed with a key that it was given, or that such a key has vouched\n"
        "for since. Whoever can read the folder of keys decides what all devices run: keep it private, and a copy of\n"
        "it elsewhere.",
        example="capnn keys generate keys/ && capnn serve profile/ --keys keys/",
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True, parser_class=CommandParser)
    _add_action(actions, "generate", lambda arguments: generate(arguments.folder), "make a folder with a new key")
    _add_action(
        actions, "show", lambda arguments: SigningKeys.open(arguments.folder), "show the keys that devices are to trust"
    )
    _add_action(
        actions,
        "rotate",
        lambda arguments: rotate(arguments.folder),
        "sign with a new key; devices learn of it by themselves, the former key stays trusted until it is revoked",
    )
    action = _add_action(
        actions,
        "revoke",
        lambda arguments: revoke(arguments.folder, arguments.key),
        "take a key out: devices that reach the service stop trusting it",
    )
    action.add_argument("key", metavar="KEY_ID", help="the key, as 'capnn keys show' names it")


def _add_action(actions: Any, name: str, act: Callable[[argparse.Namespace], SigningKeys], what: str) -> Any:
    key = " 8f434346648f6b96" if name == "revoke" else ""
    parser = actions.add_parser(
        name,
        help=what,
        description=f"{what[0].upper()}{what[1:]}. Prints every trusted key as a device's configuration wants it, its\n"
        "id, and which one signs.",
        example=f"capnn keys {name} keys/{key}",
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="the folder of keys")
    parser.add_argument("--json", action="store_true", help="print the same as JSON")

    def run(arguments: argparse.Namespace) -> int:
        _print(act(arguments), as_json=arguments.json)
        return 0

    parser.set_defaults(run=run)
    return parser


def _print(keys: SigningKeys, *, as_json: bool) -> None:
    listed = [
        {"public": public_text(public), "id": key, "signs": key == keys.signing}
        for key, public in keys.trusted.keys.items()
    ]
    if as_json:
        print_json({"serial": keys.trusted.serial, "keys": listed})
        return
    for key in listed:
        print(f"{key['public']} {key['id']}{' signs' if key['signs'] else ''}")
