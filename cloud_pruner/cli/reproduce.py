"""`capnn reproduce`: the papers' experiments and the study of the cache, anew.

Experiments lie in the sources (`benchmarks`), beside the packages; only the study of the cache is part of them.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cloud_pruner.cache_study import (
    COSTS,
    Source,
    StudySettings,
    cluster_numbers,
    made_up_rates,
    of_profile,
    run_study,
    summarise,
    with_numbers,
)
from cloud_pruner.cache_study.trace import SCENARIOS
from cloud_pruner.cli.options import positive
from cloud_pruner.cli.terminal import print_json, print_table, progress_bar
from cloud_pruner.errors import MissingExtraError, PrunerError, RequestError
from cloud_pruner.profile import Profile
from edge_runtime.commandline import CommandParser

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from cloud_pruner.cache_study import Clustering, CostModel, Summary
    from cloud_pruner.progress import Progress

__all__ = ["EXPERIMENTS", "add_command"]

_MADE_UP_CLASSES = 100

EXPERIMENTS: Final = {
    "figure-4": "size of the cuts by K and usage, B, W, M and L",
    "figure-5": "accuracy of the same cuts, top-1 and top-5",
    "figure-6": "size and accuracy against K, up to all classes",
    "table-1": "energy of the cuts",
    "three-bit": "firing rates in 3 bits: what they take and what they cost",
    "table-2": "on top of class-unaware pruning",
    "table-3": "against CAPTOR on CIFAR-10",
    "journal": "three networks, L against M",
    "peers": "all methods at the same epsilon",
    "guarantee": "how often a cut loses more than it may, empirical and certified",
    "hardware": "what base and cuts cost on three accelerators",
}
"""What `capnn reproduce` runs from the sources, beside `cache`: names, and what each is about."""

_ALL: Final = "all"


def add_command(commands: Any) -> None:
    """Add `capnn reproduce` to the subcommands."""
    parser = commands.add_parser(
        "reproduce",
        help="run the papers' experiments, or one of them",
        description="Run the papers' experiments again, each beside the paper's numbers, or the study of the cache.",
        example="capnn reproduce all --quick -o report/\n  capnn reproduce table-3 -o report/\n"
        "  capnn reproduce cache profile/ -o cache-report/",
    )
    studies = parser.add_subparsers(dest="study", metavar="STUDY", required=True, parser_class=CommandParser)
    _add_experiment(studies, _ALL, "all experiments, the study of the cache among them, in one report")
    for name, about in EXPERIMENTS.items():
        _add_experiment(studies, name, about)
    _add_cache(studies)


def _add_experiment(studies: Any, name: str, about: str) -> None:
    parser = studies.add_parser(
        name,
        help=about,
        description=f"{about[0].upper()}{about[1:]}.\n\n"
        "Writes a page with tables and plots, the paper's numbers beside ours, every row as CSV, and all of it as\n"
        "JSON. Runs in a clone of the sources. Interrupted, it goes on from where it was when it is started again\n"
        "with the same settings and folder. A full run takes hours.",
        example=f"capnn reproduce {name} --quick -o report/",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("report"),
        metavar="FOLDER",
        help="the report, and what was measured for it (default: report)",
    )
    parser.add_argument("--quick", action="store_true", help="few users and networks: minutes, and wide intervals")
    parser.add_argument(
        "--networks",
        type=_names,
        metavar="N[,N]",
        help="only these networks (default: all that an experiment asks for)",
    )
    parser.add_argument(
        "--jobs",
        type=positive,
        default=os.cpu_count() or 1,
        metavar="N",
        help="processes that measure (default: one for each core)",
    )
    parser.add_argument(
        "--users",
        type=positive,
        metavar="N",
        help="users, or sets of classes, of each K (default: about 50, with --quick about 3)",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the users that are drawn (default: 0)")
    parser.add_argument("--restart", action="store_true", help="begin anew, whatever is in FOLDER from an earlier run")
    parser.add_argument("--json", action="store_true", help="print the report's summary.json")
    parser.set_defaults(run=_run_experiments)


def _run_experiments(arguments: argparse.Namespace) -> int:
    if arguments.seed < 0:
        raise RequestError(f"the seed is {arguments.seed}: give a whole number of 0 or more")
    runner = _from_sources("benchmarks.experiments.run")
    settings = runner.Settings(arguments.quick, arguments.seed, arguments.networks, arguments.users)
    names = list(runner.EXPERIMENTS) if arguments.study == _ALL else [arguments.study]
    try:
        with progress_bar("reproduce") as progress:
            outcomes = runner.reproduce(
                names,
                arguments.output,
                settings,
                jobs=arguments.jobs,
                restart=arguments.restart,
                progress=progress,
            )
    except runner.LabError as error:
        raise PrunerError(str(error)) from error
    if arguments.json:
        print_json(json.loads((arguments.output / "summary.json").read_text(encoding="utf-8")))
    else:
        lines = [[one.name, one.title, "failed" if one.error else "done", f"{one.seconds:.0f}"] for one in outcomes]
        print_table("Experiments", ["name", "title", "", "seconds"], lines)
        print(f"report: {arguments.output / 'report.html'}")
    for one in outcomes:
        if one.error:
            print(f"capnn reproduce: {one.name} failed: {one.error}", file=sys.stderr)
            if getattr(arguments, "debug", False):
                print(one.trace, file=sys.stderr)
    return 1 if any(one.error for one in outcomes) else 0


def _from_sources(module: str) -> Any:
    """Import a module of `benchmarks`, which lies beside the package in a clone and nowhere else.

    Raises
    ------
    PrunerError
        This is no clone.
    MissingExtraError
        What draws and writes the report is not installed.
    """
    root = Path(__file__).parents[2]
    if not (root / "benchmarks" / "experiments").is_dir():
        raise PrunerError(
            "the experiments are not part of the package: run this in a clone of the sources, installed with "
            "pip install -e '.[cloud,plots]'"
        )
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name in {"matplotlib", "jinja2"}:
            raise MissingExtraError("the report needs capnn[plots]: pip install 'capnn[plots]'") from error
        raise


def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.strip() for name in text.split(",")))


def _add_cache(studies: Any) -> None:
    scenarios = "\n".join(f"  {name:7} {meaning}" for name, meaning in SCENARIOS.items())
    parser = studies.add_parser(
        "cache",
        help="what the cache answers, and what it should evict",
        description="Simulate requests against the cache: hit rates by tier and search time saved, over its size,\n"
        "class clusters, Zipf's exponent of the classes' popularity, and eviction policies. Writes a page\n"
        f"with plots, every row as CSV, and a summary as JSON. Takes minutes.\n\nscenarios:\n{scenarios}",
        example="capnn reproduce cache profile/ -o report/\n  capnn reproduce cache --quick",
    )
    parser.add_argument(
        "profile",
        nargs="?",
        type=Path,
        metavar="PROFILE",
        help="whose class clusters to use (default: made-up ones, which say nothing of any network)",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("cache-report"),
        metavar="FOLDER",
        help="the report (default: cache-report)",
    )
    parser.add_argument("--quick", action="store_true", help="fewer and shorter simulations: well below a minute")
    parser.add_argument(
        "--method",
        choices=tuple(COSTS),
        default="L",
        help="L: weights do not tell requests apart, plans are large; W: they do, plans are small (default: L)",
    )
    for name, unit, what in (
        ("cold", "S", "seconds of an answer that must be searched"),
        ("near", "S", "seconds of an answer from a near hit"),
    ):
        measured = ", ".join(f"{getattr(costs, name):g} for {method}" for method, costs in COSTS.items())
        parser.add_argument(
            f"--{name}-seconds", type=float, metavar=unit, help=f"{what} (default: measured, {measured})"
        )
    parser.add_argument(
        "--entry-bytes",
        type=_sizes,
        metavar="N[,N]",
        help="sizes of stored plans, each as likely (default: measured, "
        + ", ".join(f"{costs.mean_bytes:,.0f} on average for {method}" for method, costs in COSTS.items())
        + ")",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="of the requests; a full study takes the next one too (default: 0)",
    )
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")
    parser.set_defaults(run=_run_cache)


def _run_cache(arguments: argparse.Namespace) -> int:
    try:
        from cloud_pruner.cache_study.report import report_folder, write_report  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise MissingExtraError("the report needs capnn[plots]: pip install 'capnn[plots]'") from error
    settings = _settings(arguments)
    with report_folder(arguments.output) as folder, progress_bar("cache") as progress:
        source, clusterings = _clusterings(arguments.profile, progress)
        rows = run_study(source.classes, clusterings, settings, progress)
        write_report(folder, rows, settings, clusterings, source)
    summary = summarise(rows, settings)
    if arguments.json:
        print_json(summary.to_fields(source, settings, clusterings) | {"report": str(arguments.output)})
    else:
        _print(summary, source, clusterings[0], arguments.output)
    return 0


def _settings(arguments: argparse.Namespace) -> StudySettings:
    if arguments.seed < 0:
        raise RequestError(f"the seed is {arguments.seed}: give a whole number of 0 or more")
    given = {
        "cold": arguments.cold_seconds,
        "near": arguments.near_seconds,
        "plan_bytes": arguments.entry_bytes,
    }
    costs: CostModel = dataclasses.replace(
        COSTS[arguments.method], **{name: value for name, value in given.items() if value is not None}
    )
    if arguments.quick:
        return StudySettings.quick(costs, arguments.seed)
    return StudySettings(costs, seeds=(arguments.seed, arguments.seed + 1))


def _clusterings(folder: Path | None, progress: Progress) -> tuple[Source, list[Clustering]]:
    """Return whose clusters they are, those that are not varied, and with other numbers of clusters."""
    rates: Sequence[NDArray[Any]]
    if folder is None:
        source = Source(made_up=True, name="made up", digest="", classes=_MADE_UP_CLASSES)
        rates = made_up_rates(source.classes)
        own = with_numbers(rates, [12])[0]
    else:
        profile = Profile.open(folder)
        source = Source(made_up=False, name=str(folder), digest=profile.digest, classes=len(profile.classes))
        rates = [layer.firing_rates for layer in profile.layers]
        own = of_profile(profile)
    return source, [own, *with_numbers(rates, cluster_numbers(source.classes), progress)]


def _sizes(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is no list of whole numbers: write 2000 or 2000,90000") from None


def _print(summary: Summary, source: Source, own: Clustering, output: Path) -> None:
    if source.made_up:
        print("The class clusters are made up: no profile was given. The figures say nothing of any network.")
    print(f"{source.classes} classes; clusters in each layer: {', '.join(map(str, own.counts))}")
    columns = ["policy", *(f"saved, {scenario}" for scenario in SCENARIOS), "exact", "superset", "thresholds"]
    lines = [
        [
            policy,
            *(
                f"{100 * figure.mean:.1f}"
                for figures in (summary.saved[policy], summary.tiers[policy])
                for figure in figures.values()
            ),
        ]
        for policy in summary.saved
    ]
    title = f"Cache of {summary.plans} plans ({summary.cache_bytes / 1e6:.3g} MB), s = {summary.zipf:g}:"
    print_table(f"{title} % of search time saved; % of requests answered by each tier, steady", columns, lines)
    print(f"report: {output / 'report.html'}")
