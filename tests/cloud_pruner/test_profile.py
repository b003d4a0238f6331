"""A profile holds what was measured, and is refused when it is not what it says."""

from __future__ import annotations

import hashlib
import json
import os
import shutil

import keras
import numpy as np
import pytest

from cloud_pruner.errors import ImageDataError, ProfileError
from cloud_pruner.images import split_per_class
from cloud_pruner.methods import METHODS
from cloud_pruner.profile import Profile
from cloud_pruner.profiling import ProfileSettings, build_profile
from cloud_pruner.search import Searcher
from cloud_pruner.variants import Usage
from edge_runtime.errors import ModelFileError
from edge_runtime.flatmodel import separators
from edge_runtime.interpreter import LoadedModel
from tests.support.digits import PREPROCESSING
from tests.support.residual_digits import residual_network, residual_profile
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
    assert layer.firing_rates.dtype == np.float32
    # A value that is 0 to the last bit in one program may be 1e-9 in the other.
    np.testing.assert_allclose(layer.firing_rates, expected, atol=2e-3)


def test_mean_activations_are_those_behind_the_non_linearity(digits_profile, activations):
    values, labels = activations
    expected = np.stack([values[labels == c].mean(axis=(0, 1, 2)) for c in range(10)], axis=1)
    np.testing.assert_allclose(digits_profile.layers[1].mean_activations, expected, rtol=1e-4, atol=1e-5)


def test_a_stream_s_rates_and_means_are_the_largest_of_its_activations():
    """Of the stem's map and of the sum that it becomes; each behind its ReLU."""
    network, profile = residual_network(), residual_profile()
    model = keras.models.load_model(network.keras)
    images = network.trained_on
    maps = [layer.output for layer in model.layers if isinstance(layer, keras.layers.ReLU)]
    stem, total = (maps[0], maps[2])
    assert stem.shape == total.shape == (None, 8, 8, 12)
    inputs = PREPROCESSING.apply(images.pixels)
    rates, means = [], []
    for output in (stem, total):
        values = keras.Model(model.inputs, output).predict(inputs, verbose=0)
        by_class = [values[images.labels == c] for c in range(10)]
        rates.append(np.stack([(own > 0).mean(axis=(0, 1, 2)) for own in by_class], axis=1))
        means.append(np.stack([own.mean(axis=(0, 1, 2)) for own in by_class], axis=1))
    (layer,) = (layer for layer in profile.layers if layer.units == 12)
    np.testing.assert_allclose(layer.firing_rates, np.maximum(*rates), atol=3e-3)
    np.testing.assert_allclose(layer.mean_activations, np.maximum(*means), rtol=1e-3, atol=1e-4)
    assert (rates[0] > rates[1]).any()
    assert (rates[0] < rates[1]).any()


def test_splits_are_disjoint_and_equal_for_every_class(digits_profile, digits_network):
    for name, size in (("profile", 90), ("select", 40), ("certify", 20), ("report", 20)):
        split = digits_profile.splits[name]
        assert np.bincount(split.labels).tolist() == [size] * 10
        assert (np.diff(split.labels) >= 0).all()
    # The boundary is the input here: the images are what was split.
    unseen = PREPROCESSING.apply(digits_network.unseen.pixels)
    parts = [digits_profile.splits[name].activations for name in ("select", "certify", "report")]
    assert sorted(map(bytes, np.concatenate(parts))) == sorted(map(bytes, unseen))


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
    model = LoadedModel(profile.suffix.emit([]))
    np.testing.assert_array_equal(model.run(split.activations)[0].argmax(axis=1), split.predictions)
    whole = LoadedModel(profile.base.content)
    pixels = digits_network.unseen.pixels
    rows = split_per_class(digits_network.unseen.labels, {"before": 50, "certify": 10})["certify"]
    np.testing.assert_array_equal(whole.run(PREPROCESSING.apply(pixels[rows]))[0].argmax(axis=1), split.predictions)


@pytest.mark.parametrize("depth", [3, 4, 6, None])
def test_the_boundary_lies_before_all_that_is_pruned_and_as_late_as_can_be(depth, tmp_path):
    network = residual_network()
    settings = ProfileSettings(depth=depth, images={"profile": 5, "select": 5, "certify": 5})
    profile = build_profile(
        network.tflite.read_bytes(), network.unseen, PREPROCESSING, tmp_path / "p", settings=settings
    )
    base = profile.base
    groups = [base.channels.groups[layer.group] for layer in profile.layers]
    later = set()  # what follows from what makes or reads a pruned unit
    for operator in base.graph.operators:
        touches = any(operator.index in (*g.producers, *(c.operator for c in g.consumers)) for g in groups)
        if touches or later.intersection(operator.inputs):
            later.update(operator.outputs)
    assert profile.boundary not in later
    assert not any(profile.boundary in group.tensors for group in groups)
    candidates = [tensor for tensor in separators(base.graph) if tensor not in later]
    assert profile.boundary == candidates[-1]
    # The stem belongs to the stream: only where that stays is there a boundary behind the input.
    expected = {3: ["conv_2d_5 + 1"], 4: ["conv_2d_4", "conv_2d_5 + 1"], 6: ["conv_2d_2", "conv_2d_4", "conv_2d_5 + 1"]}
    if depth is not None:
        assert [layer.name for layer in profile.layers] == expected[depth]
    assert (profile.boundary == base.graph.inputs[0]) == (depth is None)


def test_three_bit_rates_are_half_a_level_off_and_take_three_bits(digits_profile, digits_network, tmp_path):
    settings = ProfileSettings(
        depth=None, images={"select": 40, "certify": 20, "report": 20}, three_bit_rates=True
    )  # fmt: skip
    profile = build_profile(
        digits_network.tflite.read_bytes(),
        digits_network.trained_on,
        PREPROCESSING,
        tmp_path / "p",
        unseen=digits_network.unseen,
        settings=settings,
    )
    for number, (rough, exact) in enumerate(zip(profile.layers, digits_profile.layers, strict=True)):
        assert rough.firing_rates.shape == exact.firing_rates.shape
        assert 0 < np.abs(rough.firing_rates - exact.firing_rates).max() <= 1 / 14 + 1e-6
        np.testing.assert_array_equal(rough.mean_activations, exact.mean_activations)
        stored, full = (np.load(p.folder / f"firing_rates_{number}.npy") for p in (profile, digits_profile))
        assert stored.nbytes == -(-full.nbytes * 3 // 32)
    assert Searcher(profile).search(Usage(np.array([0, 1]), np.full(2, 0.5)), METHODS["W"], 0.03).cuts


def test_version_4_has_these_arrays(digits_profile):
    manifest = json.loads((digits_profile.folder / "manifest.json").read_text())
    assert manifest["version"] == 4
    assert set(manifest["layers"][0]) == {"name", "group", "tensor", "units"}
    of_splits = {f"{split}_{what}" for split in ("profile", "select", "certify", "report") for what in PARTS_OF_SPLITS}
    of_layers = {f"{what}_{number}" for number in range(4) for what in PARTS_OF_LAYERS}
    assert set(manifest["arrays"]) == of_splits | of_layers | {"confusion"}
    files = {path.name for path in digits_profile.folder.iterdir()}
    assert files >= {f"{name}.npy" for name in manifest["arrays"]} | {"manifest.json", "base.tflite"}
    for number, layer in enumerate(digits_profile.layers):
        assert digits_profile.groups[layer.group].name == layer.name == manifest["layers"][number]["name"]
        assert layer.sensitivities.shape == (3, 10)
        assert (layer.sensitivities > 0).all()


PARTS_OF_SPLITS = ("activations", "labels", "predictions")
PARTS_OF_LAYERS = ("firing_rates", "mean_activations", "sensitivities", "clusters", "inertia")


def test_default_splits_share_the_images_out(digits_network, tmp_path):
    profile = build_profile(digits_network.tflite.read_bytes(), digits_network.unseen, PREPROCESSING, tmp_path / "p")
    assert {name: len(split.labels) // 10 for name, split in profile.splits.items()} == {
        "profile": 40,
        "select": 20,
        "certify": 20,
        "report": 0,
    }


@pytest.mark.parametrize("together", [True, False])
def test_images_to_report_on_come_off_what_the_others_share(digits_network, tmp_path, together):
    settings = ProfileSettings(images={"report": 20})
    unseen = None if together else digits_network.unseen
    images = digits_network.unseen if together else digits_network.trained_on
    profile = build_profile(
        digits_network.tflite.read_bytes(), images, PREPROCESSING, tmp_path / "p", unseen=unseen, settings=settings
    )
    sizes = [len(profile.splits[name].labels) // 10 for name in ("profile", "select", "certify", "report")]
    # Of 80 images a class: 20 to report on, and half and quarters of the rest; or 90 to profile, and halves.
    assert sizes == ([30, 15, 15, 20] if together else [90, 30, 30, 20])


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

    @pytest.mark.parametrize(
        "name",
        [
            "firing_rates_1",
            "sensitivities_3",
            "clusters_2",
            "inertia_0",
            "report_activations",
            "certify_labels",
            "confusion",
        ],
    )
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
        (copy / "sensitivities_0.npy").unlink()
        with pytest.raises(ProfileError, match="sensitivities_0.npy: cannot be read"):
            Profile.open(copy)

    def test_base_file_of_another_model(self, copy, digits_network):
        (copy / "base.tflite").write_bytes(digits_network.tflite.read_bytes())
        with pytest.raises(ProfileError, match=r"base.tflite: the base model is damaged"):
            Profile.open(copy)

    @pytest.mark.parametrize("content", ["", "[]", "{}", '{"version": 4}'])
    def test_damaged_manifest(self, copy, content):
        (copy / "manifest.json").write_text(content)
        with pytest.raises(ProfileError, match="manifest.json: damaged"):
            Profile.open(copy)

    def test_other_version(self, copy):
        manifest = json.loads((copy / "manifest.json").read_text())
        (copy / "manifest.json").write_text(json.dumps(manifest | {"version": 99}))
        with pytest.raises(ProfileError, match="version 99"):
            Profile.open(copy)

    def test_an_old_profile_says_so(self, copy):
        manifest = json.loads((copy / "manifest.json").read_text())
        (copy / "manifest.json").write_text(json.dumps(manifest | {"version": 2}))
        with pytest.raises(ProfileError, match="profile version 2, this is 4: make the profile again"):
            Profile.open(copy)

    def test_packed_rates_of_another_length(self, copy):
        """A manifest that agrees with its files, and not with itself."""
        path = copy / "firing_rates_0.npy"
        np.save(path, np.zeros(7, np.uint8))
        manifest = json.loads((copy / "manifest.json").read_text())
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        manifest["arrays"]["firing_rates_0"] |= {"dtype": "uint8", "shape": [7], "sha256": digest}
        (copy / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(ProfileError, match="manifest.json: damaged .*7 bytes do not hold 160 rates"):
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
        with pytest.raises(ProfileError, match=r"tensor \d+ has weights that are NaN or infinite"):
            build_profile(builder.build(), digits_network.unseen, PREPROCESSING, tmp_path / "p")
        assert os.listdir(tmp_path) == []

    def test_no_model(self, digits_network, tmp_path):
        with pytest.raises(ModelFileError, match="x.tflite: not a .tflite file"):
            build_profile(b"nothing", digits_network.unseen, PREPROCESSING, tmp_path / "p", name="x.tflite")
