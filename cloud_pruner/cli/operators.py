"""`capnn operators`: who may do everything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cloud_pruner.cli.state import WHERE, add_state_options, open_state
from cloud_pruner.cli.terminal import print_json, print_table
from cloud_pruner.state import Operators
from edge_runtime.commandline import CommandParser

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

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
    _add_action(actions, "create", _create, "make an operator, and print the token", make=True)
    _add_action(actions, "revoke", _revoke, "take an operator out, within 2 s in every process")
    _add_action(actions, "list", _list, "list the operators", named=False)


def _add_action(
    actions: Any,
    name: str,
    run: Callable[[argparse.Namespace, Operators], None],
    what: str,
    *,
    named: bool = True,
    make: bool = False,
) -> None:
    parser = actions.add_parser(
        name,
        help=what,
        description=f"{what[0].upper()}{what[1:]}.",
        example=f"capnn operators {name} {'ada ' if named else ''}{WHERE}",
    )
    if named:
        parser.add_argument("name", metavar="NAME", help="of the operator: up to 64 of the letters A-Z a-z 0-9 . _ -")
    add_state_options(parser)

    def with_operators(arguments: argparse.Namespace) -> int:
        with open_state(arguments, make=make) as database:
            run(arguments, Operators(database))
        return 0

    parser.set_defaults(run=with_operators)


def _create(arguments: argparse.Namespace, operators: Operators) -> None:
    token = operators.create(arguments.name)
    if arguments.json:
        print_json({"name": arguments.name, "token": token})
    else:
        print(token)


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
