"""CAPTOR: what filters prefer, and which of them go for whom, on numbers small enough to check by hand."""

from __future__ import annotations

import numpy as np
import pytest

from cloud_pruner.captor import (
    Captor,
    FilterPreference,
    Preferences,
    captor_method,
    filter_preference,
    measure_preferences,
)
from cloud_pruner.captor.variant import unneeded_filters
from cloud_pruner.errors import ProfileError
from cloud_pruner.search import Searcher
from cloud_pruner.variants import Usage
from tests.support.two_by_two import BIASES, OUTPUTS, PREPROCESSING, UNITS, images, two_by_two_profile

# Filters 0 and 1 work for a, 2 for b and 3 for c.
PREFERENCE = FilterPreference(
    filters=np.array([[0.8, 0.2, 0.0], [0.6, 0.3, 0.1], [0.1, 0.9, 0.0], [0.2, 0.0, 0.8]]),
    clusters=np.array([0, 0, 1, 2]),
    centres=np.array([[0.7, 0.25, 0.05], [0.1, 0.9, 0.0], [0.2, 0.0, 0.8]]),
)


@pytest.fixture(scope="module")
def profile(tmp_path_factory):
    return two_by_two_profile(tmp_path_factory.mktemp("profiles") / "two-by-two")


@pytest.fixture(scope="module")
def preferences(profile):
    return Preferences(profile.base.digest, {profile.layers[0].group: PREFERENCE})


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """The profile's network in Keras."""
    import keras

    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((2, 2, 1)),
            layers.Conv2D(4, 1, activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(3),
        ]
    )
    model.set_weights([UNITS.reshape(1, 1, 1, 4), BIASES, OUTPUTS.T, np.zeros(3, np.float32)])
    path = tmp_path_factory.mktemp("networks") / "two-by-two.keras"
    model.save(path)
    return path


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        # b's cluster is worth 0.1 to a user of a, c's 0.2.
        ([0], [[2, 3], [2]]),
        # c's is worth nothing to a user of b, a's 0.25; of a's filters, 0 is worth 0.2 and 1 is worth 0.3.
        ([1], [[0, 1, 3], [0, 3], [3]]),
        ([0, 1], [[3]]),
        ([0, 1, 2], []),
    ],
    ids=["a", "b", "a and b", "all"],
)
def test_filters_of_clusters_that_prefer_other_classes_go(profile, preferences, labels, expected):
    (layer,) = profile.layers
    usage = Usage(np.array(labels), np.full(len(labels), 1 / len(labels)))
    cuts = Captor(preferences).candidates(profile, layer, usage)
    assert [sorted(set(range(4)) - set(cut.kept.tolist())) for cut in cuts] == expected


def test_layers_without_preferences_stay_whole(profile):
    (layer,) = profile.layers
    nothing = Preferences(profile.base.digest, {})
    assert not list(Captor(nothing).candidates(profile, layer, Usage(np.array([0]), np.array([1.0]))))


def test_the_two_measures_are_brought_to_shares_and_averaged():
    # b's output is ten times as steep as a's everywhere: to each class the first filter is worth 3/4, the second 1/4.
    found = filter_preference(np.array([[3.0, 30.0], [1.0, 10.0]]), np.array([[1.0, 0.0], [0.2, 0.8]]))
    np.testing.assert_allclose(found.filters, [[0.75, 0.25], [0.35, 0.65]])
    assert found.clusters[0] != found.clusters[1]
    np.testing.assert_allclose(found.centres[found.clusters], found.filters)


def test_filters_that_work_for_the_same_class_are_one_cluster():
    gradients = np.array([[9.0, 1, 0], [8, 1, 1], [0, 7, 1], [1, 9, 1], [0, 1, 9]])
    found = filter_preference(gradients, gradients / gradients.sum(axis=1, keepdims=True))
    assert found.clusters[0] == found.clusters[1]
    assert found.clusters[2] == found.clusters[3]
    assert len(set(found.clusters.tolist())) == 3
    np.testing.assert_allclose(found.centres[found.clusters[0]], found.filters[:2].mean(axis=0))
    np.testing.assert_allclose(found.centres.sum(axis=1), 1)


def test_a_measure_that_says_nothing_of_a_filter_leaves_it_to_the_other():
    gradients, pictures = np.array([[2.0, 0.0], [0.0, 0.0], [0.0, 0.0]]), np.array([[0.0, 0.0], [0.3, 0.7], [0.0, 0.0]])
    np.testing.assert_allclose(filter_preference(gradients, pictures).filters, [[1, 0], [0.3, 0.7], [0, 0]])


def test_filters_that_prefer_no_class_go_first_whoever_the_user_is():
    preference = FilterPreference(
        filters=np.array([[0.9, 0.1], [0.0, 0.0], [0.2, 0.8], [0.0, 0.0]]),
        clusters=np.array([0, 1, 2, 2]),
        centres=np.array([[0.9, 0.1], [0.0, 0.0], [0.1, 0.4]]),
    )
    assert unneeded_filters(preference, np.array([0])).tolist() == [1, 3, 2]
    assert unneeded_filters(preference, np.array([0, 1])).tolist() == [1, 3]


def test_preferences_are_measured_by_gradients_and_pictures(profile, network):
    shown = images("a", "b", "c")
    measured = measure_preferences(network, profile.base, PREPROCESSING.apply(shown.pixels), shown.labels)
    assert measured.base == profile.base.digest
    filters = measured.groups[profile.layers[0].group].filters
    # The output layer's weights are the gradients: unit 0 works for c, 1 and 3 for b, 2 for a. Unit 0 reacts most to a
    # bright picture, which the network takes for a; 3 to a dark one, which it takes for b; 2 to none, as faint noise
    # leaves it idle.
    np.testing.assert_allclose(filters[0], [1 / 2, 0, 1 / 2], atol=1e-3)
    np.testing.assert_allclose(filters[2], [1, 0, 0], atol=1e-9)
    assert filters[3].argmax() == 1
    assert filters[3, 1] > 0.7


def test_the_search_takes_the_most_daring_share_within_epsilon(profile, preferences):
    """A user of b: without 0, 1 and 3 it is taken for what it is no longer, without 0 and 3 it still is."""
    result = Searcher(profile).search(Usage(np.array([1]), np.array([1.0])), captor_method(preferences), 0.03)
    # Without 0 and 3: outputs 0, 1, 0. Without 0, 1 and 3: all 0, of which the first, a, is taken.
    assert [cut.kept.tolist() for cut in result.cuts] == [[1, 2]]


def test_preferences_are_kept_in_a_file_and_are_of_one_model(profile, preferences, tmp_path):
    path = tmp_path / "captor.npz"
    preferences.save(path)
    read = Preferences.load(path, profile.base.digest)
    np.testing.assert_array_equal(read.groups[profile.layers[0].group].filters, PREFERENCE.filters)
    np.testing.assert_array_equal(read.groups[profile.layers[0].group].clusters, PREFERENCE.clusters)
    with pytest.raises(ProfileError, match=r"is of model .*, not of 000000000000…: measure that model"):
        Preferences.load(path, "0" * 64)
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(ProfileError, match="holds no preferences of filters"):
        Preferences.load(path, profile.base.digest)
    another = Preferences("0" * 64, preferences.groups)
    with pytest.raises(ProfileError, match="profile that model"):
        next(Captor(another).candidates(profile, profile.layers[0], Usage(np.array([0]), np.array([1.0]))))
