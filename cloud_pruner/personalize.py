"""From a request to a cut model: look in the cache, else search; then emit the file and say what it is."""

from __future__ import annotations

import dataclasses
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from threadpoolctl import threadpool_limits

from cache import exact_key
from cloud_pruner.progress import no_progress
from cloud_pruner.requests import checked_usage
from cloud_pruner.search import Searcher
from edge_runtime.digests import check_digest, digest_of
from edge_runtime.errors import EdgeError
from edge_runtime.flatmodel import PruningPlan, read_graph
from edge_runtime.wire import ClassFigures, Manifest, pack, unpack

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cache import PlanCache
    from cloud_pruner.profile import Profile
    from cloud_pruner.progress import Progress
    from cloud_pruner.requests import PruneRequest
    from cloud_pruner.search import ClassCounts, SearchResult
    from cloud_pruner.variants import Usage

__all__ = ["Personalized", "Personalizer", "base_manifest"]

_ENTRY_VERSION = 1


@dataclass(frozen=True, slots=True)
class Personalized:
    """A cut model.

    Attributes
    ----------
    manifest
        What it is, and where it came from.
    plan
        The encoded `PruningPlan` that makes `model` from the base.
    model
        The .tflite file.
    held_out
        Per class of the request: the same figures on the *certify* images, which the search never saw.
    layers
        Layer name -> (units, units kept).
    seconds
        What this answer took.
    """

    manifest: Manifest
    plan: bytes
    model: memoryview
    held_out: dict[str, ClassFigures]
    layers: dict[str, tuple[int, int]]
    seconds: float


class Personalizer:
    """Cuts one profiled base model for any number of users.

    May be used from several threads; searches run one at a time.

    Parameters
    ----------
    profile
        The opened profile of the base model.
    cache
        Where earlier results are; without one every request is searched.
    """

    def __init__(self, profile: Profile, cache: PlanCache | None = None) -> None:
        self.profile = profile
        self.cache = cache
        self._searcher = Searcher(profile)
        self._searching = threading.Lock()

    def personalize(self, request: PruneRequest, progress: Progress = no_progress) -> Personalized:
        """Answer a request; `progress` is called with layer, layers done and layers in all while it searches.

        Raises
        ------
        RequestError
            The request names classes that the model does not have, or weights, a variant or an epsilon that make no
            sense.
        """
        start = time.perf_counter()
        variant, epsilon = request.checked_variant(), request.checked_epsilon()
        usage = checked_usage(request.usage, self.profile.classes)
        key = self._key(request.variant, epsilon, usage)
        answer = self._remembered(key)
        if answer is None:
            with self._searching:
                # Another thread may have searched for the same while this one waited.
                answer = self._remembered(key)
                if answer is None:
                    with threadpool_limits(1):  # two BLAS threads on a busy machine are far slower than one
                        result = self._searcher.search(usage, variant, epsilon, progress)
                    answer = self._answer(request.variant, epsilon, usage, result)
                    if self.cache is not None:
                        self.cache.store(key, _encode(answer), seconds=result.seconds)
        return dataclasses.replace(answer, seconds=time.perf_counter() - start)

    def _key(self, variant: str, epsilon: float, usage: Usage) -> str:
        return exact_key(
            entry=_ENTRY_VERSION,
            base=self.profile.base.digest,
            profile=self.profile.digest,
            variant=variant,
            epsilon=epsilon,
            classes=tuple(usage.labels.tolist()),
            weights=tuple(round(weight, 9) for weight in usage.weights.tolist()),
        )

    def _remembered(self, key: str) -> Personalized | None:
        found = self.cache.lookup(key) if self.cache is not None else None
        if found is None:
            return None
        try:
            fields = unpack(found.value)
            plan = PruningPlan.from_bytes(fields["plan"])
            model = self.profile.base.apply(plan)
            manifest = dataclasses.replace(Manifest.from_fields(fields["manifest"]), cache_tier=found.tier)
            check_digest(model, manifest.digest, "cut made from a stored plan")
            return Personalized(
                manifest=manifest,
                plan=fields["plan"],
                model=model,
                held_out={name: ClassFigures.from_fields(f, name) for name, f in fields["held_out"].items()},
                layers={name: (int(units), int(kept)) for name, (units, kept) in fields["layers"].items()},
                seconds=0.0,
            )
        except (EdgeError, KeyError, TypeError, ValueError):
            # Whatever is wrong with a stored entry, a search puts it right.
            return None

    def _answer(self, variant: str, epsilon: float, usage: Usage, result: SearchResult) -> Personalized:
        profile = self.profile
        plan = PruningPlan(profile.base.digest, result.cuts)
        model = profile.base.apply(plan)
        parameters = read_graph(model).parameters
        names = [profile.classes[label] for label in usage.labels.tolist()]
        manifest = Manifest(
            digest=digest_of(model),
            bytes=len(model),
            base=profile.base.digest,
            profile=profile.digest,
            classes=profile.classes,
            preprocessing=profile.preprocessing,
            usage=dict(zip(names, usage.weights.tolist(), strict=True)),
            variant=variant,
            epsilon=epsilon,
            guarantee="empirical",
            relative_size=parameters / profile.base.graph.parameters,
            parameters=parameters,
            per_class=_figures(result.select, profile.classes),
            cache_tier="search",
        )
        return Personalized(
            manifest=manifest,
            plan=plan.to_bytes(),
            model=model,
            held_out=_figures(result.certify, profile.classes),
            layers={layer.name: (layer.units, layer.kept) for layer in result.layers},
            seconds=result.seconds,
        )


def base_manifest(profile: Profile) -> Manifest:
    """Return the manifest of the profiled base model itself, which a device starts with."""
    base = profile.base
    return Manifest(
        digest=base.digest,
        bytes=len(base.content),
        base=base.digest,
        profile=profile.digest,
        classes=profile.classes,
        preprocessing=profile.preprocessing,
        usage={},
        variant="none",
        epsilon=0.0,
        guarantee="none",
        relative_size=1.0,
        parameters=base.graph.parameters,
        per_class={},
        cache_tier="none",
    )


def _figures(counts: Mapping[int, ClassCounts], classes: tuple[str, ...]) -> dict[str, ClassFigures]:
    return {
        classes[label]: ClassFigures(
            n=count.images, base_accuracy=count.base / count.images, accuracy=count.cut / count.images
        )
        for label, count in counts.items()
    }


def _encode(answer: Personalized) -> bytes:
    fields: dict[str, Any] = {
        "manifest": answer.manifest.to_fields(),
        "plan": answer.plan,
        "held_out": {name: figures.to_fields() for name, figures in answer.held_out.items()},
        "layers": {name: list(counts) for name, counts in answer.layers.items()},
    }
    return pack(fields)
