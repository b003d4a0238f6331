"""A profile holds what was measured, and is refused when it is not what it says."""

from __future__ import annotations

import json
import os
import shutil

import keras
import numpy as np
import pytest

from cloud_pruner.errors import ImageDataError, ProfileError
from cloud_pruner.profile import Profile
from cloud_pruner.profiling import ProfileSettings, build_profile
from edge_runtime.errors import ModelFileError
from edge_runtime.interpreter import LoadedModel
from tests.support.digits import PREPROCESSING
from tests.support.tflite_builder import SequentialBuilder


@pytest.fixture(scope="module")
def activations(digits_network):
    """Keras' own activations of the second convolution (after its ReLU) on the profiled images, and their labels."""
    model = keras.models.load_model(digits_network.keras)
    relu = next(layer for layer in model.layers if isinstance(layer, keras.layers.ReLU))
    images = digits_network.trained_on
    part = keras.Model(model.inputs, relu.output)
    return part.predict(PREPROCESSING.apply(images.pixels), verbose=0), images.labels


def test_firing_rates_are_the_share_of_nonzero_values_per_class(digits_profile, activations):
    values, labels = activations
    layer = digits_profile.layers[1]
    expected = np.stack([(values[labels == c] > 0).mean(axis=(0, 1, 2)) for c in range(10)], axis=1)
    assert layer.units == 24
    # A value that is 0 to the last bit in one program may be 1e-9 in the other.
    np.testing.assert_allclose(layer.firing_rates, expected, atol=2e-3)


def test_moments_are_those_of_what_the_next_layer_reads(digits_profile, activations):
    values, labels = activations
    pooled = values.reshape(len(values), 4, 2, 4, 2, 24).max(axis=(2, 4))
    layer = digits_profile.layers[1]
    means = np.stack([pooled[labels == c].mean(axis=(0, 1, 2)) for c in range(10)], axis=1)
    squares = np.stack([(pooled[labels == c] ** 2).mean(axis=(0, 1, 2)) for c in range(10)], axis=1)
    np.testing.assert_allclose(layer.means, means, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(layer.second_moments, squares, rtol=1e-4, atol=1e-5)


def test_splits_are_disjoint_and_equal_for_every_class(digits_profile):
    for name, size in (("profile", 90), ("select", 40), ("certify", 40)):
        split = digits_profile.splits[name]
        assert np.bincount(split.labels).tolist() == [size] * 10
        assert (np.diff(split.labels) >= 0).all()


def test_confusion_and_accuracy_are_those_of_the_base(digits_profile):
    select = digits_profile.splits["select"]
    assert digits_profile.confusion.sum() == 400
    np.testing.assert_allclose(np.diag(digits_profile.confusion) / 40, select.accuracy(10))
    assert select.accuracy(10).mean() > 0.93


def test_boundary_activations_lead_to_the_same_answers(digits_network, tmp_path):
    profile = build_profile(
        digits_network.tflite.read_bytes(),
        digits_network.unseen,
        PREPROCESSING,
        tmp_path / "profile",
        settings=ProfileSettings(depth=3, images={"profile": 30, "select": 20, "certify": 10}),
    )
    assert [layer.name for layer in profile.layers] == ["conv_2d_3", "fully_connected_4"]
    split = profile.splits["certify"]
    assert split.activations.shape == (100, 4, 4, 24)
    from cloud_pruner.search import Searcher

    rest = Searcher(profile).part(profile.boundary, profile.base.graph.outputs[0])
    predictions = LoadedModel(rest.content).run(split.activations)[0].argmax(axis=1)
    np.testing.assert_array_equal(predictions, split.predictions)


def test_default_splits_share_the_images_out(digits_network, tmp_path):
    profile = build_profile(digits_network.tflite.read_bytes(), digits_network.unseen, PREPROCESSING, tmp_path / "p")
    assert {name: len(split.labels) // 10 for name, split in profile.splits.items()} == {
        "profile": 40,
        "select": 20,
        "certify": 20,
    }


def test_profiling_again_replaces_the_profile_and_gives_the_same(digits_network, tmp_path):
    arguments = (digits_network.tflite.read_bytes(), digits_network.unseen, PREPROCESSING, tmp_path / "p")
    assert build_profile(*arguments).digest == build_profile(*arguments).digest
    assert os.listdir(tmp_path) == ["p"]


class TestRefusals:
    @pytest.fixture
    def copy(self, digits_profile, tmp_path):
        return shutil.copytree(digits_profile.folder, tmp_path / "copy")

    def test_no_profile_there(self, tmp_path):
        with pytest.raises(ProfileError, match="no profile there.*capnn profile"):
            Profile.open(tmp_path)

    @pytest.mark.parametrize("name", ["firing_rates_1", "select_activations", "certify_labels", "confusion"])
    def test_flipped_bit_in_an_array(self, copy, name):
        path = copy / f"{name}.npy"
        content = bytearray(path.read_bytes())
        content[-3] ^= 4
        path.write_bytes(content)
        with pytest.raises(ProfileError, match=rf"{name}.npy: array '{name}' is damaged.*make the profile again"):
            Profile.open(copy)

    def test_truncated_array(self, copy):
        path = copy / "select_activations.npy"
        path.write_bytes(path.read_bytes()[:-100])
        with pytest.raises(ProfileError, match="damaged"):
            Profile.open(copy)

    def test_missing_array(self, copy):
        (copy / "means_0.npy").unlink()
        with pytest.raises(ProfileError, match="means_0.npy: cannot be read"):
            Profile.open(copy)

    def test_base_file_of_another_model(self, copy, digits_network):
        (copy / "base.tflite").write_bytes(digits_network.tflite.read_bytes())
        with pytest.raises(ProfileError, match=r"base.tflite: the base model is damaged"):
            Profile.open(copy)

    @pytest.mark.parametrize("content", ["", "[]", "{}", '{"version": 1}'])
    def test_damaged_manifest(self, copy, content):
        (copy / "manifest.json").write_text(content)
        with pytest.raises(ProfileError, match="manifest.json: damaged"):
            Profile.open(copy)

    def test_other_version(self, copy):
        manifest = json.loads((copy / "manifest.json").read_text())
        (copy / "manifest.json").write_text(json.dumps(manifest | {"version": 99}))
        with pytest.raises(ProfileError, match="version 99"):
            Profile.open(copy)

    def test_a_folder_with_something_else(self, digits_network, tmp_path):
        (tmp_path / "thesis.tex").write_text("do not lose me")
        with pytest.raises(ProfileError, match="is no profile: give another folder"):
            build_profile(digits_network.tflite.read_bytes(), digits_network.unseen, PREPROCESSING, tmp_path)
        assert os.listdir(tmp_path) == ["thesis.tex"]

    def test_too_few_images(self, digits_network, tmp_path):
        settings = ProfileSettings(images={"profile": 70, "select": 10, "certify": 10})
        with pytest.raises(ImageDataError, match="class 'zero' has 80 images, 90 are needed"):
            build_profile(
                digits_network.tflite.read_bytes(),
                digits_network.unseen,
                PREPROCESSING,
                tmp_path / "p",
                settings=settings,
            )
        assert os.listdir(tmp_path) == []

    def test_a_model_with_other_classes_or_sizes(self, digits_network, tmp_path):
        rng = np.random.default_rng(0)
        five = SequentialBuilder((8, 8, 1), rng).conv(4).mean().dense(5, activation=0).build()
        with pytest.raises(ImageDataError, match=r"outputs of shape \(1, 5\), the images have 10 classes"):
            build_profile(five, digits_network.unseen, PREPROCESSING, tmp_path / "p")
        large = SequentialBuilder((9, 9, 1), rng).conv(4).mean().dense(10, activation=0).build()
        with pytest.raises(ImageDataError, match=r"takes inputs of \(9, 9, 1\)"):
            build_profile(large, digits_network.unseen, PREPROCESSING, tmp_path / "p")

    def test_a_model_of_which_nothing_can_be_pruned(self, digits_network, tmp_path):
        builder = SequentialBuilder((8, 8, 1), np.random.default_rng(0)).conv(4).cumulative_sum().mean()
        with pytest.raises(ProfileError, match=r"nothing can be pruned.*CUMSUM \(operator 1\) is not understood"):
            build_profile(builder.dense(10, activation=0).build(), digits_network.unseen, PREPROCESSING, tmp_path / "p")

    def test_weights_that_are_no_numbers(self, digits_network, tmp_path):
        builder = SequentialBuilder((8, 8, 1), np.random.default_rng(0)).conv(4).mean().dense(10, activation=0)
        buffer = builder.model.buffers[1]
        buffer.data = np.frombuffer(np.full(len(buffer.data) // 4, np.nan, np.float32).tobytes(), np.uint8)
        with pytest.raises(ProfileError, match="NaN or infinity"):
            build_profile(builder.build(), digits_network.unseen, PREPROCESSING, tmp_path / "p")
        assert os.listdir(tmp_path) == []

    def test_no_model(self, digits_network, tmp_path):
        with pytest.raises(ModelFileError, match="x.tflite: not a .tflite file"):
            build_profile(b"nothing", digits_network.unseen, PREPROCESSING, tmp_path / "p", name="x.tflite")
