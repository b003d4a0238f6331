"""`capnn evaluate`: compare methods on a profile."""

from __future__ import annotations

import argparse
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloud_pruner.cli.options import check_folder, png_file, positive
from cloud_pruner.cli.terminal import print_json, progress_bar
from cloud_pruner.errors import MissingExtraError
from cloud_pruner.evaluation import evaluate
from cloud_pruner.evaluation_sets import RESTRICTED, EvaluationSettings
from cloud_pruner.evaluation_summary import CONFIDENCE, rows_csv, set_fields, summarise
from cloud_pruner.methods import METHODS
from cloud_pruner.profile import Profile
from edge_runtime.durable import write_durably
from hwmodel import DAC20

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from matplotlib.figure import Figure

    from cloud_pruner.evaluation import SetFigures
    from cloud_pruner.evaluation_summary import Mean, Share, Summary

__all__ = ["add_command"]

_NAMES = {name.casefold(): name for name in (*METHODS, RESTRICTED)}


def add_command(commands: Any) -> None:
    """Add `capnn evaluate` to the subcommands."""
    methods = [(name, method.description) for name, method in METHODS.items()]
    methods.append((RESTRICTED, "nothing is pruned; only the outputs of the user's classes are compared"))
    width = max(len(name) for name, _ in methods)
    parser = commands.add_parser(
        "evaluate",
        help="compare methods on random class sets",
        description="Cut the base model of a profile by each method for random sets of K classes, and measure the\n"
        "cuts on the profile's report images, from which neither search nor certification takes any.\n"
        "Figures are means over the class sets, which are the same for all methods, with 95 % confidence\n"
        "intervals.\n\nmethods:\n" + "\n".join(f"  {name:{width}}  {description}" for name, description in methods),
        example="capnn evaluate profile/ --methods w,m,l,restricted --k 2,5,10 --csv sets.csv --plot methods.png",
    )
    parser.add_argument(
        "profile", type=Path, metavar="PROFILE", help="folder made by 'capnn profile ... --report-images N'"
    )
    parser.add_argument(
        "--methods", type=_words, default=_words("W,M,L,restricted"), metavar="M[,M]", help="default: W,M,L,restricted"
    )
    parser.add_argument(
        "--k", type=_whole_numbers, default=(2, 5, 10), metavar="K[,K]", help="classes of a set (default: 2,5,10)"
    )
    parser.add_argument("--sets", type=int, default=20, metavar="N", help="class sets for each K (default: 20)")
    parser.add_argument(
        "--epsilon", type=float, default=0.03, metavar="E", help="top-1 accuracy a class may lose (default: 0.03)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the class sets (default: 0)")
    parser.add_argument("--jobs", type=positive, default=1, metavar="N", help="processes to use (default: 1)")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write a line for each class set and method here")
    parser.add_argument("--plot", type=png_file, metavar="FILE.png", help="draw size and accuracy (needs capnn[plots])")
    parser.add_argument("--json", action="store_true", help="print means and single class sets as JSON")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    draw = _plotter() if arguments.plot else None
    for path in (arguments.csv, arguments.plot):
        if path is not None:
            check_folder(path)
    settings = EvaluationSettings(arguments.methods, arguments.k, arguments.sets, arguments.epsilon, arguments.seed)
    profile = Profile.open(arguments.profile)
    with progress_bar("evaluate") as progress:
        rows = evaluate(profile, settings, jobs=arguments.jobs, progress=progress)
    summaries = summarise(rows)
    if arguments.csv is not None:
        write_durably(arguments.csv, rows_csv(rows).encode())
    if draw is not None:
        image = io.BytesIO()
        draw(summaries, _title(settings)).savefig(image, dpi=150, format="png")
        write_durably(arguments.plot, image.getvalue())
    if arguments.json:
        print_json(_fields(profile, settings, summaries, rows))
    else:
        _print(profile, settings, summaries)
    return 0


def _words(text: str) -> tuple[str, ...]:
    """Parse "w,m": names of methods, in any case; what is no name stays as it is."""
    return tuple(dict.fromkeys(_NAMES.get(word.strip().casefold(), word.strip()) for word in text.split(",")))


def _whole_numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is no list of whole numbers: write 2,5,10") from None


def _plotter() -> Callable[[Sequence[Summary], str], Figure]:
    """Import what draws, before any work is done."""
    try:
        from cloud_pruner.evaluation_plots import evaluation_plot  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise MissingExtraError("--plot needs capnn[plots]: pip install 'capnn[plots]'") from error
    return evaluation_plot


def _fields(
    profile: Profile, settings: EvaluationSettings, summaries: Sequence[Summary], rows: Sequence[SetFigures]
) -> dict[str, Any]:
    return {
        "profile": str(profile.folder),
        "profile_digest": profile.digest,
        "base": profile.base.digest,
        "epsilon": settings.epsilon,
        "seed": settings.seed,
        "report_images": len(profile.splits["report"].labels),
        "confidence": CONFIDENCE,
        "accelerator": DAC20.name,
        "summaries": [summary.to_fields() for summary in summaries],
        "sets": [set_fields(row) for row in rows],
    }


def _title(settings: EvaluationSettings) -> str:
    return f"{settings.sets} class sets for each K, epsilon {settings.epsilon:g}; bars: 95 % confidence"


def _print(profile: Profile, settings: EvaluationSettings, summaries: Sequence[Summary]) -> None:
    classes = len(profile.classes)
    images = len(profile.splits["report"].labels) // classes
    header = (
        ("", "size", "bytes", "MACs", "energy", "top-1", "top-1", "top-5", "worst", "% losing", "% outside", "search"),
        ("", "", "", "", "", "%", "gain", "gain", "loss", f"over {100 * settings.epsilon:.3g}", "the set", "s"),
    )
    for k in settings.sizes:
        mine = [summary for summary in summaries if summary.k == k]
        lines = [list(line) for line in header]
        lines += _base_lines(mine[0])
        for summary in mine:
            lines += _lines(summary)
        print(f"K = {k}: {settings.sets} sets of {k} of {classes} classes; {images} report images a class")
        _print_aligned(lines)
        print()
    print("size, bytes, MACs, energy: relative to the base. Accuracies: in points, on the set's classes.")
    print("% losing: of all classes of all sets. % outside the set: of images of other classes, how many are")
    print("taken for something that is not in the set. Second lines: 95 % confidence.")


def _base_lines(summary: Summary) -> list[list[str]]:
    top1, outside = (_points(summary.means[name]) for name in ("base_top1", "base_outside"))
    empty = ("", "")
    columns = [("base", ""), *[("1", "")] * 4, top1, empty, empty, empty, empty, outside, empty]
    return [list(line) for line in zip(*columns, strict=True)]


def _lines(summary: Summary) -> list[list[str]]:
    """Return a line of figures and one of what they may be off by."""
    means = summary.means
    columns = [
        (summary.method, ""),
        *(_ratio(means[f"relative_{name}"]) for name in ("size", "bytes", "macs", "energy")),
        _points(means["top1"]),
        *(_points(means[name], sign="+") for name in ("gain", "top5_gain", "worst_loss")),
        _share(summary.beyond_epsilon),
        _points(means["outside"]),
        _seconds(means["seconds"]),
    ]
    return [list(line) for line in zip(*columns, strict=True)]


def _ratio(mean: Mean | None) -> tuple[str, str]:
    if mean is None:
        return "-", ""
    return f"{mean.mean:.3f}", "" if mean.high is None else f"±{mean.high - mean.mean:.3f}"


def _seconds(mean: Mean | None) -> tuple[str, str]:
    if mean is None:
        return "-", ""
    return f"{mean.mean:.3g}", "" if mean.high is None else f"±{mean.high - mean.mean:.2g}"


def _points(mean: Mean | None, sign: str = "") -> tuple[str, str]:
    if mean is None:
        return "-", ""
    off = "" if mean.high is None else f"±{100 * (mean.high - mean.mean):.1f}"
    return f"{100 * mean.mean:{sign}.1f}", off


def _share(share: Share) -> tuple[str, str]:
    return f"{100 * share.share:.1f}", f"{100 * share.low:.1f}-{100 * share.high:.1f}"


def _print_aligned(lines: Sequence[Sequence[str]]) -> None:
    """Print columns, the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
        print(" ".join([line[0].ljust(widths[0]), *cells]).rstrip())
