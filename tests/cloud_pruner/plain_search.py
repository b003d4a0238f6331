"""The search as the paper writes it, slow and plain: the whole network, masked, over all images, for every threshold.

No boundary activations, no sliced weights, no early end: `search.Searcher` must choose the same units.
"""

from __future__ import annotations

import numpy as np

from cloud_pruner.regression import fit_fold, weighted_moments
from cloud_pruner.variants import effective_firing_rates, replacement_errors
from edge_runtime.flatmodel import LayerCut, extract
from edge_runtime.interpreter import LoadedModel
from tests.support.reference import masked_network


def plain_search(profile, images, usage, variant, epsilon):
    """Return layer name -> kept units.

    `images` is split -> (inputs, labels) of the user's classes, as `profile` has them.
    """
    cuts = []
    for layer in profile.layers:
        for kept in _candidates(layer, usage, variant):
            if len(kept) == 0:
                continue
            trial = [*cuts, _cut(profile, layer, kept, cuts, images["profile"], usage, variant)]
            if _within(profile, trial, images["select"], usage, epsilon):
                cuts = trial
                break
    kept = {layer.boundary: np.arange(layer.units) for layer in profile.layers}
    kept.update({cut.tensor: cut.kept for cut in cuts})
    return {layer.name: kept[layer.boundary].tolist() for layer in profile.layers}


def _candidates(layer, usage, variant):
    if variant.name == "W":
        rates = effective_firing_rates(layer, usage)
        threshold = 16
        while threshold >= 0:
            yield np.flatnonzero(rates > threshold * 0.025)
            threshold -= 1
    else:
        ascending = np.argsort(replacement_errors(layer, usage), kind="stable")
        for percent in range(95, 0, -5):
            pruned = ascending[: percent * layer.units // 100]
            yield np.setdiff1d(np.arange(layer.units), pruned)


def _cut(profile, layer, kept, cuts, images, usage, variant):
    cut = LayerCut(layer.boundary, layer.units, kept)
    if variant.ridge is None or len(kept) == layer.units:
        return cut
    inputs, labels = images
    graph = profile.base.graph
    before = extract(masked_network(profile.base, cuts), [graph.inputs[0]], [layer.boundary])
    activations = LoadedModel(before).run(inputs)[0]
    counts = {label: int((labels == label).sum()) for label in usage.labels.tolist()}
    weights = np.array(
        [dict(zip(usage.labels.tolist(), usage.weights, strict=True))[k] / counts[k] for k in labels.tolist()]
    )
    moments = weighted_moments(activations, weights)
    channels = profile.base.channels
    reader = channels.groups[channels.group_of(layer.output)].consumers[0].weight
    return LayerCut(cut.tensor, cut.units, kept, (fit_fold(moments, kept, cut.pruned, variant.ridge, reader),))


def _within(profile, cuts, images, usage, epsilon):
    inputs, labels = images
    base = LoadedModel(profile.base.content).run(inputs)[0].argmax(axis=1)
    cut = LoadedModel(masked_network(profile.base, cuts)).run(inputs)[0].argmax(axis=1)
    for label in usage.labels.tolist():
        mine = labels == label
        degradation = np.mean(base[mine] == label) - np.mean(cut[mine] == label)
        if degradation > epsilon + 1e-9:
            return False
    return True
