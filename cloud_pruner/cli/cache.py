"""`capnn cache`: look into a cache from outside, check it, empty it."""

from __future__ import annotations

import dataclasses
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cache import RedisStore, SqliteStore, StoreError, parse_plan_key
from cloud_pruner.cli.terminal import print_json, print_table, progress_bar
from edge_runtime.commandline import CommandParser

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from cache import EntryInfo, LastingStore

__all__ = ["add_command"]

_DIGITS = 12  # of a digest, in a table


def add_command(commands: Any) -> None:
    """Add `capnn cache` to the subcommands."""
    parser = commands.add_parser(
        "cache",
        help="look into a cache, check it, empty it",
        description="Look into the cache that 'capnn serve' or 'capnn prune' keeps in a file or on a server. It may\n"
        "be in use meanwhile. How often it has answered is for the service to say: /v1/status.",
        example="capnn cache stats --store plans.sqlite",
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True, parser_class=CommandParser)
    _add_action(actions, "stats", _stats, "what a cache holds, in all")
    _add_action(actions, "list", _list, "every entry: settings, classes, bytes, age, last use, and what it saves")
    clear = _add_action(actions, "clear", _clear, "forget every entry")
    clear.add_argument("--yes", action="store_true", help="do not ask first")
    _add_action(actions, "verify", _verify, "read every entry and check it; exit code 1 if anything is wrong")


def _add_action(actions: Any, name: str, run: Callable[[argparse.Namespace, LastingStore], int], what: str) -> Any:
    yes = " --yes" if name == "clear" else ""
    parser = actions.add_parser(
        name,
        help=what,
        description=f"{what[0].upper()}{what[1:]}.",
        example=f"capnn cache {name} --store plans.sqlite{yes}\n  capnn cache {name} --redis redis://host:6379/0{yes}",
    )
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--store", type=Path, metavar="PATH", help="a SQLite file, as given to 'capnn serve --cache'")
    where.add_argument("--redis", metavar="URL", help="a Redis or Valkey server, as given to 'capnn serve --redis'")
    parser.add_argument("--json", action="store_true", help="print the same as JSON")

    def with_store(arguments: argparse.Namespace) -> int:
        with _opened(arguments) as store:
            return run(arguments, store)

    parser.set_defaults(run=with_store)
    return parser


def _opened(arguments: argparse.Namespace) -> LastingStore:
    if arguments.store is not None:
        return SqliteStore(arguments.store, as_it_is=True)
    return RedisStore(arguments.redis, timeout=10.0)  # nobody waits for this but who has asked for it


def _stats(arguments: argparse.Namespace, store: LastingStore) -> int:
    entries = store.entries()
    plans = [parsed for entry in entries if (parsed := parse_plan_key(entry.key)) is not None]
    thresholds = sum(entry.key.startswith("threshold/") for entry in entries)
    fields: dict[str, Any] = {
        "store": store.name,
        "entries": len(entries),
        "plans": len(plans),
        "thresholds": thresholds,
        "others": len(entries) - len(plans) - thresholds,
        "settings": len({plan.settings for plan in plans}),
        "class_sets": len({plan.classes for plan in plans}),
        "bytes": sum(entry.bytes for entry in entries),
        "seconds": sum(entry.cost for entry in entries),
        "oldest": min((entry.created for entry in entries), default=None),
        "newest": max((entry.created for entry in entries), default=None),
    }
    if arguments.store is not None:
        fields["file_bytes"] = arguments.store.stat().st_size
    if arguments.json:
        print_json(fields)
        return 0
    now = time.time()
    words = {
        "store": store.name,
        "entries": f"{len(entries):,}",
        "plans": f"{fields['plans']:,}",
        "layers' thresholds": f"{thresholds:,}",
        "others": f"{fields['others']:,}",
        "different settings": f"{fields['settings']:,}",
        "different sets of classes": f"{fields['class_sets']:,}",
        "bytes of keys and values": f"{fields['bytes']:,}",
        "time that the values took": f"{fields['seconds']:,.1f} s",
        "oldest": _age(fields["oldest"], now),
        "newest": _age(fields["newest"], now),
    }
    if "file_bytes" in fields:
        words["bytes of the file"] = f"{fields['file_bytes']:,}"
    print_table("cache", ("what", "figure"), list(words.items()))
    return 0


def _list(arguments: argparse.Namespace, store: LastingStore) -> int:
    entries = sorted(store.entries(), key=lambda entry: (-(entry.last_used or entry.created), entry.key))
    if arguments.json:
        print_json({"store": store.name, "entries": [_fields(entry) for entry in entries]})
        return 0
    now = time.time()
    print_table(
        f"{len(entries):,} entries, the last used first",
        ("settings, or key", "classes", "bytes", "age", "last use", "seconds"),
        [_row(entry, now) for entry in entries],
    )
    return 0


def _clear(arguments: argparse.Namespace, store: LastingStore) -> int:
    count = len(store)
    if not arguments.yes:
        if not sys.stdin.isatty():
            raise StoreError("nobody can be asked whether to forget it all: give --yes")
        print(f"Forget {count:,} entries? [y/N] ", end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
            print("capnn: nothing was changed", file=sys.stderr)
            return 1
    store.clear()
    if arguments.json:
        print_json({"store": store.name, "cleared": count})
    else:
        print(f"{count:,} entries forgotten")
    return 0


def _verify(arguments: argparse.Namespace, store: LastingStore) -> int:
    with progress_bar("verify") as progress:
        found = store.verify(progress)
    if arguments.json:
        print_json({**dataclasses.asdict(found), "sound": found.sound})
        return 0 if found.sound else 1
    print_table(
        "verification",
        ("store", "entries read", "corrupt", "damage"),
        [(found.store, f"{found.entries:,}", f"{len(found.corrupt):,}", f"{len(found.damage):,}")],
    )
    for key in found.corrupt:
        print(f"corrupt, and dropped when it is next asked for: {_printable(key)}")
    for line in found.damage:
        print(f"damage: {_printable(line)}")
    return 0 if found.sound else 1


def _fields(entry: EntryInfo) -> dict[str, Any]:
    plan = parse_plan_key(entry.key)
    return {
        "key": entry.key,
        "settings": None if plan is None else plan.settings,
        "classes": None if plan is None else list(plan.classes),
        "bytes": entry.bytes,
        "created": entry.created,
        "last_used": entry.last_used,
        "seconds": entry.cost,
    }


def _row(entry: EntryInfo, now: float) -> tuple[str, ...]:
    plan = parse_plan_key(entry.key)
    return (
        _shortened(entry.key) if plan is None else plan.settings[:_DIGITS],
        "-" if plan is None else " ".join(map(str, plan.classes)),
        f"{entry.bytes:,}",
        _age(entry.created, now),
        _age(entry.last_used, now),
        f"{entry.cost:.2f}",
    )


def _shortened(key: str) -> str:
    """Return the words of a key, and of its digest the beginning."""
    kind, separator, digest = _printable(key).rpartition("/")
    return f"{kind}{separator}{digest[:_DIGITS]}"


def _age(moment: float | None, now: float) -> str:
    """Say how long ago a moment was, in its largest unit."""
    if moment is None:
        return "-"
    seconds = max(now - moment, 0.0)
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def _printable(text: str) -> str:
    """Return a text from a store without what would steer the terminal."""
    return "".join(character if character.isprintable() else "?" for character in text)
