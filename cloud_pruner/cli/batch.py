"""`capnn batch`: cuts for a whole fleet at once."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloud_pruner.allocation import OBJECTIVES
from cloud_pruner.batch import BatchDefaults, BatchSettings, LocalCrew, RayCrew, run_batch
from cloud_pruner.cli.batch_progress import batch_progress
from cloud_pruner.cli.options import add_cache_options, open_cache, positive
from cloud_pruner.cli.terminal import print_json
from cloud_pruner.errors import RequestError
from cloud_pruner.methods import METHODS
from cloud_pruner.profile import Profile
from cloud_pruner.requests import GUARANTEES

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from cloud_pruner.batch import BatchSummary
    from cloud_pruner.batch.scheduling import Crew

__all__ = ["add_command"]

_ENGINES = ("local", "ray")


def add_command(commands: Any) -> None:
    """Add `capnn batch` to the subcommands."""
    parser = commands.add_parser(
        "batch",
        help="cut a profiled model for a whole fleet",
        description="Cut the base model of a profile for each row of a file of requests. Rows are\n"
        '{"device": "d-1", "usage": {"cat": 0.7, "dog": 0.3}}, with variant, epsilon, guarantee, delta and\n'
        "objective where they want other than the defaults below; or the same as columns of a Parquet table.\n"
        "Requests that share a cut are searched once. What is interrupted goes on when it is started again.",
        example="capnn batch profile/ requests.jsonl -o out/ --jobs 8\n"
        "  capnn serve profile/ --keys keys/ --cache out/plans.sqlite   # answers all of them at once",
    )
    parser.add_argument("profile", type=Path, metavar="PROFILE", help="folder made by 'capnn profile'")
    parser.add_argument("requests", type=Path, metavar="REQUESTS", help="a .jsonl or .parquet file")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="write results here")
    parser.add_argument(
        "--keep-going", action="store_true", help="pass over rows that are no requests, and succeed without them"
    )
    parser.add_argument(
        "--restart", action="store_true", help="begin anew, and forget what an earlier batch has left in DIR"
    )
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")
    work = parser.add_argument_group("engine")
    work.add_argument(
        "--engine", choices=_ENGINES, default="local", help="processes of this machine, or Ray (default: local)"
    )
    work.add_argument("--jobs", type=positive, metavar="N", help="workers at once (default: one for each core)")
    work.add_argument(
        "--address", metavar="RAY", help="a Ray cluster, as auto or HOST:6379 (default: one on this machine)"
    )
    defaults = parser.add_argument_group("defaults", "for rows that do not say")
    defaults.add_argument(
        "--variant", default="L", metavar="V", help=f"how to prune: {', '.join(METHODS)} (default: L)"
    )
    defaults.add_argument(
        "--epsilon", type=float, default=0.03, metavar="E", help="top-1 accuracy a class may lose (default: 0.03)"
    )
    defaults.add_argument(
        "--guarantee", choices=GUARANTEES, default="certified", help="on which images (default: certified)"
    )
    defaults.add_argument(
        "--delta", type=float, default=0.1, metavar="D", help="how likely a certificate may be wrong (default: 0.1)"
    )
    defaults.add_argument(
        "--objective", choices=OBJECTIVES, default="size", help="what variant L makes small (default: size)"
    )
    add_cache_options(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    names = ("variant", "epsilon", "guarantee", "delta", "objective")
    settings = BatchSettings(
        arguments.engine,
        BatchDefaults(**{name: getattr(arguments, name) for name in names}),
        arguments.keep_going,
        arguments.restart,
    )
    profile = Profile.open(arguments.profile)
    with ExitStack() as stack:
        crew = _crew(arguments, profile)
        cached = arguments.cache is not None or arguments.redis is not None
        cache = stack.enter_context(open_cache(arguments)) if cached else None
        progress = stack.enter_context(batch_progress())
        summary = run_batch(
            profile, arguments.requests, arguments.output, crew, settings, cache=cache, progress=progress
        )
    if arguments.json:
        print_json(summary.to_fields())
    else:
        _print(summary, arguments.output)
    if summary.failed and not arguments.keep_going:
        print(f"capnn batch: {summary.failed} requests have no cut: see column 'error'", file=sys.stderr)
        return 1
    return 0


def _crew(arguments: argparse.Namespace, profile: Profile) -> Callable[[], AbstractContextManager[Crew]]:
    if arguments.engine == "local":
        if arguments.address is not None:
            raise RequestError("--address names a Ray cluster: add --engine ray, or leave it out")
        return partial(LocalCrew, profile.folder, arguments.jobs or len(os.sched_getaffinity(0)))
    if arguments.jobs is None and arguments.address is not None:
        return partial(RayCrew, profile, sys.maxsize, arguments.address)
    return partial(RayCrew, profile, arguments.jobs or len(os.sched_getaffinity(0)), arguments.address)


def _print(summary: BatchSummary, output: Path) -> None:
    rejected = f"; {summary.rejected:,} rows were no requests" if summary.rejected else ""
    print(f"{summary.requests:,} requests, {summary.keys:,} different ones, {summary.failed:,} without a cut{rejected}")
    print(
        f"{summary.searched:,} searched in {summary.seconds:.1f} s by {summary.workers} workers ({summary.engine}), "
        f"{summary.cached:,} from the cache, {summary.resumed:,} from before; {summary.shared:.1%} of requests take "
        "another's cut"
    )
    if summary.mean_relative_size is not None:
        print(
            f"mean relative size {summary.mean_relative_size:.3f}, {summary.certified:.1%} certified, "
            f"{summary.bytes_saved / 1e6:,.1f} MB saved on devices"
        )
    print(f"results {output / 'results.parquet'}, digest {summary.digest}")
