"""What the cache answers, and how quickly, on a trace of requests to the small VGG for CIFAR-100.

`python -m benchmarks.cache --json`; needs the reference data (`CAPNN_DATA`), and half an hour. 2,000 requests, variant
L, certified (epsilon 10 %, since there are but 50 certify images a class): classes by Zipf's law with exponent 1.0,
2 to 5 of them, weights on a grid of 5 %. Ratios: `near_hits_of_misses` and `threshold_hits_of_misses` are the shares of
what exact misses that near hits of both tiers, and those by thresholds, answer; `near_hit_over_cold` is the median of
their seconds over the median of a search's. Some near hits are searched anew: `size_lost` is by how much they are
larger on average, as a share of the base. Every answer's accuracy on the certify images is counted again from its file.
"""

from __future__ import annotations

import importlib
import itertools
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.command import main
from benchmarks.profiles import profiled
from cache import LayeredStore, MemoryStore, PlanCache, SqliteStore
from cloud_pruner.images import split_per_class
from cloud_pruner.loss_tests import LOSS_TESTS, PairedCounts
from cloud_pruner.personalize import Personalizer
from cloud_pruner.profiling import ProfileSettings
from cloud_pruner.requests import PruneRequest
from edge_runtime.interpreter import LoadedModel

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

    from numpy.typing import NDArray

    from cloud_pruner.personalize import Personalized
    from cloud_pruner.profile import Profile

NETWORK = "cifar100_vgg_small"
REQUESTS = 2000
IMAGES = {"select": 50, "certify": 50}
EPSILON, DELTA, TEST = 0.1, 0.1, "clopper-pearson"
SEED = 0
SEARCHED_ANEW = 100
NEAR = ("superset", "thresholds")


def measure() -> dict[str, Any]:
    """Return the JSON object."""
    with tempfile.TemporaryDirectory() as folder:
        settings = ProfileSettings(images=dict(IMAGES))
        network = importlib.import_module(f"benchmarks.networks.{NETWORK}")
        profile = profiled(network, Path(folder), settings)
        stores = LayeredStore(MemoryStore(64 << 20), SqliteStore(Path(folder) / "plans.sqlite"))
        with PlanCache(stores) as cache:
            return _measured(profile, cache, _Checker(network, bytes(profile.base.content)))


def trace(classes: int, requests: int, seed: int) -> Iterator[dict[int, float]]:
    """Yield class -> weight: `requests` users, drawn as the module says."""
    rng = np.random.default_rng(seed)
    popularity = 1.0 / np.arange(1, classes + 1)
    labels = rng.permutation(classes)
    for _ in range(requests):
        chosen = labels[rng.choice(classes, rng.integers(2, 6), replace=False, p=popularity / popularity.sum())]
        steps = np.maximum(np.round(20 * rng.dirichlet(np.ones(len(chosen)))), 1)
        yield dict(zip(chosen.tolist(), (steps / steps.sum()).tolist(), strict=True))


def _measured(profile: Profile, cache: PlanCache, checker: _Checker) -> dict[str, Any]:
    personalizer = Personalizer(profile, cache)
    seconds: dict[str, list[float]] = defaultdict(list)
    sizes: dict[str, list[float]] = defaultdict(list)
    near: list[tuple[PruneRequest, float]] = []
    violations = 0
    for number, user in enumerate(trace(len(profile.classes), REQUESTS, SEED)):
        usage = {profile.classes[label]: weight for label, weight in user.items()}
        request = PruneRequest(usage, epsilon=EPSILON, delta=DELTA, test=TEST)
        start = time.perf_counter()
        answer = personalizer.personalize(request)
        tier = answer.manifest.cache_tier
        seconds[tier].append(time.perf_counter() - start)
        sizes[tier].append(answer.manifest.relative_size)
        violations += checker.breaks_its_bound(answer)
        if tier in NEAR:
            near.append((request, answer.manifest.relative_size))
        if number % 100 == 99:
            counts = ", ".join(f"{len(times)} {name}" for name, times in seconds.items())
            print(f"{number + 1} of {REQUESTS}: {counts}", file=sys.stderr)
    alone = Personalizer(profile)
    sample = near[:: max(len(near) // SEARCHED_ANEW, 1)]
    lost = [size - alone.personalize(request).manifest.relative_size for request, size in sample]
    count = {tier: len(times) for tier, times in seconds.items()}
    missed = REQUESTS - count.get("exact", 0)
    of_near = list(itertools.chain.from_iterable(seconds[tier] for tier in NEAR))
    tiers = cache.statistics()
    return {
        "ratios": {
            "near_hits_of_misses": len(of_near) / missed,
            "threshold_hits_of_misses": count.get("thresholds", 0) / missed,
            "near_hit_over_cold": float(np.median(of_near) / np.median(seconds["search"])),
        },
        "context": {
            "requests": REQUESTS,
            "answers_by_tier": count,
            "rejected": {"superset": tiers.superset.rejected, "thresholds": tiers.thresholds.rejected},
            "seconds": {
                tier: {"p50": float(np.median(times)), "p99": float(np.quantile(times, 0.99))}
                for tier, times in seconds.items()
            },
            "seconds_saved": {tier: getattr(tiers, tier).seconds_saved for tier in ("exact", *NEAR)},
            "mean_relative_size": {tier: float(np.mean(of_tier)) for tier, of_tier in sizes.items()},
            "size_lost": float(np.mean(lost)) if lost else None,
            "near_hits_searched_anew": len(lost),
            "answers_beyond_their_bound": violations,
        },
    }


class _Checker:
    """Counts again, from an answer's whole file and the certify images' pixels, what its certificate says."""

    def __init__(self, network: ModuleType, base: bytes) -> None:
        unseen = network.unseen_images()
        rows = split_per_class(unseen.labels, IMAGES, unseen.classes)["certify"]
        self._classes, self._labels = unseen.classes, unseen.labels[rows]
        self._inputs = network.PREPROCESSING.apply(unseen.pixels[rows])
        self._base_right = self._right(base, np.arange(len(rows)))
        self._seen: set[tuple[str, tuple[str, ...]]] = set()

    def breaks_its_bound(self, answer: Personalized) -> bool:
        """Whether some class of the request may lose more than epsilon, at the level delta; each answer counts once."""
        manifest = answer.manifest
        key = manifest.digest, tuple(sorted(manifest.usage))
        if manifest.digest == manifest.base or key in self._seen:
            return False
        self._seen.add(key)
        for name in manifest.usage:
            rows = np.flatnonzero(self._labels == self._classes.index(name))
            base, cut = self._base_right[rows], self._right(bytes(answer.model), rows)
            counts = PairedCounts(len(rows), int(base.sum()), int((base & ~cut).sum()), int((~base & cut).sum()))
            if LOSS_TESTS[TEST].p_value(counts, EPSILON) > DELTA:
                return True
        return False

    def _right(self, content: bytes, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        right: NDArray[np.bool_] = LoadedModel(content).run(self._inputs[rows])[0].argmax(axis=1) == self._labels[rows]
        return right


if __name__ == "__main__":
    main(measure)
