"""CAPTOR's order of filters, for the search layer by layer that all methods are compared in.

"Filters associated with unneeded classes" are those of clusters whose most preferred class is not the user's, and those
that prefer no class; the others never go, so that a user of all classes has nearly the whole network. First go those of
no class, then clusters in the order of how little the user's classes are to them, filters of one cluster likewise. How
many go is found for each layer within epsilon, by the search (`layer_search`), from all of them down in steps of 5 %:
what the abstract's "adaptively" means is not known to us. Weights of use do not count.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from cloud_pruner.methods import Method
from cloud_pruner.variants import Candidate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from cloud_pruner.captor.preferences import FilterPreference, Preferences
    from cloud_pruner.profile import LayerProfile, Profile
    from cloud_pruner.variants import Usage

__all__ = ["Captor", "captor_method", "unneeded_filters"]


@dataclass(frozen=True, slots=True)
class Captor:
    """A variant (`variants.Variant`) that prunes filters that prefer other classes than the user's.

    Attributes
    ----------
    preferences
        What was measured of the base model. Groups that it does not have, such as dense layers, stay whole.
    step
        Decrement of the share of unneeded filters that goes, from 1 on.
    """

    name: ClassVar[str] = "CAPTOR"
    preferences: Preferences
    step: float = 0.05

    def candidates(self, profile: Profile, layer: LayerProfile, usage: Usage) -> Iterator[Candidate]:
        """Yield a cut for each share of the unneeded filters.

        Raises
        ------
        ProfileError
            The preferences are of another base model.
        """
        profile.check_base(self.preferences.base)
        preference = self.preferences.groups.get(layer.group)
        if preference is None:
            return
        order = unneeded_filters(preference, usage.labels)
        before = 0
        for number in range(round(1.0 / self.step), 0, -1):
            count = int(self.step * number * len(order) + 1e-9)
            if count in {0, before, layer.units}:
                continue
            before = count
            yield Candidate(self.step * number, np.setdiff1d(np.arange(layer.units), order[:count]))


def captor_method(preferences: Preferences) -> Method:
    """Return the method, for a search or an evaluation."""
    variant = Captor(preferences)
    description = "baseline: filters that prefer other classes (Qin et al. 2019)"
    return Method(Captor.name, description, lambda *_: variant, "none", weighted=False)


def unneeded_filters(preference: FilterPreference, labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the filters that `labels` do not need, least needed first, `(n,)` (see the module)."""
    of_none = ~preference.filters.any(axis=1)
    needed = preference.centres[:, labels].sum(axis=1)[preference.clusters]
    own = preference.filters[:, labels].sum(axis=1)
    unneeded = of_none | ~np.isin(preference.centres.argmax(axis=1), labels)[preference.clusters]
    order = np.lexsort((own, preference.clusters, needed, ~of_none))
    chosen: NDArray[np.int64] = order[unneeded[order]]
    return chosen
