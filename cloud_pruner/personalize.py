"""From a request to a cut model: look in the cache, else search and certify; then emit the file and say what it is."""

from __future__ import annotations

import dataclasses
import threading
import time
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, cast

from threadpoolctl import threadpool_limits

from cloud_pruner.allocation import WeightCosts
from cloud_pruner.asked import Asked
from cloud_pruner.certification import walk, walk_from
from cloud_pruner.errors import CertificationError
from cloud_pruner.judge import losses_allowed, standard_error
from cloud_pruner.loss_tests import LOSS_TESTS
from cloud_pruner.manifests import base_manifest, complete
from cloud_pruner.near_hits import NEAR_SHARE, NearHit, NearHits
from cloud_pruner.personalized import DecodedAnswers, Personalized, encode
from cloud_pruner.progress import no_progress
from cloud_pruner.search import PathCut, Searcher
from edge_runtime.certificate import Certificate
from edge_runtime.digests import digest_of
from edge_runtime.errors import PlanError
from edge_runtime.flatmodel import PruningPlan, read_graph
from edge_runtime.wire import ClassFigures, Manifest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cache import CachedResult, PlanCache
    from cloud_pruner.allocation import Objective
    from cloud_pruner.certification import Walk
    from cloud_pruner.loss_tests import PairedCounts
    from cloud_pruner.profile import Profile
    from cloud_pruner.progress import Progress
    from cloud_pruner.requests import PruneRequest
    from edge_runtime.certificate import ClassEvidence
    from edge_runtime.flatmodel import LayerCut

__all__ = ["Personalized", "Personalizer", "base_manifest"]


class Personalizer:
    """Cuts one profiled base model for any number of users.

    May be used from several threads; searches run one at a time.

    Parameters
    ----------
    profile
        The opened profile of the base model.
    cache
        Where earlier results are; without one every request is searched.
    near_hits
        Whether results for other users may answer a request (`near_hits`), where they meet its bound.
    """

    def __init__(self, profile: Profile, cache: PlanCache | None = None, *, near_hits: bool = True) -> None:
        self.profile = profile
        self.cache = cache
        self._searcher = Searcher(profile)
        self._searching = threading.Lock()
        self._costs = WeightCosts(profile.base, "size")
        self._decoded = DecodedAnswers(profile.base)
        self._near_hits = NearHits(profile, cache) if cache is not None and near_hits else None

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
        asked = Asked.of(self.profile, request)
        answer = self._remembered(asked)
        if answer is None:
            self._check_images(asked)
            with ExitStack() as alone:
                if self.cache is not None:
                    alone.enter_context(self.cache.flight(asked.key))
                alone.enter_context(self._searching)
                # Others may have searched for the same while this one waited.
                answer = self._remembered(asked, again=True)
                if answer is None:
                    alone.enter_context(threadpool_limits(1))  # two BLAS threads on a busy machine are far slower
                    answer = self._worked_out(asked, start, progress)
        return dataclasses.replace(answer, seconds=time.perf_counter() - start)

    def exact(self, request: PruneRequest) -> Personalized | None:
        """Answer a request that was answered before, without waiting for any search; None where it was not.

        Raises
        ------
        RequestError
            As `personalize`.
        """
        start = time.perf_counter()
        asked = Asked.of(self.profile, request)
        key = asked.key
        answer = self._decoded_answer(asked, key, None if self.cache is None else self.cache.peek(key))
        return None if answer is None else dataclasses.replace(answer, seconds=time.perf_counter() - start)

    def _remembered(self, asked: Asked, *, again: bool = False) -> Personalized | None:
        key = asked.key
        return self._decoded_answer(asked, key, None if self.cache is None else self.cache.lookup(key, again=again))

    def _decoded_answer(self, asked: Asked, key: str, found: CachedResult | None) -> Personalized | None:
        answer = None if found is None else self._decoded.of(key, found.value)
        return None if answer is None else answer.answering(asked, "exact")

    def _worked_out(self, asked: Asked, start: float, progress: Progress) -> Personalized:
        """Return a near hit, or else what a search finds; remember it."""
        near = NearHit(None) if self._near_hits is None else self._near_hits.superset(asked)
        if near.answer is None and self._near_hits is not None and not near.looked:
            near = self._by_thresholds(asked, self._near_hits, start)
        if near.answer is not None:
            answer = near.answer
        else:
            answer = self._by_search(asked, 1.0 - NEAR_SHARE if near.looked else 1.0, start, progress)
        if self.cache is not None:
            self.cache.store(asked.key, encode(answer), seconds=time.perf_counter() - start)
        return answer

    def _by_thresholds(self, asked: Asked, near_hits: NearHits, start: float) -> NearHit:
        """Try what users alike keep, with folds fitted for this one."""
        count = partial(near_hits.cache.count, "thresholds")
        alike = near_hits.kept(asked)
        if alike is None:
            count("miss")
            return NearHit(None)
        kept, seconds = alike
        walked = None
        try:
            cuts = self._searcher.fitted(asked.usage, kept, asked.folding, asked.request.epsilon)
            counts = self._searcher.count(cuts, asked.usage, "select")
        except PlanError:  # some layer would be left without channels
            count("rejected")
            return NearHit(None)
        if any(one.base - one.cut > losses_allowed(asked.request.epsilon, one.images) for one in counts.values()):
            count("rejected")
            return NearHit(None)
        if asked.is_certified:
            walked, _ = self._certify(asked, [PathCut(kept, lambda: cuts)], NEAR_SHARE)
            if not walked.shipped:
                count("rejected")
                return NearHit(None, looked=True)
        count("hit", seconds - (time.perf_counter() - start))
        return NearHit(self._answer(asked, "thresholds", cuts, cuts, walked, counts))

    def _by_search(self, asked: Asked, share: float, start: float, progress: Progress) -> Personalized:
        """Search, and certify what was found with a share of delta."""
        result = self._searcher.search(
            asked.usage,
            asked.method,
            self._aim(asked) if asked.is_certified else asked.request.epsilon,
            folding=asked.folding,
            objective=cast("Objective", asked.request.objective),
            progress=progress,
        )
        cuts, walked = result.cuts, None
        if asked.is_certified:
            # Layer by layer, the first cut is the mildest; along one path, milder cuts may lose more than daring ones.
            by_layers = asked.method.variant is not None
            safest = 0 if by_layers else self._searcher.safest(result.path, asked.usage)
            walked, made = self._certify(asked, result.path, share, safest)
            cuts = made[walked.shipped]
        answer = self._answer(asked, "search", cuts, result.cuts, walked)
        if self._near_hits is not None:
            self._near_hits.remember(asked, result, answer.found_size, time.perf_counter() - start)
        return answer

    def _aim(self, asked: Asked) -> float:
        """Return what a search may let each class lose that is to be certified: epsilon less one standard error of it.

        What loses all of epsilon on the *select* images can hardly be shown to lose less on others.
        """
        epsilon, split = asked.request.epsilon, self.profile.splits["select"]
        images = min(len(split.labels[split.rows(label)]) for label in asked.usage.labels.tolist())
        return max(epsilon - standard_error(epsilon, images), 0.0)

    def _certify(
        self, asked: Asked, path: Sequence[PathCut], share: float, safest: int = 0
    ) -> tuple[Walk, Mapping[int, tuple[LayerCut, ...]]]:
        """Walk a path with a share of delta; return also the cuts that were come to, by number, 0 the base.

        `safest` is how many cuts come before the one that is surest to pass.
        """
        request = asked.request
        made: dict[int, tuple[LayerCut, ...]] = {0: ()}

        def count(number: int) -> dict[int, PairedCounts]:
            if not number:
                return self._searcher.count((), asked.usage, "certify")
            made[number] = path[number - 1].make()
            return self._searcher.count(made[number], asked.usage, "certify")

        test, delta = LOSS_TESTS[request.test], share * request.delta
        return walk_from(safest, len(path), count, epsilon=request.epsilon, delta=delta, test=test), made

    def _check_images(self, asked: Asked) -> None:
        """Raise CertificationError where nothing that prunes could be certified, before anything is searched."""
        if not asked.is_certified:
            return
        request, counts = asked.request, self._searcher.count((), asked.usage, "certify")
        walked = walk(1, lambda _: counts, epsilon=request.epsilon, delta=request.delta, test=LOSS_TESTS[request.test])
        if walked.shortfall is not None:
            line = walked.shortfall.describe(self.profile.classes[walked.shortfall.label])
            raise CertificationError(f"{line}; or ask for guarantee 'empirical'")

    def _answer(
        self,
        asked: Asked,
        tier: str,
        cuts: tuple[LayerCut, ...],
        found: tuple[LayerCut, ...],
        walked: Walk | None,
        selected: Mapping[int, PairedCounts] | None = None,
    ) -> Personalized:
        """Emit the file of `cuts` and describe it; `found` may go further, `selected` are counts on *select* images."""
        profile, request, classes = self.profile, asked.request, self.profile.classes
        plan = PruningPlan(profile.base.digest, cuts)
        packed, model = plan.to_bytes(), profile.base.apply(plan)
        digest, parameters = digest_of(model), read_graph(model).parameters
        certificate, shortfall, held_out = None, "", None
        steps: list[dict[str, ClassEvidence]] = []
        if walked is not None:
            if not walked.is_second:
                steps = [step.evidence(classes) for step in walked.steps if step.number <= walked.shipped]
            if walked.certified is not None:
                held_out, evidence = walked.certified.counts, walked.certified.evidence(classes)
                certificate = Certificate(
                    digest, profile.certify_digest, request.test, request.epsilon, request.delta, evidence
                )
            if walked.shortfall is not None:
                shortfall = walked.shortfall.describe(classes[walked.shortfall.label])
        manifest = Manifest(
            digest=digest,
            bytes=len(model),
            base=profile.base.digest,
            profile=profile.digest,
            classes=classes,
            preprocessing=profile.preprocessing,
            usage=asked.weights,
            variant=asked.method.name,
            epsilon=request.epsilon,
            guarantee=request.guarantee,
            relative_size=parameters / profile.base.graph.parameters,
            parameters=parameters,
            per_class=_figures(selected or self._searcher.count(cuts, asked.usage, "select"), classes),
            cache_tier=tier,
            certificate=certificate,
        )
        kept = {profile.base.channels.group_of(cut.tensor): len(cut.kept) for cut in cuts}
        return Personalized(
            manifest=complete(manifest, packed, model),
            plan=packed,
            base=profile.base,
            held_out=_figures(held_out or self._searcher.count(cuts, asked.usage, "certify"), classes),
            shortfall=shortfall,
            layers={layer.name: (layer.units, kept.get(layer.group, layer.units)) for layer in profile.layers},
            found_size=self._costs.relative(found),
            walk=tuple(steps),
            seconds=0.0,
        )


def _figures(counts: Mapping[int, PairedCounts], classes: tuple[str, ...]) -> dict[str, ClassFigures]:
    return {
        classes[label]: ClassFigures(
            n=count.images, base_accuracy=count.base / count.images, accuracy=count.cut / count.images
        )
        for label, count in counts.items()
        if count.images
    }
