"""`capnn rollout`: a new profile of a model for some devices, for more, for all, or back."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cloud_pruner.cli.state import WHERE, add_action
from cloud_pruner.cli.terminal import print_json, print_table
from cloud_pruner.errors import UnknownNameError
from cloud_pruner.state import Rollouts
from edge_runtime.commandline import CommandParser

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cloud_pruner.state import Rollout

__all__ = ["add_command"]

_DIGITS: Final = 12  # of a digest, in a table


def add_command(commands: Any) -> None:
    """Add `capnn rollout` to the subcommands."""
    parser = commands.add_parser(
        "rollout",
        help="try a new profile of a model on some devices, widen that, finish it or take it back",
        description="A service can list several profiles of a model. All devices are served with the current one; a\n"
        "share of them, always the same ones, with the one on trial. Running services follow within 2 s.",
        example=f"capnn rollout start birds profiles/birds-2 --share 0.05 {WHERE}\n"
        f"  capnn rollout widen birds --share 0.5 {WHERE}\n  capnn rollout finish birds {WHERE}",
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True, parser_class=CommandParser)
    show = add_action(actions, "rollout show", "show which profiles are served", Rollouts, _show)
    show.add_argument("model", nargs="?", metavar="MODEL", help="of the models served (default: all)")
    start = add_action(
        actions,
        "rollout start birds profiles/birds-2 --share 0.05",
        "serve a share of the devices with another profile",
        Rollouts,
        _start,
    )
    start.add_argument("model", metavar="MODEL", help="as the settings name it")
    start.add_argument("profile", metavar="PROFILE", help="its folder, or its digest or the beginning of that")
    widen = add_action(
        actions,
        "rollout widen birds --share 0.5",
        "serve more of the devices with the profile on trial",
        Rollouts,
        _widen,
    )
    widen.add_argument("model", metavar="MODEL", help="as the settings name it")
    for action in (start, widen):
        action.add_argument(
            "--share", type=_share, required=True, metavar="S", help="of the devices, above 0 and up to 1"
        )
    for name, run, what in (
        ("finish", Rollouts.finish, "serve all devices with the profile on trial"),
        ("take-back", Rollouts.take_back, "serve all devices with the current profile again"),
    ):
        action = add_action(actions, f"rollout {name} birds", what, Rollouts, _ending(run))
        action.add_argument("model", metavar="MODEL", help="as the settings name it")


def _show(arguments: argparse.Namespace, rollouts: Rollouts) -> None:
    known = rollouts.all()
    if arguments.model is not None and arguments.model not in known:
        raise UnknownNameError(f"there is no model '{arguments.model:.80}': 'capnn rollout show' names those there are")
    shown = [one for model, one in known.items() if arguments.model in (None, model)]
    if arguments.json:
        listed = [{**dataclasses.asdict(one), "profiles": rollouts.listed(one.model)} for one in shown]
        print_json({"rollouts": listed})
        return
    _print_rollouts(shown)


def _start(arguments: argparse.Namespace, rollouts: Rollouts) -> None:
    candidate: str = arguments.profile
    if Path(candidate).is_dir():
        from cloud_pruner.profile import Profile  # noqa: PLC0415 - takes a second, and is needed for a folder alone

        candidate = Profile.open(Path(candidate)).digest
    _print_changed(arguments, rollouts.start(arguments.model, candidate, arguments.share))


def _widen(arguments: argparse.Namespace, rollouts: Rollouts) -> None:
    _print_changed(arguments, rollouts.widen(arguments.model, arguments.share))


def _ending(end: Callable[[Rollouts, str], Rollout]) -> Callable[[argparse.Namespace, Rollouts], None]:
    def run(arguments: argparse.Namespace, rollouts: Rollouts) -> None:
        _print_changed(arguments, end(rollouts, arguments.model))

    return run


def _print_changed(arguments: argparse.Namespace, rollout: Rollout) -> None:
    if arguments.json:
        print_json(dataclasses.asdict(rollout))
    else:
        _print_rollouts([rollout])


def _print_rollouts(rollouts: Sequence[Rollout]) -> None:
    rows = [
        (
            one.model,
            one.current[:_DIGITS],
            "-" if one.candidate is None else one.candidate[:_DIGITS],
            "-" if one.candidate is None else f"{one.share:.1%}",
        )
        for one in rollouts
    ]
    print_table("profiles served", ("model", "current", "on trial", "share"), rows)


def _share(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is no share: write 0.05 for a twentieth of the devices") from None
