"""Searches layer by layer, as CAP'NN does: of each layer the most daring candidate that keeps every class in bounds.

The rules (CAP'NN, Algorithm 2; the same for every variant)
----------------------------------------------------------
1. Channel groups are visited in order of computation; what is fixed for one stays fixed.
2. Of a group's candidates, in the order in which the variant gives them, the first is taken for which every class i of
   the user loses at most epsilon on the *select* images, over all outputs. Candidates that would leave some layer
   without inputs or outputs do not count.
3. Where none is, the group keeps all its units.

How it is quick without changing the answer
-------------------------------------------
- Activations before the first group come from the profile, and those before each later one are kept: a trial runs only
  what can differ.
- A trial ends as soon as its answer is certain (`judge`).
- Where each group is read from one activation alone that separates the network, as in a plain chain of layers, a trial
  puts zeros in place of the pruned units there and goes on through the base's own layers, which are loaded once for
  all users, as is what they make of an image before anything is cut. What a trial computes on the way is where the
  next layer starts from, for the images that are asked for. It agrees with the cut file up to the last bits of sums.
- Elsewhere, and with folds, a trial runs *sliced* weights, from the bytes that the device will run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cloud_pruner.segments import Activations, load
from edge_runtime.errors import PlanError
from edge_runtime.flatmodel import LayerCut

if TYPE_CHECKING:
    from typing import TypeAlias

    from numpy.typing import NDArray

    from cloud_pruner.fold_fitting import FoldFitter, Folding
    from cloud_pruner.judge import Judge
    from cloud_pruner.profile import Profile
    from cloud_pruner.progress import Progress
    from cloud_pruner.segments import Segments
    from cloud_pruner.variants import Usage, Variant

    Floats: TypeAlias = NDArray[np.float32]

__all__ = ["Accepted", "search_layers"]


@dataclass(frozen=True, slots=True, eq=False)
class Accepted:
    """What was taken for one group: threshold or share, and the cut; both None where it keeps all its units."""

    figure: float | None
    cut: LayerCut | None


def search_layers(
    profile: Profile,
    segments: Segments,
    usage: Usage,
    variant: Variant,
    judge: Judge,
    fitter: FoldFitter | None,
    folding: Folding,
    progress: Progress,
) -> list[Accepted]:
    """Return what is taken for each of the profile's layers (see the module's rules); `fitter` where folds are."""
    if fitter is None and _is_chain(profile, segments):
        return _by_masks(profile, segments, usage, variant, judge, progress)
    return _by_slices(profile, segments, usage, variant, judge, fitter, folding, progress)


def _is_chain(profile: Profile, segments: Segments) -> bool:
    groups = [profile.groups[layer.group] for layer in profile.layers]
    starts = {segments.start(group) for group in groups}
    return len(starts) == len(groups) and all(segments.is_read_at_start(group) for group in groups)


def _by_slices(
    profile: Profile,
    segments: Segments,
    usage: Usage,
    variant: Variant,
    judge: Judge,
    fitter: FoldFitter | None,
    folding: Folding,
    progress: Progress,
) -> list[Accepted]:
    accepted: list[Accepted] = []
    cuts: list[LayerCut] = []
    state, values = segments.boundary, judge.inputs
    for number, layer in enumerate(profile.layers):
        progress(layer.name, number, len(profile.layers))
        group = profile.groups[layer.group]
        start = segments.start(group)
        if start != state:
            (values,) = segments.run(state, [start], cuts, values)
            state = start
        fold = None if fitter is None else fitter.next_group(group, cuts, folding)
        rest = segments.part(start, segments.output)
        taken = Accepted(None, None)
        for candidate in variant.candidates(profile, layer, usage):
            cut = LayerCut(layer.tensor, layer.units, candidate.kept) if fold is None else fold(candidate.kept)
            try:
                inputs = rest.kept_inputs(values, [*cuts, cut], cuts)
                model = load(rest, [*cuts, cut], len(inputs))
            except PlanError:
                continue
            if judge.failing(lambda images, model=model: model.run(images)[0], inputs) is None:  # type: ignore[misc]
                taken = Accepted(candidate.figure, cut)
                cuts.append(cut)
                values = inputs
                break
        accepted.append(taken)
    return accepted


def _by_masks(
    profile: Profile, segments: Segments, usage: Usage, variant: Variant, judge: Judge, progress: Progress
) -> list[Accepted]:
    accepted: list[Accepted] = []
    cuts: list[LayerCut] = []
    starts = [segments.start(profile.groups[layer.group]) for layer in profile.layers]
    ends = [*starts[1:], segments.output]
    steps = [segments.whole(*step) for step in zip(starts, ends, strict=True)]
    rests = [segments.joined(end, steps[number + 1 :]) for number, end in enumerate(ends)]
    numbers = np.arange(len(judge.rows))
    state = segments.known(starts[0], profile.splits["select"], judge.rows)
    for number, layer in enumerate(profile.layers):
        progress(layer.name, number, len(profile.layers))
        taken = Accepted(None, None)
        behind = Activations(steps[number], state, len(numbers))
        for candidate in variant.candidates(profile, layer, usage):
            cut = LayerCut(layer.tensor, layer.units, candidate.kept)
            mask = segments.mask(starts[number], layer.group, cut.kept)
            trial = Activations(steps[number], state, len(numbers), mask)

            def outputs(images: NDArray[np.int64], trial: Activations = trial, number: int = number) -> Floats:
                values = trial.of(images)
                for piece in rests[number]:
                    (values,) = piece.run(values)
                return values

            if judge.failing(outputs, numbers) is None and segments.allow([*cuts, cut]):
                taken, behind = Accepted(candidate.figure, cut), trial
                cuts.append(cut)
                break
        state = behind.of
        accepted.append(taken)
    return accepted
