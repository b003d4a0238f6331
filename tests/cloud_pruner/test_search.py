"""The quick search chooses what the plain one chooses, and keeps its promise on the images it searches with."""

from __future__ import annotations

import numpy as np
import pytest

from cloud_pruner.images import split_per_class
from cloud_pruner.requests import checked_usage
from cloud_pruner.search import Searcher
from cloud_pruner.variants import VARIANTS, Usage
from edge_runtime.interpreter import LoadedModel
from tests.cloud_pruner.plain_search import plain_search
from tests.support.digits import CLASSES, PREPROCESSING
from tests.support.reference import masked_network

REQUESTS = [
    {"zero": 1.0, "one": 1.0},
    {"three": 0.6, "five": 0.3, "eight": 0.1},
    {"two": 1.0, "four": 1.0, "six": 1.0, "seven": 1.0, "nine": 1.0},
    {"nine": 1.0},
]


@pytest.fixture(scope="module")
def searcher(digits_profile):
    return Searcher(digits_profile)


@pytest.fixture(scope="module")
def images(digits_network):
    """Split -> (inputs, labels) as the profile split them, straight from the pixels."""
    trained_on, unseen = digits_network.trained_on, digits_network.unseen
    rows = split_per_class(unseen.labels, {"select": 40, "certify": 40}, CLASSES)
    rows_profile = split_per_class(trained_on.labels, {"profile": 90}, CLASSES)["profile"]
    parts = {name: (unseen, r) for name, r in rows.items()} | {"profile": (trained_on, rows_profile)}
    return {name: (PREPROCESSING.apply(s.pixels[r]), s.labels[r]) for name, (s, r) in parts.items()}


def of_classes(images, usage):
    return {name: (x[np.isin(y, usage.labels)], y[np.isin(y, usage.labels)]) for name, (x, y) in images.items()}


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
@pytest.mark.parametrize("request_", REQUESTS, ids="+".join)
def test_same_units_as_the_plain_search(searcher, images, variant, request_):
    usage = checked_usage(request_, CLASSES)
    result = searcher.search(usage, variant, epsilon=0.03)
    kept = {layer.name: list(range(layer.units)) for layer in searcher.profile.layers}
    names = {layer.boundary: layer.name for layer in searcher.profile.layers}
    kept.update({names[cut.tensor]: cut.kept.tolist() for cut in result.cuts})
    assert kept == plain_search(searcher.profile, of_classes(images, usage), usage, variant, 0.03)


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_the_emitted_file_does_what_the_counts_say(searcher, images, variant):
    usage = checked_usage(REQUESTS[1], CLASSES)
    result = searcher.search(usage, variant, epsilon=0.05)
    model = LoadedModel(searcher.profile.base.emit(result.cuts))
    for split, counts in (("select", result.select), ("certify", result.certify)):
        inputs, labels = images[split]
        predictions = model.run(inputs)[0].argmax(axis=1)
        for label, count in counts.items():
            mine = labels == label
            assert count.images == mine.sum() == 40
            assert count.cut == (predictions[mine] == label).sum()
    assert all(count.loss <= 0.05 for count in result.select.values())


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_cut_equals_the_masked_or_folded_network_on_real_images(searcher, images, variant):
    usage = checked_usage(REQUESTS[0], CLASSES)
    cuts = searcher.search(usage, variant, epsilon=0.05).cuts
    assert cuts
    inputs, _ = images["certify"]
    base = searcher.profile.base
    cut = LoadedModel(base.emit(cuts)).run(inputs)[0]
    masked = LoadedModel(masked_network(base, cuts)).run(inputs)[0]
    assert np.abs(cut - masked).max() <= 1e-4 * np.ptp(masked)


def test_linear_folding_prunes_more_than_thresholds(searcher):
    usage = checked_usage(REQUESTS[0], CLASSES)
    sizes = {
        name: sum(layer.kept for layer in searcher.search(usage, variant, epsilon=0.03).layers)
        for name, variant in VARIANTS.items()
    }
    assert sizes["L"] < sizes["W"]


def test_no_loss_allowed_means_none_on_the_select_images(searcher):
    usage = Usage(np.arange(10), np.full(10, 0.1))
    result = searcher.search(usage, VARIANTS["L"], epsilon=1e-6)
    assert all(count.loss <= 0 for count in result.select.values())


def test_progress_names_the_layers(searcher):
    seen = []

    def progress(what, done, total):
        seen.append((what, done, total))

    searcher.search(checked_usage({"one": 1.0}, CLASSES), VARIANTS["W"], 0.03, progress)
    assert [what for what, _, _ in seen] == [*(layer.name for layer in searcher.profile.layers), "done"]
    assert seen[-1][1:] == (4, 4)
