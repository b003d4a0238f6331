"""`capnn prune`: cut a profiled model for a set of classes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloud_pruner.allocation import OBJECTIVES
from cloud_pruner.cli.options import add_cache_options, open_cache
from cloud_pruner.cli.terminal import print_json, print_table, progress_bar
from cloud_pruner.errors import RequestError
from cloud_pruner.fold_fitting import FOLDINGS
from cloud_pruner.loss_tests import LOSS_TESTS
from cloud_pruner.methods import METHODS
from cloud_pruner.personalize import Personalizer
from cloud_pruner.profile import Profile
from cloud_pruner.requests import DEFAULT_TEST, GUARANTEES, PruneRequest
from edge_runtime.digests import digest_of
from edge_runtime.durable import write_durably
from edge_runtime.flatmodel import normalize, read_graph
from hwmodel import compare, estimate

if TYPE_CHECKING:
    import argparse

    from cloud_pruner.personalize import Personalized
    from edge_runtime.wire import ClassFigures, Manifest

__all__ = ["add_command"]


def add_command(commands: Any) -> None:
    """Add `capnn prune` to the subcommands."""
    parser = commands.add_parser(
        "prune",
        help="cut a profiled model for a user's classes",
        description="Cut the base model of a profile for a set of classes. No class loses more than epsilon of top-1\n"
        "accuracy, over all outputs: certified on images that the search never saw, right with a probability of\n"
        "1 - delta or more; or, with --guarantee empirical, measured on the images that it searched with.",
        example="capnn prune profile/ --classes cat dog --weights 0.7 0.3 -o cut.tflite",
    )
    parser.add_argument("profile", type=Path, metavar="PROFILE", help="folder made by 'capnn profile'")
    parser.add_argument(
        "--classes", nargs="+", required=True, metavar="NAME", help="the user's classes; also as one list: cat,dog"
    )
    parser.add_argument(
        "--weights", nargs="+", metavar="W", help="how often each comes up, on any scale (default: equally)"
    )
    parser.add_argument("--variant", default="L", metavar="V", help=f"how to prune: {', '.join(METHODS)} (default: L)")
    parser.add_argument(
        "--epsilon", type=float, default=0.03, metavar="E", help="top-1 accuracy a class may lose (default: 0.03)"
    )
    parser.add_argument(
        "--guarantee", choices=GUARANTEES, default="certified", help="on which images (default: certified)"
    )
    parser.add_argument(
        "--delta", type=float, default=0.1, metavar="D", help="how likely a certificate may be wrong (default: 0.1)"
    )
    parser.add_argument(
        "--test", choices=tuple(LOSS_TESTS), default=DEFAULT_TEST, help=f"what certifies (default: {DEFAULT_TEST})"
    )
    parser.add_argument(
        "--folding", choices=FOLDINGS, help="what becomes of pruned units (default: what the variant does)"
    )
    parser.add_argument(
        "--objective", choices=OBJECTIVES, default="size", help="what variant L makes small (default: size)"
    )
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write the cut .tflite here")
    parser.add_argument("--plan", type=Path, metavar="FILE", help="write the pruning plan here")
    parser.add_argument("--base", type=Path, metavar="FILE", help="check that the profile is of this .tflite")
    parser.add_argument("--certificate", type=Path, metavar="FILE", help="write the certificate here, as JSON")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    add_cache_options(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    profile = Profile.open(arguments.profile)
    if arguments.base is not None:
        profile.check_base(digest_of(normalize(arguments.base.read_bytes(), str(arguments.base))))
    wishes = ("variant", "epsilon", "guarantee", "delta", "test", "folding", "objective")
    request = PruneRequest(_usage(arguments, profile.classes), **{name: getattr(arguments, name) for name in wishes})
    with open_cache(arguments) as cache, progress_bar("prune") as progress:
        answer = Personalizer(profile, cache).personalize(request, progress)
    certificate = answer.manifest.certificate
    if arguments.certificate is not None and certificate is None:
        why = answer.shortfall or "with guarantee 'empirical' there is none"
        raise RequestError(f"nothing was certified, so nothing was written: {why}")
    for path, content in ((arguments.output, answer.model), (arguments.plan, answer.plan)):
        if path is not None:
            write_durably(path, content)
    if arguments.certificate is not None and certificate is not None:
        write_durably(arguments.certificate, (json.dumps(certificate.to_fields(), indent=2) + "\n").encode())
    if arguments.json:
        print_json(_fields(answer))
    else:
        _print(answer, profile)
    return 0


def _usage(arguments: argparse.Namespace, classes: tuple[str, ...]) -> dict[str, float]:
    names = _listed(arguments.classes, classes)
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise RequestError(f"class '{twice}' is named twice")
    if arguments.weights is None:
        return dict.fromkeys(names, 1.0)
    weights = _listed(arguments.weights, ())
    if len(weights) != len(names):
        raise RequestError(f"{len(weights)} weights for {len(names)} classes: give one for each")
    return {name: _weight(name, weight) for name, weight in zip(names, weights, strict=True)}


def _weight(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise RequestError(f"the weight of class '{name}' is '{text}', which is no number") from None


def _listed(words: list[str], names: tuple[str, ...]) -> list[str]:
    """Split words at commas, but for those that are names as they stand."""
    return [part for word in words for part in ([word] if word in names else word.split(",")) if part]


def _fields(answer: Personalized) -> dict[str, Any]:
    manifest = answer.manifest
    return {
        "variant": manifest.variant,
        "epsilon": manifest.epsilon,
        "guarantee": manifest.guarantee,
        "certificate": None if manifest.certificate is None else manifest.certificate.to_fields(),
        "shortfall": answer.shortfall or None,
        "classes": list(manifest.usage),
        "weights": list(manifest.usage.values()),
        "relative_size": manifest.relative_size,
        "parameters": manifest.parameters,
        "bytes": manifest.bytes,
        "plan_bytes": len(answer.plan),
        "per_class": {name: figures.to_fields() for name, figures in manifest.per_class.items()},
        "held_out": {name: figures.to_fields() for name, figures in answer.held_out.items()},
        "layers": {name: {"units": units, "kept": kept} for name, (units, kept) in answer.layers.items()},
        "seconds": answer.seconds,
        "cache_tier": manifest.cache_tier,
        "digest": manifest.digest,
    }


def _print(answer: Personalized, profile: Profile) -> None:
    manifest = answer.manifest
    print_table(
        f"{manifest.variant}, epsilon {manifest.epsilon:g}, {_guarantee(manifest)}; "
        f"from {manifest.cache_tier} in {answer.seconds:.2f} s",
        ("class", "weight", "images", "base", "cut", "held-out images", "base", "cut"),
        [
            (name, f"{weight:.3f}", *_columns(manifest.per_class.get(name)), *_columns(answer.held_out.get(name)))
            for name, weight in manifest.usage.items()
        ],
    )
    print_table(
        "kept",
        ("layer", "units", "kept"),
        [(name, str(units), str(kept)) for name, (units, kept) in answer.layers.items()],
    )
    ratios = compare(estimate(profile.base.graph), estimate(read_graph(answer.model))).ratios
    print(
        f"relative size {manifest.relative_size:.3f} ({manifest.parameters:,} parameters, {manifest.bytes:,} bytes), "
        f"relative MACs {ratios['macs']:.3f}, relative energy {ratios['energy']:.3f}, plan {len(answer.plan):,} bytes"
    )
    if answer.shortfall:
        print(f"not certified further: {answer.shortfall}")
    print(f"sha256 {manifest.digest}")


def _guarantee(manifest: Manifest) -> str:
    if manifest.certificate is None:
        return f"{manifest.guarantee}, nothing pruned" if manifest.guarantee == "certified" else manifest.guarantee
    return f"certified at delta {manifest.certificate.delta:g} ({manifest.certificate.test})"


def _columns(figures: ClassFigures | None) -> tuple[str, str, str]:
    if figures is None:
        return "0", "-", "-"
    return str(figures.n), f"{figures.base_accuracy:.1%}", f"{figures.accuracy:.1%}"
