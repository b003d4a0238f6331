"""Variant B: Algorithm 1 as it stands in the paper, and the file that keeps what it found."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from cloud_pruner.basic import basic_table
from cloud_pruner.profile import Profile
from cloud_pruner.profiling import ProfileSettings, build_profile
from cloud_pruner.variants import Basic, Usage
from edge_runtime.flatmodel import LayerCut
from edge_runtime.interpreter import LoadedModel
from tests.support.digits import PREPROCESSING, digit_images
from tests.support.reference import masked_network
from tests.support.tflite_kinds import convert

EPSILON = 0.03


@pytest.fixture(scope="module")
def table(digits_profile, tmp_path_factory):
    folder = tmp_path_factory.mktemp("basic") / "profile"
    shutil.copytree(digits_profile.folder, folder)
    return basic_table(Profile.open(folder), EPSILON)


@pytest.fixture
def copied(digits_profile, tmp_path):
    """A folder with the same profile, which no table was ever made of."""
    folder = tmp_path / "profile"
    shutil.copytree(digits_profile.folder, folder, ignore=shutil.ignore_patterns("basic_*"))
    return folder


def equal(one, other):
    return one.thresholds == other.thresholds and all(map(np.array_equal, one.pruned, other.pruned))


def degradation(profile, masks, label):
    """d_i of the whole network with zeros where `masks` prune for class `label`."""
    cuts = [
        LayerCut(layer.tensor, layer.units, np.flatnonzero(~mask[:, label]))
        for layer, mask in zip(profile.layers, masks, strict=False)
    ]
    select = profile.splits["select"]
    rows = select.rows(label)
    answers = LoadedModel(masked_network(profile.base, cuts)).run(select.activations[rows])[0].argmax(axis=1)
    return np.mean(select.predictions[rows] == label) - np.mean(answers == label)


def per_layer(profile, layer, fixed, epsilon, start, step):
    """CAP-PerLayer: `fixed` are the pruning matrices of earlier layers; returns that of `layer` and its threshold."""
    number = round(start / step)
    while True:
        T = np.float32(step * number)
        flagged = np.zeros((layer.units, 10), dtype=bool)
        for c in range(10):
            for n in range(layer.units):
                if layer.firing_rates[n, c] < T:
                    flagged[n, c] = True
        empty = flagged.all(axis=0).any()
        if not empty and all(degradation(profile, [*fixed, flagged], i) <= epsilon + 1e-9 for i in range(10)):
            return flagged, step * number
        number -= 1


@pytest.mark.parametrize("settings", [(0.03, 0.4, 0.025), (0.1, 0.9, 0.05), (0.2, 0.6, 0.1)])
def test_the_table_is_algorithm_1_s(copied, settings):
    profile = Profile.open(copied)
    table = basic_table(profile, *settings)
    assert profile.boundary == profile.base.graph.inputs[0]  # so that the activations are the images
    fixed, thresholds = [], []
    for layer in profile.layers:
        flagged, threshold = per_layer(profile, layer, fixed, *settings)
        fixed.append(flagged)
        thresholds.append(threshold)
    assert list(table.thresholds) == thresholds
    for mask, expected in zip(table.pruned, fixed, strict=True):
        np.testing.assert_array_equal(mask, expected)
    assert any(mask.any() for mask in fixed)
    assert any(threshold < settings[1] for threshold in thresholds)


def test_no_class_is_left_without_units(copied):
    """Above 1 every unit is flagged, and an epsilon of nearly 1 lets any network pass that there is."""
    profile = Profile.open(copied)
    table = basic_table(profile, 0.99, start=1.5, step=0.5)
    assert all(threshold < 1.5 for threshold in table.thresholds)
    assert any(threshold > 0 for threshold in table.thresholds)
    for mask in table.pruned:
        assert not mask.all(axis=0).any()


def test_no_part_of_the_network_is_left_without_channels(tmp_path):
    """Two layers read half of a layer each, and the first half never fires: it cannot go all the same."""
    import tensorflow as tf

    rng = np.random.default_rng(0)

    def conv(x, filters, bias):
        weights = tf.constant(rng.normal(0, 0.3, (3, 3, x.shape[-1], filters)).astype(np.float32))
        return tf.nn.relu(tf.nn.conv2d(x, weights, 1, "SAME") + tf.constant(bias, tf.float32))

    @tf.function(input_signature=[tf.TensorSpec((1, 8, 8, 1))])
    def classify(x):
        halves = conv(x, 8, [-100.0] * 4 + [0.5] * 4)
        both = tf.concat([conv(halves[..., :4], 4, [0.5] * 4), conv(halves[..., 4:], 4, [0.5] * 4)], -1)
        return tf.matmul(tf.reduce_mean(both, [1, 2]), tf.constant(rng.normal(size=(8, 10)).astype(np.float32)))

    images = digit_images()
    profile = build_profile(
        convert(classify.get_concrete_function(), "float32", rng),
        images["trained_on"],
        PREPROCESSING,
        tmp_path / "profile",
        unseen=images["unseen"],
        settings=ProfileSettings(depth=None, images={"profile": 10, "select": 10, "certify": 10}),
    )
    split = profile.layers[0]
    np.testing.assert_array_equal(split.firing_rates[:4], 0)
    table = basic_table(profile, 0.99)
    assert table.thresholds[0] == 0
    assert not table.pruned[0].any()


@pytest.mark.parametrize("labels", [[4], [0, 1], [2, 5, 7], list(range(10))])
def test_the_cut_prunes_what_may_go_for_every_class(copied, table, labels):
    profile = Profile.open(copied)
    usage = Usage(np.array(labels), np.full(len(labels), 1 / len(labels)))
    for number, layer in enumerate(profile.layers):
        kept = [n for n in range(layer.units) if not all(table.pruned[number][n, c] for c in labels)]
        cuts = list(Basic(EPSILON).candidates(profile, layer, usage))
        assert [cut.kept.tolist() for cut in cuts] == ([kept] if 0 < len(kept) < layer.units else [])
        assert all(cut.figure == table.thresholds[number] for cut in cuts)


def test_weights_of_use_do_not_count(copied):
    profile = Profile.open(copied)
    layer, labels = profile.layers[-1], np.array([0, 1])
    (often,) = Basic(EPSILON).candidates(profile, layer, Usage(labels, np.array([0.9, 0.1])))
    (seldom,) = Basic(EPSILON).candidates(profile, layer, Usage(labels, np.array([0.1, 0.9])))
    np.testing.assert_array_equal(often.kept, seldom.kept)


def test_a_larger_epsilon_goes_at_least_as_far_in_the_first_layer(copied, table):
    loose = basic_table(Profile.open(copied), 0.3)
    assert loose.thresholds[0] >= table.thresholds[0]
    assert loose.thresholds != table.thresholds


def file_of(folder):
    (path,) = folder.glob("basic_*.npz")
    return path


def made(folder, *settings):
    """Return the table of the profile in `folder`, and the steps that it took to make: none where it was found."""
    steps = []
    table = basic_table(Profile.open(folder), *settings or (EPSILON,), progress=lambda *step: steps.append(step))
    return table, steps


def test_progress_names_the_layers(copied):
    names = [layer.name for layer in Profile.open(copied).layers]
    _, steps = made(copied)
    assert steps == [(name, number, len(names)) for number, name in enumerate([*names, "done"])]


def test_it_is_made_once_and_found_again(copied, table):
    profile = Profile.open(copied)
    first = basic_table(profile, EPSILON)
    assert basic_table(profile, EPSILON) is first
    again, steps = made(copied)
    assert not steps
    assert equal(again, table)


def test_each_epsilon_and_schedule_has_its_own(copied):
    for settings in [(0.03, 0.4, 0.025), (0.3, 0.4, 0.025), (0.03, 0.2, 0.025), (0.03, 0.4, 0.1)]:
        _, steps = made(copied, *settings)
        assert steps
    assert len(list(copied.glob("basic_*.npz"))) == 4


def emptied(path):
    path.write_bytes(b"")


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-100])


def one_bit_flipped(path):
    with np.load(path) as arrays:
        contents = dict(arrays)
    contents["bits"][0] ^= 1
    np.savez(path, **contents)


def thresholds_changed(path):
    with np.load(path) as arrays:
        contents = dict(arrays)
    contents["thresholds"][0] += 0.025
    np.savez(path, **contents)


def without_a_digest(path):
    with np.load(path) as arrays:
        contents = dict(arrays)
    del contents["digest"]
    np.savez(path, **contents)


def another_epsilon_s(path):
    made(path.parent, 0.3)
    (other,) = set(path.parent.glob("basic_*.npz")) - {path}
    other.rename(path)


@pytest.mark.parametrize(
    "damage", [emptied, cut_short, one_bit_flipped, thresholds_changed, without_a_digest, another_epsilon_s]
)
def test_a_damaged_file_is_made_again(copied, table, damage):
    made(copied)
    path = file_of(copied)
    content = path.read_bytes()
    damage(path)
    again, steps = made(copied)
    assert steps
    assert equal(again, table)
    assert path.read_bytes() == content


def test_where_the_folder_cannot_be_written_it_is_kept_in_memory(copied, table):
    profile = Profile.open(copied)
    shutil.rmtree(copied)
    found = basic_table(profile, EPSILON)
    assert equal(found, table)
    assert basic_table(profile, EPSILON) is found
    assert not copied.exists()
