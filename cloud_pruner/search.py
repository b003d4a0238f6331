"""Searches a cut for one user, by any method, and gives the path of cuts that leads to it.

Two ways: layer by layer (`layer_search`; CAP'NN's variants and the baselines), and along one path through all layers
(`path_search`; variant L). Both judge on the *select* images; this module looks at no others but to fit folds, which
takes *profile* images.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Final

import numpy as np

from cloud_pruner.allocation import allocate
from cloud_pruner.balancing import OutputLayer, balance
from cloud_pruner.calibration import logits_of
from cloud_pruner.elimination import Observed, eliminate
from cloud_pruner.fold_fitting import RIDGE, FoldFitter
from cloud_pruner.judge import Judge, paired_counts, standard_error
from cloud_pruner.layer_search import search_layers
from cloud_pruner.path_search import search_path, stations
from cloud_pruner.progress import no_progress
from cloud_pruner.segments import Segments, load
from cloud_pruner.sensitivity import gram, scaled, weighted_by_gradients
from edge_runtime.flatmodel import LayerCut
from edge_runtime.serving import ends_in_softmax

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import TypeAlias

    from numpy.typing import NDArray

    from cloud_pruner.allocation import CutPath, Objective
    from cloud_pruner.elimination import Elimination
    from cloud_pruner.fold_fitting import Folding
    from cloud_pruner.groups import PrunableGroup, Reader
    from cloud_pruner.loss_tests import PairedCounts
    from cloud_pruner.methods import Method
    from cloud_pruner.profile import LayerProfile, Profile, Split
    from cloud_pruner.progress import Progress
    from cloud_pruner.variants import Usage
    from edge_runtime.interpreter import LoadedModel

    _Found: TypeAlias = tuple[tuple[LayerCut, ...], list[float | None], list["PathCut"]]

__all__ = ["LayerChoice", "PathCut", "SearchResult", "Searcher"]

# Where certification may start before the cut that was found, as powers of its cost. More stops would only give the
# walk more places to end at (decision 0011).
_STATIONS: Final = (0.35, 0.8)
# How many standard errors of a loss count as lost where certification chooses its start (decision 0011).
_DOUBT: Final = 0.5
# How often folds are fitted to one choice of units, with more weight on the classes that lacked more answers than
# others the time before; by which factor for what they lack, and beyond which lack that is given up.
_ROUNDS: Final = 2
_EMPHASIS: Final = 15.0
_HOPELESS: Final = 0.12
# Up to so many units a layer's W^T W is kept for later requests: 8 MB. Beyond, it is worked out again.
_REMEMBERED: Final = 1024


@dataclass(frozen=True, slots=True)
class LayerChoice:
    """What the search chose for a channel group: the accepted threshold or share, or None."""

    name: str
    units: int
    kept: int
    figure: float | None


@dataclass(frozen=True, slots=True, eq=False)
class PathCut:
    """A cut on the way to the one that was found.

    Attributes
    ----------
    kept
        Group number -> the units that it keeps; groups that are not there stay whole.
    make
        Gives the cut itself, with folds, which takes a while.
    """

    kept: Mapping[int, NDArray[np.int64]]
    make: Callable[[], tuple[LayerCut, ...]]


@dataclass(frozen=True, slots=True, eq=False)
class SearchResult:
    """A found cut.

    Attributes
    ----------
    cuts
        Of the groups that lose units, or take up folds.
    layers
        What was chosen for each prunable group.
    path
        Cut 1, 2, ... of a path that leads from nothing pruned to `cuts`, which is the last.
    seconds
        How long it took.
    """

    cuts: tuple[LayerCut, ...]
    layers: tuple[LayerChoice, ...]
    path: tuple[PathCut, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class _Bounds:
    """What a cut may lose as it is, and once it was fitted to the images that judge it: a standard error less."""

    as_it_is: Judge
    balanced: Judge

    @classmethod
    def of(cls, split: Split, usage: Usage, epsilon: float) -> _Bounds:
        images = min(int((split.labels == label).sum()) for label in usage.labels.tolist())
        spared = max(epsilon - standard_error(epsilon, images), 0.0)
        return cls(Judge(split, usage, epsilon), Judge(split, usage, spared))


class Searcher:
    """Searches cuts on one profile. Not safe for use by two threads at once.

    Pieces of the base model are made on first use and kept.
    """

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self._segments = Segments(profile.base, profile.boundary)
        self._output = OutputLayer(profile.base, list(profile.groups.values()))
        self._logits = partial(logits_of, are_probabilities=ends_in_softmax(profile.base.graph))
        self._grams: dict[Reader, NDArray[np.float64]] = {}

    def search(
        self,
        usage: Usage,
        method: Method,
        epsilon: float,
        *,
        folding: Folding | None = None,
        objective: Objective = "size",
        progress: Progress = no_progress,
    ) -> SearchResult:
        """Search the cut for `usage`.

        Parameters
        ----------
        epsilon
            Top-1 accuracy that each class may lose on the select images.
        folding
            What becomes of pruned units; None: what the method does.
        objective
            What variant L makes small; the other methods do not ask.
        progress
            Called with what is being done, how much is done, and of how much.
        """
        start = time.perf_counter()
        folding = method.folding if folding is None else folding
        split = self.profile.splits["select"]
        if method.variant is None:
            found = self._along_path(usage, _Bounds.of(split, usage, epsilon), folding, objective, progress)
        else:
            judge = Judge(split, usage, epsilon)
            found = self._by_layers(usage, method, epsilon, judge, folding, progress)
        cuts, figures, path = found
        progress("done", 1, 1)
        channels = self.profile.base.channels
        kept = {channels.group_of(cut.tensor): len(cut.kept) for cut in cuts}
        layers = tuple(
            LayerChoice(layer.name, layer.units, kept.get(layer.group, layer.units), figure)
            for layer, figure in zip(self.profile.layers, figures, strict=True)
        )
        return SearchResult(cuts, layers, tuple(path), time.perf_counter() - start)

    def fitted(
        self, usage: Usage, kept: Mapping[int, NDArray[np.int64]], folding: Folding, epsilon: float
    ) -> tuple[LayerCut, ...]:
        """Return the cuts that keep `kept` (group number -> units, ascending), with folds for `usage`.

        Outputs are balanced where some class would lose more than `epsilon` on the select images and that can help.

        Raises
        ------
        PlanError
            They would leave some axis of the network without channels.
        """
        if folding == "none":
            groups = [self.profile.groups[layer.group] for layer in self.profile.layers]
            pruned = [group for group in groups if len(kept[group.group]) < group.units]
            return tuple(LayerCut(group.tensor, group.units, kept[group.group]) for group in pruned)
        cuts = self._fitter(usage).cuts(kept, folding)
        return self._within(_Bounds.of(self.profile.splits["select"], usage, epsilon), cuts)[0] or cuts

    def safest(self, path: Sequence[PathCut], usage: Usage) -> int:
        """Return which cut on a path to a found one, from 0, loses least in the class that loses most.

        On the select images, where half a standard error counts as lost too: of two cuts that lose alike, the one
        that changes fewer answers is surer of it. The found one itself is not asked, as it loses what a search may.
        """
        losses = [max(map(_doubted, self.count(one.make(), usage, "select").values())) for one in path[:-1]]
        return losses.index(min(losses)) if losses else 0

    def count(self, cuts: Sequence[LayerCut], usage: Usage, split: str) -> dict[int, PairedCounts]:
        """Count what base and cut get right of each class of `usage` on the images of `split`; no cuts: as the base."""
        images = self.profile.splits[split]
        if not cuts:
            return paired_counts(images, usage, None)
        model = load(self.profile.suffix, cuts, 1)  # one at a time, as a device runs them
        return paired_counts(images, usage, _answers(model))

    def _by_layers(
        self, usage: Usage, method: Method, epsilon: float, judge: Judge, folding: Folding, progress: Progress
    ) -> _Found:
        assert method.variant is not None
        variant = method.variant(self.profile, epsilon, progress)
        fitter = None if folding == "none" else self._fitter(usage)
        accepted = search_layers(self.profile, self._segments, usage, variant, judge, fitter, folding, progress)
        cuts = tuple(one.cut for one in accepted if one.cut is not None)

        group_of = self.profile.base.channels.group_of
        kept = {group_of(cut.tensor): cut.kept for cut in cuts}

        def first(count: int) -> PathCut:
            return PathCut(dict(list(kept.items())[:count]), lambda: cuts[:count])

        return cuts, [one.figure for one in accepted], [first(count) for count in range(1, len(cuts) + 1)]

    def _along_path(
        self, usage: Usage, bounds: _Bounds, folding: Folding, objective: Objective, progress: Progress
    ) -> _Found:
        fitter = self._fitter(usage)
        path = self._path(usage, fitter, objective)
        images_of = _class_of_images(self.profile, usage)
        found: dict[int, tuple[tuple[LayerCut, ...], NDArray[np.float64]]] = {}

        alike = fitter.weights

        def passes(number: int) -> bool:
            kept = path.kept(number)
            fitter.weights = alike
            for left in reversed(range(_ROUNDS)):
                cuts, lacking = self._within(bounds, fitter.cuts(kept, folding))
                if cuts is not None:
                    found[number] = cuts, fitter.weights
                    return True
                if left == 0 or folding != "linear" or max(lacking.values()) > _HOPELESS:
                    return False
                fitter.weights = _emphasised(fitter.weights, images_of, lacking)
            return False

        taken, _ = search_path(path, passes, progress)
        if not taken:
            return (), [None] * len(self.profile.layers), []
        cuts, weights = found[taken]

        def station(number: int) -> PathCut:
            kept = path.kept(number)

            @cache
            def make() -> tuple[LayerCut, ...]:
                if number == taken:
                    return cuts
                fitter.weights = weights
                return fitter.cuts(kept, folding)

            return PathCut(kept, make)

        way = [station(number) for number in stations(path, taken, _STATIONS)]
        return cuts, [None] * len(self.profile.layers), way

    def _within(
        self, bounds: _Bounds, cuts: tuple[LayerCut, ...]
    ) -> tuple[tuple[LayerCut, ...] | None, dict[int, float]]:
        """Return `cuts`, with balanced outputs where it takes that, if no class then loses too much; else None.

        Also return the share of its images on which each class lacks right answers; empty where none does.
        """
        inputs = bounds.as_it_is.inputs

        def answers(cuts: tuple[LayerCut, ...]) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
            return _answers(load(self.profile.suffix, cuts, len(inputs)))

        as_they_are = answers(cuts)
        if bounds.as_it_is.failing(as_they_are, inputs) is None:
            return cuts, {}
        judge = bounds.balanced
        balanced = balance(self._logits(as_they_are(inputs)), judge.labels, judge.needed)
        if balanced.worst <= 0:
            raised = self._output.raised(cuts, balanced.constants, list(judge.needed))
            if raised is not None and judge.failing(answers(raised), inputs) is None:
                return raised, {}
        return None, balanced.lacking

    def _path(self, usage: Usage, fitter: FoldFitter, objective: Objective) -> CutPath:
        profile = self.profile
        groups = [profile.groups[layer.group] for layer in profile.layers]
        eliminations = {
            group.group: self._elimination(layer, group, usage, fitter)
            for layer, group in zip(profile.layers, groups, strict=True)
            if group.readers  # else nobody could make up for its units, or tell what they are worth
        }
        return allocate(profile.base, groups, eliminations, objective)

    def _elimination(self, layer: LayerProfile, group: PrunableGroup, usage: Usage, fitter: FoldFitter) -> Elimination:
        """Return the order of a group's units, with errors that can be compared across groups."""
        taylor, observed = self.profile.taylor, []
        for reader in group.readers:
            covariance, weights = fitter.covariance(reader), self._gram(reader)
            if taylor:
                observed.append(weighted_by_gradients(reader, covariance, weights, taylor[reader.tensor], usage))
            else:
                observed.append(Observed(reader.units, covariance, weights))
        elimination = eliminate(group.units, observed, RIDGE)
        if taylor:
            return elimination
        return scaled(elimination, group.units, layer.sensitivities[:, usage.labels].mean(axis=1))

    def _fitter(self, usage: Usage) -> FoldFitter:
        """Return what fits folds: on all the user's profile images, each class counting alike.

        Usage does not count here: a class that comes up rarely must not lose more than epsilon either.
        """
        split = self.profile.splits["profile"]
        rows = [split.rows(label) for label in usage.labels.tolist()]
        inputs = np.concatenate([split.activations[r] for r in rows])
        weights = np.concatenate([np.full(r.stop - r.start, 1.0 / len(rows) / (r.stop - r.start)) for r in rows])
        groups = [self.profile.groups[layer.group] for layer in self.profile.layers]
        return FoldFitter(self._segments, groups, inputs, weights)

    def _gram(self, reader: Reader) -> NDArray[np.float64]:
        """Return a layer's W^T W, to be used up."""
        if reader not in self._grams:
            found = gram(self.profile.base, reader)
            if len(found) > _REMEMBERED:
                return found
            self._grams[reader] = found
        return self._grams[reader].copy()


def _answers(model: LoadedModel) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    return lambda images: model.run(images)[0]


def _doubted(count: PairedCounts) -> float:
    """Return what a class loses, and half a standard error of that: answers that change are rare and independent."""
    return count.loss + _DOUBT * math.sqrt(count.newly_wrong + count.newly_right) / count.images


def _class_of_images(profile: Profile, usage: Usage) -> NDArray[np.int32]:
    """Return the class of each image that folds are fitted on, `(images,)`."""
    split = profile.splits["profile"]
    return np.concatenate([split.labels[split.rows(label)] for label in usage.labels.tolist()])


def _emphasised(
    weights: NDArray[np.float64], classes: NDArray[np.int32], lacking: Mapping[int, float]
) -> NDArray[np.float64]:
    """Return the images' weights with more on classes that lack more than the mean, and less on the others."""
    mean = float(np.mean(list(lacking.values())))
    changed = weights.copy()
    for label, share in lacking.items():
        changed[classes == label] *= np.exp(np.clip(_EMPHASIS * (share - mean), -1.0, 1.0))
    normalised: NDArray[np.float64] = changed / changed.sum()
    return normalised
