"""Trained networks of every kind become a `.tflite` that computes the same, or nothing at all."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
from sklearn.datasets import load_digits

from cloud_pruner.conversion import convert
from cloud_pruner.errors import ConversionError, MissingExtraError
from cloud_pruner.images import ImageSet
from cloud_pruner.quantization import DIFFERENCE_MAX
from edge_runtime.digests import digest_of
from edge_runtime.errors import InputError
from edge_runtime.interpreter import LoadedModel
from edge_runtime.preprocessing import Preprocessing

if TYPE_CHECKING:
    from pathlib import Path

keras = pytest.importorskip("keras")
tf = pytest.importorskip("tensorflow")

SCANNED = Preprocessing(8, 8, "grey", mean=(0.3,), std=(0.4,))


@pytest.fixture(scope="module")
def digits() -> ImageSet:
    scans = load_digits()
    pixels = (scans.images * 15).astype(np.uint8)[..., np.newaxis]
    return ImageSet(pixels, scans.target.astype(np.int64), tuple("0123456789"))


@pytest.fixture(scope="module")
def network():
    """A network with every parameter random: those that a fresh one leaves at 0 or 1 would hide mistakes."""
    layers = keras.layers
    model = keras.Sequential([
        keras.Input((8, 8, 1)),
        layers.Conv2D(6, 3, padding="same", use_bias=False),
        layers.BatchNormalization(),
        layers.ReLU(),
        layers.DepthwiseConv2D(3),
        layers.BatchNormalization(),
        layers.ReLU(),
        layers.MaxPooling2D(),
        layers.Flatten(),
        layers.Dense(16, activation="relu"),
        layers.Dense(10),
    ])  # fmt: skip
    random = np.random.default_rng(1)
    model.set_weights(
        [
            random.uniform(0.5, 2, w.shape) if "variance" in w.path else random.normal(0, 0.4, w.shape)
            for w in model.weights
        ]
    )
    return model


def save(network, folder: Path, kind: str) -> Path:
    path = folder / f"network{kind}"
    if kind:
        network.save(path)
    else:
        network.export(path, verbose=False)
    return path


@pytest.mark.parametrize("kind", [".keras", ".h5", ""], ids=["keras", "h5", "SavedModel"])
def test_the_result_computes_what_the_network_computes(network, digits: ImageSet, tmp_path: Path, kind: str):
    source = save(network, tmp_path, kind)

    report = convert(source, tmp_path / "base.tflite", images=digits, preprocessing=SCANNED)

    content = report.path.read_bytes()
    inputs = SCANNED.apply(digits.pixels[:200])
    reference = network.predict(inputs, verbose=0)
    np.testing.assert_allclose(LoadedModel(content).run(inputs)[0], reference, atol=1e-5 * np.ptp(reference))
    assert np.ptp(reference) > 1
    assert (report.bytes, report.digest) == (len(content), digest_of(content))
    assert (report.input_shape, report.classes, report.parameters) == ((8, 8, 1), 10, network.count_params())
    assert (report.compared_on, report.images) == ("images", 64)
    assert 0 <= report.max_difference <= DIFFERENCE_MAX
    assert (report.quantize, report.top1_agreement) == ("none", 1.0)
    assert [path.name for path in tmp_path.iterdir() if path != source] == ["base.tflite"]


def test_inputs_that_went_through_preprocessing_serve_too(network, digits: ImageSet, tmp_path: Path):
    inputs = SCANNED.apply(digits.pixels[:5])
    report = convert(save(network, tmp_path, ".keras"), tmp_path / "base.tflite", images=inputs)
    assert (report.compared_on, report.images) == ("images", 5)


def test_the_same_network_gives_the_same_bytes_and_needs_no_images(network, tmp_path: Path):
    source = save(network, tmp_path, ".keras")
    first = convert(source, tmp_path / "a.tflite")
    assert convert(source, tmp_path / "b.tflite").digest == first.digest
    assert (first.compared_on, first.images) == ("random", 64)


def test_an_open_image_size_is_settled_by_the_preprocessing(tmp_path: Path):
    image = keras.Input((None, None, 3))
    hidden = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(image))
    keras.Model(image, keras.layers.Dense(2)(hidden)).save(tmp_path / "open.keras")
    with pytest.raises(ConversionError, match="leaves the size of its images open"):
        convert(tmp_path / "open.keras", tmp_path / "a.tflite")
    report = convert(tmp_path / "open.keras", tmp_path / "a.tflite", preprocessing=Preprocessing(12, 10))
    assert LoadedModel(report.path.read_bytes()).input_shape == (12, 10, 3) == report.input_shape


def test_grouped_convolutions_convert(tmp_path: Path):
    layers = keras.layers
    first, grouped = layers.Conv2D(4, 3), layers.Conv2D(6, 3, groups=2)
    keras.Sequential([keras.Input((8, 8, 3)), first, grouped, layers.Flatten(), layers.Dense(5)]).save(
        tmp_path / "grouped.keras"
    )
    report = convert(tmp_path / "grouped.keras", tmp_path / "base.tflite")
    assert (report.input_shape, report.classes) == ((8, 8, 3), 5)


def check_refused(source: Path, *words: str, **options) -> None:
    """Converting fails with these words on one line, and a file that was there before stays as it was."""
    target = source.parent / "base.tflite"
    target.write_bytes(b"the former one")
    before = sorted(path.name for path in source.parent.iterdir())
    with pytest.raises(ConversionError) as caught:
        convert(source, target, **options)
    message = str(caught.value)
    assert "\n" not in message
    for word in (str(source), *words):
        assert word in message
    assert target.read_bytes() == b"the former one"
    assert sorted(path.name for path in source.parent.iterdir()) == before


def test_a_conversion_that_computes_something_else_is_refused(tmp_path: Path):
    class Noisy(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((None, 4, 4, 1), tf.float32)])
        def classify(self, image):
            return tf.reshape(image, (-1, 16)) + tf.random.uniform((1, 16))

    module = Noisy()
    tf.saved_model.save(module, tmp_path / "noisy", signatures=module.classify)
    check_refused(tmp_path / "noisy", "its conversion differs by")


def test_a_network_with_nan_among_its_weights_is_refused(network, digits: ImageSet, tmp_path: Path):
    broken = keras.models.clone_model(network)
    weights = network.get_weights()
    weights[-1] = np.full_like(weights[-1], np.nan)
    broken.set_weights(weights)
    check_refused(save(broken, tmp_path, ".keras"), "NaN", images=digits, preprocessing=SCANNED)


def test_a_second_output_is_refused(tmp_path: Path):
    image = keras.Input((4, 4, 1))
    flat = keras.layers.Flatten()(image)
    keras.Model(image, [keras.layers.Dense(3)(flat), keras.layers.Dense(2)(flat)]).save(tmp_path / "two.keras")
    check_refused(tmp_path / "two.keras", "2 outputs", "a classifier has one")


def test_outputs_that_are_no_classes_and_inputs_that_are_no_images_are_refused(tmp_path: Path):
    image = keras.Input((4, 4, 1))
    keras.Model(image, keras.layers.Conv2D(2, 1)(image)).save(tmp_path / "segmenter.keras")
    check_refused(tmp_path / "segmenter.keras", "its output is (None, 4, 4, 2)")
    keras.Sequential([keras.Input((16,)), keras.layers.Dense(2)]).save(tmp_path / "vector.keras")
    check_refused(tmp_path / "vector.keras", "its input is (None, 16)")


def test_an_operator_that_tflite_lacks_is_refused(tmp_path: Path):
    class Exotic(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((None, 4, 4, 1), tf.float32)])
        def classify(self, image):
            return tf.math.zeta(tf.reshape(image, (-1, 16)) + 2, 1.0)

    module = Exotic()
    tf.saved_model.save(module, tmp_path / "exotic", signatures=module.classify)
    check_refused(tmp_path / "exotic", "no .tflite equivalent")


@pytest.mark.parametrize("kind", [".keras", ".h5"])
def test_a_damaged_file_is_refused(network, tmp_path: Path, kind: str):
    source = save(network, tmp_path, kind)
    content = source.read_bytes()
    for damaged in (b"", b"no network", content[: len(content) // 2]):
        source.write_bytes(damaged)
        check_refused(source, "cannot be loaded")


@pytest.mark.parametrize("kind", [".keras", ".h5"])
def test_a_file_that_brings_code_of_its_own_is_refused(tmp_path: Path, kind: str):
    layers = [
        keras.Input((4, 4, 1)),
        keras.layers.Lambda(lambda x: x * 2),
        keras.layers.Flatten(),
        keras.layers.Dense(2),
    ]
    check_refused(save(keras.Sequential(layers), tmp_path, kind), "Lambda layer")


def test_what_is_no_network_is_refused(tmp_path: Path):
    check_refused(tmp_path / "nothing.keras", "no such file or folder")
    (tmp_path / "network.onnx").write_bytes(b"")
    check_refused(tmp_path / "network.onnx", ".keras")
    (tmp_path / "folder").mkdir()
    check_refused(tmp_path / "folder", "SavedModel")


def test_preprocessing_and_images_must_fit_the_network(network, digits: ImageSet, tmp_path: Path):
    source = save(network, tmp_path, ".keras")
    check_refused(source, "(8, 8, 1)", "(8, 8, 3)", preprocessing=Preprocessing(8, 8, "rgb"))
    small = ImageSet(digits.pixels[:, 1:], digits.labels, digits.classes)
    with pytest.raises(InputError, match=r"\(7, 8, 1\).*\(8, 8, 1\)"):
        convert(source, tmp_path / "base.tflite", images=small, preprocessing=SCANNED)


def test_a_target_that_cannot_be_written_is_refused_first(network, tmp_path: Path):
    with pytest.raises(ConversionError, match="folder that exists"):
        convert(tmp_path / "nothing.keras", tmp_path / "no" / "base.tflite")
    with pytest.raises(ConversionError, match="folder that exists"):
        convert(tmp_path / "nothing.keras", tmp_path)


def test_without_tensorflow_the_extra_is_named(network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    source = save(network, tmp_path, ".keras")
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'capnn\[cloud\]'"):
        convert(source, tmp_path / "base.tflite")


def test_standard_output_stays_clean_and_works_again_after_success_and_failure(network, tmp_path: Path):
    source = save(network, tmp_path, ".keras")
    (tmp_path / "broken.keras").write_bytes(b"no network")
    program = """
import os, sys
from cloud_pruner.conversion import convert
from cloud_pruner.errors import ConversionError
assert "tensorflow" not in sys.modules and "keras" not in sys.modules
folder = sys.argv[1]
print("before")
convert(f"{folder}/network.keras", f"{folder}/base.tflite")
print("between", flush=True)
try:
    convert(f"{folder}/broken.keras", f"{folder}/other.tflite")
except ConversionError:
    os.write(1, b"after\\n")
print("end on stderr", file=sys.stderr)
"""
    command = [sys.executable, "-c", program, str(source.parent)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout == "before\nbetween\nafter\n"
    assert finished.stderr == "end on stderr\n"
