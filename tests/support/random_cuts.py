"""Random cuts of any network: which units stay, and folds that make up for those that go."""

from __future__ import annotations

import numpy as np

from edge_runtime.flatmodel import BaseModel, Fold, LayerCut


def random_cuts(base: BaseModel, rng: np.random.Generator, *, folds=("none", "mean", "linear")) -> list[LayerCut]:
    """Return cuts of some of the prunable groups, or of all; each reading layer takes up one of `folds`."""
    share = rng.choice([0.0, 0.3, 0.5, 0.8])
    keeps = np.ones(base.channels.units + 1, bool)  # the last one is for indices that stay
    cut_groups = [base.channels.groups[number] for number in base.channels.prunable if rng.random() < 0.9]
    for group in cut_groups:
        units = slice(group.first, group.first + group.units)
        keeps[units] = rng.random(group.units) < share
        keeps[units][rng.integers(group.units)] = True
    # A tensor without any channel is none.
    for axes in base.channels.axes.values():
        for labels in axes.values():
            if not keeps[labels].any():
                keeps[rng.choice(labels)] = True
    return [random_cut(base, group, keeps, rng, folds) for group in cut_groups]


def random_cut(base, group, keeps, rng, folds):
    """Return the cut of one group to what `keeps` says, with random folds."""
    cut = LayerCut(group.tensors[0], group.units, np.flatnonzero(keeps[group.first : group.first + group.units]))
    drawn = (random_fold(base, group, cut, consumer, rng, rng.choice(folds)) for consumer in group.consumers)
    return LayerCut(cut.tensor, cut.units, cut.kept, tuple(fold for fold in drawn if fold is not None))


def random_fold(base, group, cut, consumer, rng, kind):
    """Return a fold into one layer, or None where nothing is to be folded or the layer takes up none."""
    if base.graph.operators[consumer.operator].kind == "TRANSPOSE_CONV":
        return None
    labels = base.channels.axes[consumer.weight][len(base.graph.tensors[consumer.weight].shape) - 1]
    units, repeats = np.unique(labels[labels >= 0] - group.first, return_counts=True)
    is_own = (units >= 0) & (units < group.units)
    units, repeats = units[is_own], repeats[is_own]
    pruned, kept = int(np.isin(units, cut.pruned).sum()), int(np.isin(units, cut.kept).sum())
    # A layer that reads some units more often than others takes up none either.
    if kind == "none" or not len(units) or len(set(repeats)) > 1:
        return None
    # A row for each pruned unit, or for each that the layer reads: then those of kept units are added to the identity.
    rows = pruned if pruned and rng.random() < 0.5 else pruned + kept
    columns = kept if kind == "linear" else 0
    coefficients = rng.normal(0, 0.7 / np.sqrt(max(columns, 1)), (rows, columns))
    return Fold.of(consumer.weight, coefficients, rng.normal(0, 0.3, rows))
