"""`capnn devices`: which devices may ask, and their tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from cloud_pruner.cli.state import WHERE, add_action, add_name, print_token
from cloud_pruner.cli.terminal import print_json, print_table
from cloud_pruner.state import Devices
from edge_runtime.commandline import CommandParser

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator
    from datetime import datetime

    from cloud_pruner.state import Device

__all__ = ["add_command"]

_PAGE: Final = 1000


def add_command(commands: Any) -> None:
    """Add `capnn devices` to the subcommands."""
    parser = commands.add_parser(
        "devices",
        help="register the devices that a service answers, and revoke them",
        description="A service that asks for tokens answers the devices registered here. A token is shown once, when\n"
        "it is made: put it in the file that the device's cloud.token_file names. The service may be running.",
        example=f"capnn devices register porch {WHERE} > porch.token",
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True, parser_class=CommandParser)
    register = add_action(
        actions, "devices register porch", "register a device, and print its token", Devices, _register, make=True
    )
    add_name(register, "device")
    register.add_argument(
        "--model", default="", metavar="NAME", help="of the models served, the one it runs cuts of (default: the first)"
    )
    for command, what, run in (
        (
            "devices token porch",
            "give a device, revoked or not, a new token; the former one no longer counts",
            _token,
        ),
        ("devices revoke porch", "let a device's token count no longer, within 2 s in every process", _revoke),
    ):
        add_name(add_action(actions, command, what, Devices, run), "device")
    listing = add_action(actions, "devices list", "list the registered devices, by name", Devices, _list)
    listing.add_argument("--search", default="", metavar="TEXT", help="those with TEXT in their name or model alone")


def _register(arguments: argparse.Namespace, devices: Devices) -> None:
    print_token(arguments, devices.register(arguments.name, arguments.model))


def _token(arguments: argparse.Namespace, devices: Devices) -> None:
    print_token(arguments, devices.new_token(arguments.name))


def _revoke(arguments: argparse.Namespace, devices: Devices) -> None:
    devices.revoke(arguments.name)
    if arguments.json:
        print_json({"name": arguments.name, "revoked": True})
    else:
        print(f"device {arguments.name} is revoked: running services refuse it within 2 s")


def _list(arguments: argparse.Namespace, devices: Devices) -> None:
    listed = list(_all(devices, arguments.search))
    if arguments.json:
        print_json({"devices": [_fields(device) for device in listed]})
        return
    rows = [
        (
            device.name,
            device.model or "-",
            _day(device.registered),
            "never" if device.last_seen is None else _day(device.last_seen),
            "revoked" if device.revoked else "may ask",
        )
        for device in listed
    ]
    print_table(f"{len(rows):,} devices", ("device", "model", "registered", "last seen", "state"), rows)


def _all(devices: Devices, search: str) -> Iterator[Device]:
    page = devices.all(search=search, limit=_PAGE)
    while page:
        yield from page
        page = devices.all(after=page[-1].name, search=search, limit=_PAGE)


def _fields(device: Device) -> dict[str, Any]:
    return {
        "name": device.name,
        "model": device.model,
        "registered": device.registered.isoformat(),
        "last_seen": None if device.last_seen is None else device.last_seen.isoformat(),
        "revoked": device.revoked,
        "rolled_back": device.rolled_back,
    }


def _day(moment: datetime) -> str:
    return moment.astimezone().strftime("%Y-%m-%d %H:%M")
