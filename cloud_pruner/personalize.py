"""From a request to a cut model: look in the cache, else search and certify; then emit the file and say what it is."""

from __future__ import annotations

import dataclasses
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from threadpoolctl import threadpool_limits

from cache import exact_key
from cloud_pruner.certification import walk
from cloud_pruner.errors import CertificationError
from cloud_pruner.loss_tests import LOSS_TESTS
from cloud_pruner.methods import method_named
from cloud_pruner.progress import no_progress
from cloud_pruner.requests import checked_usage
from cloud_pruner.search import Searcher
from edge_runtime.certificate import Certificate
from edge_runtime.digests import check_digest, digest_of
from edge_runtime.errors import EdgeError
from edge_runtime.flatmodel import PruningPlan, read_graph
from edge_runtime.messages import pack, unpack
from edge_runtime.wire import ClassFigures, Manifest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cache import PlanCache
    from cloud_pruner.allocation import Objective
    from cloud_pruner.certification import Walk
    from cloud_pruner.fold_fitting import Folding
    from cloud_pruner.loss_tests import PairedCounts
    from cloud_pruner.profile import Profile
    from cloud_pruner.progress import Progress
    from cloud_pruner.requests import PruneRequest
    from cloud_pruner.search import SearchResult
    from cloud_pruner.variants import Usage
    from edge_runtime.flatmodel import LayerCut

__all__ = ["Personalized", "Personalizer", "base_manifest"]

_ENTRY_VERSION = 2


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
        Per class of the request: the same figures on the *certify* images, which the search never saw; empty where the
        profile has none.
    shortfall
        In one line, why no more could be certified; empty where all that the search found was, or nothing had to be.
    layers
        Layer name -> (units, units kept).
    seconds
        What this answer took.
    """

    manifest: Manifest
    plan: bytes
    model: memoryview
    held_out: dict[str, ClassFigures]
    shortfall: str
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
            The request names classes that the model does not have, or weights that make no sense.
        CertificationError
            There are too few certify images for any cut to be certified.
        """
        start = time.perf_counter()
        usage = checked_usage(request.usage, self.profile.classes)
        key = self._key(request, usage)
        answer = self._remembered(key)
        if answer is None:
            self._check_images(request, usage)
            with self._searching:
                # Another thread may have searched for the same while this one waited.
                answer = self._remembered(key)
                if answer is None:
                    with threadpool_limits(1):  # two BLAS threads on a busy machine are far slower than one
                        answer = self._search(request, usage, progress)
                    if self.cache is not None:
                        self.cache.store(key, _encode(answer), seconds=time.perf_counter() - start)
        return dataclasses.replace(answer, seconds=time.perf_counter() - start)

    def _check_images(self, request: PruneRequest, usage: Usage) -> None:
        """Raise CertificationError where nothing that prunes could be certified, before anything is searched."""
        if request.guarantee != "certified":
            return
        counts = self._searcher.count(None, usage, "certify")
        walked = walk(1, lambda _: counts, epsilon=request.epsilon, delta=request.delta, test=LOSS_TESTS[request.test])
        if walked.shortfall is not None:
            line = walked.shortfall.describe(self.profile.classes[walked.shortfall.label])
            raise CertificationError(f"{line}; or ask for guarantee 'empirical'")

    def _key(self, request: PruneRequest, usage: Usage) -> str:
        certified = request.guarantee == "certified"
        return exact_key(
            entry=_ENTRY_VERSION,
            base=self.profile.base.digest,
            profile=self.profile.digest,
            variant=method_named(request.variant).name,
            folding=request.folding,
            objective=request.objective,
            epsilon=request.epsilon,
            guarantee=request.guarantee,
            delta=request.delta if certified else None,
            test=request.test if certified else None,
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
                shortfall=fields["shortfall"],
                layers={name: (int(units), int(kept)) for name, (units, kept) in fields["layers"].items()},
                seconds=0.0,
            )
        except (EdgeError, KeyError, TypeError, ValueError):
            # Whatever is wrong with a stored entry, a search puts it right.
            return None

    def _search(self, request: PruneRequest, usage: Usage, progress: Progress) -> Personalized:
        profile, searcher = self.profile, self._searcher
        method = method_named(request.variant)
        result = searcher.search(
            usage,
            method,
            request.epsilon,
            folding=cast("Folding | None", request.folding),
            objective=cast("Objective", request.objective),
            progress=progress,
        )
        cuts: tuple[LayerCut, ...] = result.cuts
        shortfall, evidence, held_out = "", None, None
        if request.guarantee == "certified":
            walked, path = self._certify(request, usage, result)
            cuts = path[walked.shipped]
            if walked.certified is not None:
                evidence, held_out = walked.certified.evidence(profile.classes), walked.certified.counts
            if walked.shortfall is not None:
                shortfall = walked.shortfall.describe(profile.classes[walked.shortfall.label])
        plan = PruningPlan(profile.base.digest, cuts)
        model = profile.base.apply(plan)
        digest, parameters = digest_of(model), read_graph(model).parameters
        certificate = None
        if evidence is not None:
            certificate = Certificate(
                digest, profile.certify_digest, request.test, request.epsilon, request.delta, evidence
            )
        names = [profile.classes[label] for label in usage.labels.tolist()]
        manifest = Manifest(
            digest=digest,
            bytes=len(model),
            base=profile.base.digest,
            profile=profile.digest,
            classes=profile.classes,
            preprocessing=profile.preprocessing,
            usage=dict(zip(names, usage.weights.tolist(), strict=True)),
            variant=method.name,
            epsilon=request.epsilon,
            guarantee=request.guarantee,
            relative_size=parameters / profile.base.graph.parameters,
            parameters=parameters,
            per_class=_figures(searcher.count(cuts, usage, "select"), profile.classes),
            cache_tier="search",
            certificate=certificate,
        )
        kept = {profile.base.channels.group_of(cut.tensor): len(cut.kept) for cut in cuts}
        return Personalized(
            manifest=manifest,
            plan=plan.to_bytes(),
            model=model,
            held_out=_figures(held_out or searcher.count(cuts, usage, "certify"), profile.classes),
            shortfall=shortfall,
            layers={layer.name: (layer.units, kept.get(layer.group, layer.units)) for layer in profile.layers},
            seconds=0.0,
        )

    def _certify(
        self, request: PruneRequest, usage: Usage, result: SearchResult
    ) -> tuple[Walk, Mapping[int, tuple[LayerCut, ...]]]:
        """Walk the path to the cut that was found; return also the cuts that were come to, by number, 0 the base."""
        path: dict[int, tuple[LayerCut, ...]] = {0: ()}

        def count(number: int) -> dict[int, PairedCounts]:
            if not number:
                return self._searcher.count(None, usage, "certify")
            path[number] = result.path[number - 1]()
            return self._searcher.count(path[number], usage, "certify")

        # From the first cut on: a walk that starts further along and fails there would ship nothing.
        test = LOSS_TESTS[request.test]
        return walk(len(result.path), count, epsilon=request.epsilon, delta=request.delta, test=test), path


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


def _figures(counts: Mapping[int, PairedCounts], classes: tuple[str, ...]) -> dict[str, ClassFigures]:
    return {
        classes[label]: ClassFigures(
            n=count.images, base_accuracy=count.base / count.images, accuracy=count.cut / count.images
        )
        for label, count in counts.items()
        if count.images
    }


def _encode(answer: Personalized) -> bytes:
    fields: dict[str, Any] = {
        "manifest": answer.manifest.to_fields(),
        "plan": answer.plan,
        "held_out": {name: figures.to_fields() for name, figures in answer.held_out.items()},
        "shortfall": answer.shortfall,
        "layers": {name: list(counts) for name, counts in answer.layers.items()},
    }
    return pack(fields)
