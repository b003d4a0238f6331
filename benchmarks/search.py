"""How fast a cut is searched: by the paper's algorithm as one writes it with Keras alone, and by ours; the same cut.

`python -m benchmarks.search --json`; needs the reference data (`CAPNN_DATA`). Variant W, the last six layers, five
classes, 50 select images a class. The literal algorithm (`literal_search`) masks the Keras model, runs all of it for
every threshold with `predict`, builds a smaller one and converts it to .tflite. It has the firing rates, the base
model's answers, a model that has run once, and every core. Ours has its profile, as a service at work: it has served
all these users before and keeps nothing of what it found, but the activations of the base before the first cut
(`first_request_s` is that of a service just started), and has every core too.

`literal_over_ours_*` is with `predict` as it comes, in batches of 32; `large_batches_over_ours_*` with batches of 256,
which are quicker here. Both times end with the file; in `..._search_*` making it is left out on both sides. The literal
algorithm, seconds long, runs once for each class set; ours runs before, between and after, and the median counts.
"""

from __future__ import annotations

import contextlib
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.command import main
from benchmarks.networks import cifar10_vgg16_half, cifar100_vgg_small
from benchmarks.profiles import profiled
from cloud_pruner.images import split_per_class
from cloud_pruner.methods import METHODS
from cloud_pruner.profiling import ProfileSettings
from cloud_pruner.search import Searcher
from cloud_pruner.variants import Usage
from edge_runtime.interpreter import LoadedModel

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

    from numpy.typing import NDArray

    from cloud_pruner.profile import Profile

NETWORKS = {"cifar100": cifar100_vgg_small, "cifar_vgg16": cifar10_vgg16_half}
CLASSES = 5
SETS = 6
EPSILON = 0.03
IMAGES = {"profile": 100, "select": 50, "certify": 50}
REPEATS = 5
# The literal algorithm by batches of `predict`.
_LITERAL = {"literal": 32, "large_batches": 256}


@dataclass(frozen=True, slots=True, eq=False)
class _Cut:
    """A found cut: units that stay and accepted T of each prunable layer, times of its parts in s, the file."""

    masks: Sequence[NDArray[np.bool_]]
    thresholds: Sequence[float | None]
    seconds: dict[str, float]
    content: bytes


def measure() -> dict[str, Any]:
    """Return the JSON object: `literal_over_ours_*`, and whether both chose the same units."""
    ratios: dict[str, float] = {}
    networks = {}
    for name, network in NETWORKS.items():
        with tempfile.TemporaryDirectory() as folder:
            rows = _compare(network, Path(folder))
        whole = {who: sum(sum(row[who]["seconds"].values()) for row in rows) for who in (*_LITERAL, "ours")}
        search = {who: sum(row[who]["seconds"]["search"] for row in rows) for who in (*_LITERAL, "ours")}
        for who in _LITERAL:
            ratios[f"{who}_over_ours_{name}"] = whole[who] / whole["ours"]
            ratios[f"{who}_over_ours_search_{name}"] = search[who] / search["ours"]
        networks[name] = rows
    return {
        "ratios": ratios,
        "context": {
            "same_units": all(row["same_units"] for rows in networks.values() for row in rows),
            "epsilon": EPSILON,
            "select_images_per_class": IMAGES["select"],
            "networks": networks,
        },
    }


def _compare(network: ModuleType, folder: Path) -> list[dict[str, Any]]:
    """Return a row for each class set."""
    profile, unseen = profiled(network, folder, ProfileSettings(images=dict(IMAGES))), network.unseen_images()
    # As the profile splits them.
    select = split_per_class(unseen.labels, {split: IMAGES[split] for split in ("select", "certify")})["select"]
    rows = []
    users = [_usage(profile, seed) for seed in range(SETS)]
    searcher = Searcher(profile)
    for user in users:
        _ours(searcher, user)
    for user in users:
        mine = select[np.isin(unseen.labels[select], user.labels)]
        images, labels = network.PREPROCESSING.apply(unseen.pixels[mine]), unseen.labels[mine]
        literal: dict[str, tuple[_Cut, int]] = {}
        found = _repeatedly(searcher, user)
        for who, batch in _LITERAL.items():
            literal[who] = _literal(network.build(), images, labels, profile, user, batch)
            found += _repeatedly(searcher, user)
        ours, seconds = found[0], _medians(found)
        first = statistics.median(sum(_ours(Searcher(profile), user).seconds.values()) for _ in range(REPEATS))
        cuts = [ours, *(cut for cut, _ in literal.values())]
        outputs = [LoadedModel(cut.content).run(images)[0] for cut in cuts]
        rows.append(
            {
                "classes": [profile.classes[label] for label in user.labels],
                "weights": user.weights.tolist(),
                "same_units": all(_same(ours.masks, cut.masks) for cut in cuts),
                "units": [layer.units for layer in profile.layers],
                "outputs_differ_by": float(
                    max(np.abs(outputs[0] - other).max() for other in outputs[1:]) / np.ptp(outputs[0])
                ),
                **{who: _shown(cut, cut.seconds) | {"evaluations": runs} for who, (cut, runs) in literal.items()},
                "ours": _shown(ours, seconds) | {"first_request_s": first},
            }
        )
    return rows


def _same(masks: Sequence[NDArray[np.bool_]], others: Sequence[NDArray[np.bool_]]) -> bool:
    return all(np.array_equal(*pair) for pair in zip(masks, others, strict=True))


def _usage(profile: Profile, seed: int) -> Usage:
    rng = np.random.default_rng(seed)
    labels = np.sort(rng.choice(len(profile.classes), CLASSES, replace=False))
    return Usage(labels, rng.dirichlet(np.ones(CLASSES)) if seed % 2 else np.full(CLASSES, 1 / CLASSES))


def _literal(
    model: Any, images: NDArray[np.float32], labels: NDArray[np.int64], profile: Profile, usage: Usage, batch: int
) -> tuple[_Cut, int]:
    """Return the literal algorithm's cut, and how many times it ran the network on all of `images`."""
    import tensorflow as tf  # noqa: PLC0415 - seconds to import

    from benchmarks.literal_search import count_right, literal_search, rebuild  # noqa: PLC0415 - likewise

    firing_rates = [np.array(layer.firing_rates) for layer in profile.layers]
    base_right = count_right(model, images, labels, usage, batch)
    start = time.perf_counter()
    result = literal_search(model, images, labels, firing_rates, usage, EPSILON, base_right, batch)
    searched = time.perf_counter()
    smaller = rebuild(model, result.masks)
    rebuilt = time.perf_counter()
    with contextlib.redirect_stdout(sys.stderr):  # where the JSON goes is no place for the converter's messages
        content = tf.lite.TFLiteConverter.from_keras_model(smaller).convert()
    seconds = {"search": searched - start, "rebuild": rebuilt - searched, "convert": time.perf_counter() - rebuilt}
    return _Cut(result.masks, result.thresholds, seconds, content), result.evaluations


def _repeatedly(searcher: Searcher, usage: Usage) -> list[_Cut]:
    return [_ours(searcher, usage) for _ in range(REPEATS)]


def _medians(cuts: Sequence[_Cut]) -> dict[str, float]:
    """Return the medians of the times of a cut's parts in s."""
    return {part: statistics.median(cut.seconds[part] for cut in cuts) for part in cuts[0].seconds}


def _ours(searcher: Searcher, usage: Usage) -> _Cut:
    start = time.perf_counter()
    result = searcher.search(usage, METHODS["W"], EPSILON)
    searched = time.perf_counter()
    content = searcher.profile.base.emit(result.cuts)
    seconds = {"search": searched - start, "emit": time.perf_counter() - searched}
    kept = {cut.tensor: cut.kept for cut in result.cuts}
    masks = []
    for layer in searcher.profile.layers:
        units = np.arange(layer.units)
        masks.append(np.isin(units, kept.get(layer.tensor, units)))
    thresholds = [layer.figure for layer in result.layers]
    return _Cut(masks, thresholds, seconds, bytes(content))


def _shown(cut: _Cut, seconds: dict[str, float]) -> dict[str, Any]:
    return {
        "seconds": seconds,
        "kept": [int(mask.sum()) for mask in cut.masks],
        "thresholds": [None if threshold is None else round(threshold, 3) for threshold in cut.thresholds],
        "bytes": len(cut.content),
    }


if __name__ == "__main__":
    main(measure)
