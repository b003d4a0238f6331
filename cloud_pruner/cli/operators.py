"""`capnn operators`: who may do everything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cloud_pruner.cli.state import WHERE, add_action, add_name, print_token
from cloud_pruner.cli.terminal import print_json, print_table
from cloud_pruner.state import Operators
from edge_runtime.commandline import CommandParser

if TYPE_CHECKING:
    import argparse

__all__ = ["add_command"]


def add_command(commands: Any) -> None:
    """Add `capnn operators` to the subcommands."""
    parser = commands.add_parser(
        "operators",
        help="say who may run a service: register devices, roll out profiles, see everything",
        description="An operator's token opens everything that a service has: its pages, and each request that is not\n"
        "for everybody. It is shown once, when it is made. The service may be running.",
        example=f"capnn operators create ada {WHERE}",
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True, parser_class=CommandParser)
    create = add_action(
        actions, "operators create ada", "make an operator, and print the token", Operators, _create, make=True
    )
    add_name(create, "operator")
    revoke = add_action(
        actions, "operators revoke ada", "take an operator out, within 2 s in every process", Operators, _revoke
    )
    add_name(revoke, "operator")
    add_action(actions, "operators list", "list the operators", Operators, _list)


def _create(arguments: argparse.Namespace, operators: Operators) -> None:
    print_token(arguments, operators.create(arguments.name))


def _revoke(arguments: argparse.Namespace, operators: Operators) -> None:
    operators.revoke(arguments.name)
    if arguments.json:
        print_json({"name": arguments.name, "revoked": True})
    else:
        print(f"operator {arguments.name} is revoked: running services refuse the token within 2 s")


def _list(arguments: argparse.Namespace, operators: Operators) -> None:
    known = operators.all()
    if arguments.json:
        print_json({"operators": [{"name": name, "created": made.isoformat()} for name, made in known.items()]})
        return
    rows = [(name, made.astimezone().strftime("%Y-%m-%d %H:%M")) for name, made in known.items()]
    print_table(f"{len(rows):,} operators", ("operator", "created"), rows)
