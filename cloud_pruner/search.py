"""Searches a cut: layer by layer, the most daring candidate that keeps every class of the user within epsilon.

The rules (CAP'NN, Algorithm 2; the same for every variant)
----------------------------------------------------------
1. Layers are visited in order of computation; what is fixed for one stays fixed.
2. Of a layer's candidates, in the order in which the variant gives them, the first is taken for which every class i of
   the user loses at most epsilon: `d_i = (base's correct - cut's correct) / n_i <= epsilon` on the *select* images,
   over all outputs.
3. Where none is, the layer keeps all its units.

How it is quick without changing the answer
-------------------------------------------
- The activations before the first layer come from the profile. A fixed layer's output is kept; a trial runs only what
  comes after it.
- A trial runs *sliced* weights, in the interpreter and from the bytes that the device will run.
- A trial ends as soon as one class has lost too many images; the class that ended the last trial goes first in the
  next.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cloud_pruner.progress import no_progress
from cloud_pruner.regression import fit_fold, weighted_moments
from edge_runtime.flatmodel import BaseModel, LayerCut, extract, takes_any_batch
from edge_runtime.interpreter import LoadedModel

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from cloud_pruner.profile import LayerProfile, Profile, Split
    from cloud_pruner.progress import Progress
    from cloud_pruner.variants import Candidate, Usage, Variant

__all__ = ["ClassCounts", "LayerChoice", "SearchResult", "Searcher"]


@dataclass(frozen=True, slots=True)
class ClassCounts:
    """Of one class: images, and how many of them base and cut get right."""

    images: int
    base: int
    cut: int

    @property
    def loss(self) -> float:
        """Top-1 accuracy lost; negative where it was gained."""
        return (self.base - self.cut) / self.images


@dataclass(frozen=True, slots=True)
class LayerChoice:
    """What the search chose for a layer: the accepted threshold or share, or None, after how many trials."""

    name: str
    units: int
    kept: int
    figure: float | None
    trials: int


@dataclass(frozen=True, slots=True, eq=False)
class SearchResult:
    """A found cut.

    Attributes
    ----------
    cuts
        Of the layers that lose units.
    layers
        What was chosen for each prunable layer.
    select, certify
        Class -> counts on the images that the search used, and on images that it did not.
    seconds
        How long it took.
    """

    cuts: tuple[LayerCut, ...]
    layers: tuple[LayerChoice, ...]
    select: dict[int, ClassCounts]
    certify: dict[int, ClassCounts]
    seconds: float


class Searcher:
    """Searches cuts on one profile. Not safe for use by two threads at once.

    Parts of the base model (from one layer's boundary on) are made on first use and kept.
    """

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self._parts: dict[tuple[int, int], BaseModel] = {}

    def search(
        self,
        usage: Usage,
        variant: Variant,
        epsilon: float,
        progress: Progress = no_progress,
    ) -> SearchResult:
        """Search the cut for `usage` (see the module's rules).

        `progress` is called with layer, layers done and layers in all.
        """
        start = time.perf_counter()
        profile = self.profile
        layers = profile.layers
        judge = _Judge(profile.splits["select"], usage, epsilon)
        # What the next layer reads, for the images that judge and for those that the fold is fitted on; already cut.
        boundary, cut = profile.boundary, None
        select = judge.inputs
        fitting, image_weights = _gather(profile.splits["profile"], usage)
        cuts: list[LayerCut] = []
        choices = []
        for number, layer in enumerate(layers):
            progress(layer.name, number, len(layers))
            segment = self.part(boundary, layer.boundary)
            content = segment.emit([] if cut is None else [cut])
            select = _run(segment, content, select)
            if variant.ridge is not None:
                fitting = _run(segment, content, fitting)
            trial = _Trial(self, layer, variant, fitting, image_weights)
            accepted, tried = trial.first_within(variant.candidates(layer, usage), select, judge)
            choices.append(_choice(layer, accepted, tried))
            boundary, cut = layer.boundary, None
            if accepted is not None:
                cut = accepted[1]
                cuts.append(cut)
                select = np.ascontiguousarray(select[..., cut.kept])
                if variant.ridge is not None:
                    fitting = np.ascontiguousarray(fitting[..., cut.kept])
        progress("done", len(layers), len(layers))
        return SearchResult(
            cuts=tuple(cuts),
            layers=tuple(choices),
            select=self.count(cuts, usage, "select"),
            certify=self.count(cuts, usage, "certify"),
            seconds=time.perf_counter() - start,
        )

    def count(self, cuts: Sequence[LayerCut], usage: Usage, split: str) -> dict[int, ClassCounts]:
        """Count what base and cut get right of each class of `usage` on the images of `split`.

        Batch 1, as a device runs them.
        """
        images = self.profile.splits[split]
        part = self.part(self.profile.boundary, self.profile.base.graph.outputs[0])
        model = LoadedModel(part.emit(cuts), name="cut model")
        counts = {}
        for label in usage.labels.tolist():
            rows = images.rows(label)
            predictions = model.run(images.activations[rows])[0].argmax(axis=1)
            counts[label] = ClassCounts(
                images=rows.stop - rows.start,
                base=int((images.predictions[rows] == label).sum()),
                cut=int((predictions == label).sum()),
            )
        return counts

    def part(self, source: int, target: int) -> BaseModel:
        """Return the part of the base model from activation `source` to `target`."""
        if (source, target) not in self._parts:
            content = extract(bytes(self.profile.base.content), [source], [target])
            self._parts[source, target] = BaseModel(content, inputs_are_cut=True, name="part of the base model")
        return self._parts[source, target]


class _Judge:
    """Counts a trial's losses on the select images, class by class, and says when a class has lost too many."""

    def __init__(self, split: Split, usage: Usage, epsilon: float) -> None:
        labels = usage.labels.tolist()
        rows = [split.rows(label) for label in labels]
        self.inputs = np.concatenate([split.activations[r] for r in rows])
        sizes = [r.stop - r.start for r in rows]
        ends = np.cumsum(sizes).tolist()
        self.batch = max(sizes)
        self._classes = []
        for label, r, size, end in zip(labels, rows, sizes, ends, strict=True):
            correct = int((split.predictions[r] == label).sum())
            # At most epsilon is allowed: the smallest number of right answers that is still enough.
            needed = correct - int(epsilon * size + 1e-9)
            self._classes.append((label, slice(end - size, end), needed))

    def passes(self, model: LoadedModel, inputs: NDArray[np.float32]) -> bool:
        """Whether no class loses more than epsilon; `inputs` are the select images at the model's input."""
        for position, (label, rows, needed) in enumerate(self._classes):
            predictions = model.run(inputs[rows])[0].argmax(axis=1)
            if int((predictions == label).sum()) < needed:
                self._classes.insert(0, self._classes.pop(position))
                return False
        return True


class _Trial:
    """Trials of one layer's candidates, all earlier layers fixed."""

    def __init__(
        self,
        searcher: Searcher,
        layer: LayerProfile,
        variant: Variant,
        fitting: NDArray[np.float32],
        image_weights: NDArray[np.float64],
    ) -> None:
        profile = searcher.profile
        self._layer = layer
        self._rest = searcher.part(layer.boundary, profile.base.graph.outputs[0])
        channels = profile.base.channels
        self._reader = channels.groups[channels.group_of(layer.output)].consumers[0].weight
        self._ridge = variant.ridge
        self._moments = None if variant.ridge is None else weighted_moments(fitting, image_weights)

    def first_within(
        self, candidates: Iterable[Candidate], select: NDArray[np.float32], judge: _Judge
    ) -> tuple[tuple[Candidate, LayerCut] | None, int]:
        """Return the first candidate that passes with its cut, or None, and how many were tried."""
        tried, batch = 0, judge.batch if takes_any_batch(self._rest.graph) else 1
        for candidate in candidates:
            tried += 1
            cut = self._cut(candidate)
            model = LoadedModel(self._rest.emit([cut]), batch=batch, name="candidate")
            if judge.passes(model, np.ascontiguousarray(select[..., cut.kept])):
                return (candidate, cut), tried
        return None, tried

    def _cut(self, candidate: Candidate) -> LayerCut:
        cut = LayerCut(self._layer.boundary, self._layer.units, candidate.kept)
        if self._moments is None or self._ridge is None:
            return cut
        fold = fit_fold(self._moments, cut.kept, cut.pruned, self._ridge, self._reader)
        return LayerCut(cut.tensor, cut.units, cut.kept, (fold,))


def _choice(layer: LayerProfile, accepted: tuple[Candidate, LayerCut] | None, trials: int) -> LayerChoice:
    if accepted is None:
        return LayerChoice(layer.name, layer.units, layer.units, None, trials)
    candidate, cut = accepted
    return LayerChoice(layer.name, layer.units, len(cut.kept), candidate.figure, trials)


def _gather(split: Split, usage: Usage) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Return the user's images of `split` and what each counts: `w_k / n_k`."""
    rows = [split.rows(label) for label in usage.labels.tolist()]
    images = np.concatenate([split.activations[r] for r in rows])
    weights = [
        np.full(r.stop - r.start, w / (r.stop - r.start)) for r, w in zip(rows, usage.weights.tolist(), strict=True)
    ]
    return images, np.concatenate(weights)


def _run(part: BaseModel, content: memoryview, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Run `content`, which is `part` as cut."""
    batch = min(len(inputs), 64) if takes_any_batch(part.graph) else 1
    outputs: NDArray[np.float32] = LoadedModel(content, batch=batch, name="part of the base model").run(inputs)[0]
    return outputs
