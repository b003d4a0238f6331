"""Earlier results that may do for a request though it is not the same, and that must not cost it accuracy.

Two tiers, asked in this order after the exact one has missed:

- **superset**: a cut for all of the user's classes and more, under the same settings. It keeps each of these within
  bounds, and what was counted of them is stored with it. It is taken where the search for it found about as little as
  searches for so many classes do.
- **thresholds**: in each layer, the threshold that was found for a user whose classes lie in the same clusters of that
  layer, with about the same weights. For a search along one path, which has no thresholds, the units of a user whose
  classes lie in the same clusters of the last layer. Folds are fitted anew; then the cut is measured.

What certification must not see twice
-------------------------------------
A near hit that fails on the *certify* images is followed by a search whose cut is walked on the same images. So
certified requests share delta: the near hit is tested with `NEAR_SHARE` of it, and if that fails, the walk gets the
rest. A request without a near hit has all of it; at most one near hit is tested for each request. Which one does not
depend on the certify images: supersets are chosen by what the search found, not by what was certified of it. A
superset's walk is gone through again for the user's classes alone; what it ships is harmful only if the walk passed
the first harmful cut. A superset that only a second walk came to (`certification.walk_from`) has none to go through,
and is rejected: that the second was walked depended on the images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from cache import exact_key
from cloud_pruner.personalized import decode, fields_of
from cloud_pruner.progress import no_progress
from edge_runtime.messages import pack

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from cache import PlanCache
    from cloud_pruner.asked import Asked
    from cloud_pruner.personalized import Personalized
    from cloud_pruner.profile import LayerProfile, Profile
    from cloud_pruner.search import SearchResult
    from cloud_pruner.variants import Candidate

__all__ = ["NEAR_SHARE", "NearHit", "NearHits"]

NEAR_SHARE: Final = 0.75
"""The part of delta that a near hit is tested with; the rest is for the search, should it fail."""

# By how much a superset's size may lie above what searches for so many classes find on average.
_SLACK: Final = 0.02
# Supersets that are looked at, fewest classes first.
_LOOKED_AT: Final = 8
# Weights of clusters are rounded to multiples of this: thresholds hardly depend on them, and each hit is measured.
_SHARE_STEP: Final = 0.5


@dataclass(frozen=True, slots=True)
class NearHit:
    """What a tier has.

    Attributes
    ----------
    answer
        None where there is nothing, or nothing that will do.
    looked
        Whether the certify images had a say in that.
    """

    answer: Personalized | None
    looked: bool = False


class NearHits:
    """Finds them, and remembers what may be one.

    Attributes
    ----------
    cache
        Where they lie.
    """

    def __init__(self, profile: Profile, cache: PlanCache) -> None:
        self._profile, self.cache = profile, cache

    def superset(self, asked: Asked) -> NearHit:
        """Return a cut for these classes and more that is about as small as one for these alone."""
        usual = self._usual_size(asked)
        fields, seconds = (None, 0.0) if usual is None else self._smallest_enough(asked, usual + _SLACK)
        if fields is None:
            self.cache.count("superset", "miss")
            return NearHit(None)
        answer = decode(fields, self._profile.base)
        if answer is None or not _holds(answer, asked):
            self.cache.count("superset", "rejected")
            return NearHit(None, looked=asked.is_certified)
        self.cache.count("superset", "hit", seconds)
        return NearHit(answer.answering(asked, "superset"))

    def kept(self, asked: Asked) -> tuple[dict[int, NDArray[np.int64]], float] | None:
        """Return group number -> the units that users alike keep, and the seconds that their search took.

        None where there are no such users, or nothing would be pruned.
        """
        layers = self._profile.layers
        if asked.method.variant is None:
            entries = [(layers[-1], self._lookup(self._alike_key(asked, layers[-1])))]
        else:
            entries = [(layer, self._lookup(self._alike_key(asked, layer))) for layer in layers]
        found = [(layer, *entry) for layer, entry in entries if entry is not None]
        if len(found) < len(entries):
            return None
        if asked.method.variant is None:
            kept = _unpacked(found[0][1].get("kept"), layers)
        else:
            kept = self._at_thresholds(asked, [fields.get("figure") for _, fields, _ in found])
        if kept is None or all(len(kept[layer.group]) == layer.units for layer in layers):
            return None
        return kept, max(seconds for _, _, seconds in found)

    def remember(self, asked: Asked, result: SearchResult, size: float, seconds: float) -> None:
        """Keep what a search found, of a relative `size`, for users alike; `seconds` is what the request took."""
        count, total = self._sizes(asked)
        self.cache.store(self._sizes_key(asked), pack({"count": count + 1, "total": total + size}), seconds=seconds)
        if not result.cuts:
            return
        layers = self._profile.layers
        if asked.method.variant is None:
            # The cut before the one that was found: of users alike that one often loses too much to be certified.
            near = result.path[-2:][0] if asked.is_certified else result.path[-1]
            self.cache.store(self._alike_key(asked, layers[-1]), self._packed(near.kept), seconds=seconds)
            return
        for layer, choice in zip(layers, result.layers, strict=True):
            self.cache.store(self._alike_key(asked, layer), pack({"figure": choice.figure}), seconds=seconds)

    def _at_thresholds(self, asked: Asked, figures: Sequence[float | None]) -> dict[int, NDArray[np.int64]] | None:
        assert asked.method.variant is not None
        variant = asked.method.variant(self._profile, asked.request.epsilon, no_progress)
        kept = {}
        for layer, figure in zip(self._profile.layers, figures, strict=True):
            units = _at_threshold(variant.candidates(self._profile, layer, asked.usage), figure, layer)
            if units is None:
                return None
            kept[layer.group] = units
        return kept

    def _packed(self, kept: Mapping[int, NDArray[np.int64]]) -> bytes:
        bits = []
        for layer in self._profile.layers:
            mask = np.zeros(layer.units, dtype=bool)
            mask[kept.get(layer.group, slice(None))] = True
            bits.append(np.packbits(mask).tobytes())
        return pack({"kept": bits})

    def _lookup(self, key: str) -> tuple[dict[str, Any], float] | None:
        """Return an entry's fields, and the seconds that it cost; what it counts for is told by who knows."""
        found = self.cache.lookup(key, tier="thresholds")
        fields = None if found is None else fields_of(found.value)
        return None if found is None or fields is None else (fields, found.seconds)

    def _smallest_enough(self, asked: Asked, most: float) -> tuple[dict[str, Any] | None, float]:
        """Return the first superset whose search found at most a size of `most`, and the seconds that it took."""
        for key in self.cache.supersets(asked.settings, asked.usage.labels.tolist())[:_LOOKED_AT]:
            found = self._lookup(key)
            if found is not None and found[0].get("found_size", np.inf) <= most:
                return found
        return None, 0.0

    def _usual_size(self, asked: Asked) -> float | None:
        """Return the mean size that was found for so many classes; None where none was searched."""
        count, total = self._sizes(asked)
        return total / count if count else None

    def _sizes(self, asked: Asked) -> tuple[int, float]:
        fields, _ = self._lookup(self._sizes_key(asked)) or ({}, 0.0)
        return int(fields.get("count", 0)), float(fields.get("total", 0.0))

    @staticmethod
    def _sizes_key(asked: Asked) -> str:
        return f"sizes/{asked.settings}/{len(asked.usage.labels)}"

    @staticmethod
    def _alike_key(asked: Asked, layer: LayerProfile) -> str:
        """Return what users share whose classes lie in the same clusters of a layer."""
        clusters = layer.clusters[asked.usage.labels]
        alike: tuple[tuple[int, ...], ...] = tuple((cluster,) for cluster in np.unique(clusters).tolist())
        if asked.method.weighted:
            shares = np.bincount(clusters, asked.usage.weights)
            alike = tuple((c, round(float(shares[c]) / _SHARE_STEP)) for c in np.unique(clusters).tolist())
        return "alike/" + exact_key(settings=asked.settings, layer=layer.group, clusters=alike)


def _holds(answer: Personalized, asked: Asked) -> bool:
    """Whether what was counted of the user's classes shows the bound, with the near hits' part of delta."""
    names = set(asked.names)
    if asked.is_certified:
        level = NEAR_SHARE * asked.request.delta
        if answer.manifest.certificate is None or not answer.walk:
            return False
        return all(names <= set(step) and max(step[n].p_value for n in names) <= level for step in answer.walk)
    figures = answer.manifest.per_class
    return names <= set(figures) and all(
        figures[name].base_accuracy - figures[name].accuracy <= asked.request.epsilon + 1e-9 for name in names
    )


def _at_threshold(
    candidates: Iterable[Candidate], figure: float | None, layer: LayerProfile
) -> NDArray[np.int64] | None:
    """Return what a schedule keeps at a figure: equal cuts stand in it once, with the most daring figure.

    None where it would keep nothing; all units where the figure is None.
    """
    if figure is None:
        return np.arange(layer.units)
    at_least = [one for one in candidates if one.figure >= figure - 1e-9]
    return min(at_least, key=lambda one: one.figure).kept if at_least else None


def _unpacked(packed: Any, layers: Sequence[LayerProfile]) -> dict[int, NDArray[np.int64]] | None:
    if not isinstance(packed, list) or len(packed) != len(layers):
        return None
    kept = {}
    for bits, layer in zip(packed, layers, strict=True):
        if not isinstance(bits, bytes) or len(bits) != -(-layer.units // 8):
            return None
        kept[layer.group] = np.flatnonzero(np.unpackbits(np.frombuffer(bits, np.uint8), count=layer.units))
    return kept if all(len(units) for units in kept.values()) else None
