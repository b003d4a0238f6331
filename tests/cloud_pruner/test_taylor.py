"""A profile made with the Keras network orders units by its gradients, and is searched like any other."""

from __future__ import annotations

import numpy as np
import pytest

from cloud_pruner.elimination import eliminate
from cloud_pruner.errors import ConversionError
from cloud_pruner.methods import METHODS
from cloud_pruner.profile import Profile
from cloud_pruner.profiling import ProfileSettings, build_profile
from cloud_pruner.requests import checked_usage
from cloud_pruner.search import Searcher
from cloud_pruner.sensitivity import weighted_by_gradients
from cloud_pruner.taylor import TaylorMoments
from cloud_pruner.variants import Usage
from tests.support.digits import CLASSES, PREPROCESSING


@pytest.fixture(scope="module")
def profile(digits_network, tmp_path_factory):
    settings = ProfileSettings(None, images={"select": 40, "certify": 20, "report": 20}, keras=digits_network.keras)
    folder = tmp_path_factory.mktemp("taylor") / "p"
    content, seen = digits_network.tflite.read_bytes(), digits_network.trained_on
    return build_profile(content, seen, PREPROCESSING, folder, unseen=digits_network.unseen, settings=settings)


def test_the_profile_keeps_the_moments_of_all_that_is_read(profile):
    read = {reader.tensor for group in profile.groups.values() for reader in group.readers}
    assert set(profile.taylor) == read
    again = Profile.open(profile.folder)
    for tensor, moments in profile.taylor.items():
        assert moments.squares.shape == (profile.base.graph.tensors[tensor].shape[-1], len(CLASSES))
        assert np.array_equal(again.taylor[tensor].to_array(), moments.to_array())


def test_errors_are_weighed_by_what_a_unit_costs_the_loss():
    """Two units that vary alike and are read alike: the one that the loss does not feel goes first, for nothing."""
    ones = np.ones((2, 1), np.float32)
    squares = np.array([[4.0], [0.0]], np.float32)
    moments = TaylorMoments(0 * ones, squares, 0 * ones, 0 * ones)

    class Reader:
        units, places = np.arange(2), np.arange(2)[None, :]

    observed = weighted_by_gradients(Reader, np.eye(2), np.eye(2), moments, Usage(np.array([0]), np.array([1.0])))
    assert np.allclose(np.diag(observed.gram), [4.0, 0.0])
    elimination = eliminate(2, [observed], ridge=0.0)
    assert elimination.order.tolist() == [1]
    assert elimination.errors == pytest.approx([0.0], abs=1e-9)


@pytest.mark.parametrize("names", [("one", "seven"), ("three", "five", "eight")], ids="+".join)
def test_its_cuts_keep_every_class_within_epsilon(profile, names):
    searcher, usage = Searcher(profile), checked_usage(dict.fromkeys(names, 1.0), CLASSES)
    result = searcher.search(usage, METHODS["L"], 0.05)
    assert sum(layer.kept for layer in result.layers) < 0.6 * sum(layer.units for layer in result.layers)
    assert all(counts.loss <= 0.05 for counts in searcher.count(result.cuts, usage, "select").values())


def test_another_network_is_refused(digits_network, tmp_path):
    import keras

    keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10)]).save(
        tmp_path / "other.keras"
    )
    with pytest.raises(ConversionError, match="other.keras"):
        build_profile(
            digits_network.tflite.read_bytes(),
            digits_network.unseen,
            PREPROCESSING,
            tmp_path / "p",
            settings=ProfileSettings(None, keras=tmp_path / "other.keras"),
        )
    assert not (tmp_path / "p").exists()
