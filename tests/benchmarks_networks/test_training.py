"""Training from scratch: it learns, goes on where it was broken off, and its file says what it is."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.networks import train as command
from benchmarks.networks.datasets import hold_out, load_dataset
from benchmarks.networks.training import Recipe, augmented, measured_top1, train
from benchmarks.networks.weight_files import load_weights, read_about, save_weights
from cloud_pruner.errors import PrunerError
from tests.support.digits import PREPROCESSING, digit_images

RECIPE = Recipe(epochs=2, batch=64, rate=5e-3, seed=3)


@pytest.fixture(scope="module")
def digits():
    return digit_images()


def small_network():
    import keras

    keras.utils.set_random_seed(RECIPE.seed)
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(16, 3, padding="same", use_bias=False),
            keras.layers.BatchNormalization(momentum=0.8),  # there are few steps
            keras.layers.ReLU(),
            keras.layers.Flatten(),
            keras.layers.Dense(10),
        ]
    )


def interrupt_after(epochs):
    lines = []

    def tell(line):
        lines.append(line)
        if len(lines) == epochs:
            raise KeyboardInterrupt

    return tell


def test_it_learns_and_goes_on_where_it_was_broken_off(digits, tmp_path):
    whole = small_network()
    before = measured_top1(whole, digits["unseen"], PREPROCESSING)
    lines = []
    train(whole, digits["trained_on"], PREPROCESSING, RECIPE, tell=lines.append)
    assert measured_top1(whole, digits["unseen"], PREPROCESSING) > before + 0.3
    assert [line.split(":")[0] for line in lines] == ["epoch 1 of 2", "epoch 2 of 2"]

    with pytest.raises(KeyboardInterrupt):
        train(small_network(), digits["trained_on"], PREPROCESSING, RECIPE, tmp_path / "state", interrupt_after(1))
    resumed = small_network()
    lines.clear()
    train(resumed, digits["trained_on"], PREPROCESSING, RECIPE, tmp_path / "state", lines.append)
    assert len(lines) == 1
    for expected, found in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)  # threads sum in any order

    with pytest.raises(PrunerError, match="holds a training with other settings: name another folder or remove this"):
        train(small_network(), digits["unseen"], PREPROCESSING, RECIPE, tmp_path / "state")


def test_fewer_images_than_a_batch_are_refused(digits):
    with pytest.raises(PrunerError, match="there are 900 images, fewer than a batch: take a batch below that"):
        train(small_network(), digits["trained_on"], PREPROCESSING, Recipe(epochs=1, batch=901))


def test_crops_are_parts_of_the_image_mirrored_or_not():
    image = np.arange(1, 257, dtype=np.uint8).reshape(16, 16, 1)
    crops = augmented(np.repeat(image[None], 300, axis=0), np.random.default_rng(0))
    assert crops.shape == (300, 16, 16, 1)
    padded = np.pad(image, ((2, 2), (2, 2), (0, 0)))
    every = {padded[y : y + 16, x : x + 16].tobytes(): (y, x) for y in range(5) for x in range(5)}
    mirrored = {padded[y : y + 16, x : x + 16][:, ::-1].tobytes(): (y, x) for y in range(5) for x in range(5)}
    found = [crop.tobytes() for crop in crops]
    assert all(crop in every or crop in mirrored for crop in found)
    assert len({every[crop] for crop in found if crop in every}) == 25
    assert 100 < sum(crop in mirrored for crop in found) < 200


def test_weights_come_back_as_they_were_written(tmp_path):
    model = small_network()
    save_weights(tmp_path / "new" / "weights.npz", model, {"epochs": 2})
    other = small_network()
    other.set_weights([values + 1 for values in other.get_weights()])
    load_weights(tmp_path / "new" / "weights.npz", other)
    for given, found in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(found, given, rtol=1e-3, atol=1e-7)  # float16 has 11 bits, fewer for the smallest
    assert read_about(tmp_path / "new" / "weights.npz") == {"epochs": 2}


def test_other_files_are_refused(tmp_path):
    import keras

    model = small_network()
    save_weights(tmp_path / "weights.npz", model, {})
    wider = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)], name="wider")
    with pytest.raises(PrunerError, match=r"weights.npz: holds the weights of another network than wider: build it "):
        load_weights(tmp_path / "weights.npz", wider)
    (tmp_path / "torn.npz").write_bytes((tmp_path / "weights.npz").read_bytes()[:200])
    with pytest.raises(PrunerError, match=r"torn.npz: cannot be read as weights .*: train the network again"):
        read_about(tmp_path / "torn.npz")
    np.savez(tmp_path / "bare.npz", x=np.zeros(3))
    with pytest.raises(PrunerError, match=r"bare.npz: does not say how its weights came about: write it with "):
        load_weights(tmp_path / "bare.npz", model)


def noise(count):
    rng = np.random.default_rng(count)
    labels = np.arange(count) % 10
    # Each class has a brightness of its own.
    return np.uint8(rng.integers(0, 60, (count, 32, 32, 3)) + 20 * labels[:, None, None, None]), labels[:, None]


def test_the_command_writes_a_file_that_rebuilds_the_network(monkeypatch, tmp_path, capsys):
    monkeypatch.delenv("CAPNN_DATA", raising=False)
    monkeypatch.setattr("keras.datasets.cifar10.load_data", lambda: (noise(300), noise(50)))
    written = tmp_path / "alexnet.npz"
    shape = ["alexnet", "--head", "8", "--width", "0.0625"]
    code = command.main([*shape, "--epochs", "1", "--batch", "90", "--hold-out", "3", "-o", str(written)])
    assert code == 0
    about = read_about(written)
    assert (about["network"], about["epochs"], about["hold_out"]) == ("alexnet", 1, 3)
    model = command.build_network("alexnet", 10, side=32, width=0.0625, head=8)
    load_weights(written, model)
    dataset = load_dataset("cifar10")
    held_out = hold_out(dataset.train, 3)[1]
    assert len(held_out.labels) == 30
    assert measured_top1(model, held_out, command.preprocessing(32)) == about["held_out_top1"]
    assert measured_top1(model, dataset.test, command.preprocessing(32)) == about["test_top1"]
    output = capsys.readouterr().out
    assert "270 images" in output
    assert "epoch 1 of 1: loss" in output
    assert "top-1 on the 50 test images: " in output


def test_without_an_accelerator_one_line_says_what_to_do(monkeypatch, capsys):
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    assert command.main(["vgg16", "--accelerator", "-o", "vgg16.npz"]) == 1
    error = "train: error: --accelerator: KERAS_BACKEND is tensorflow: set it to jax, or leave it out\n"
    assert capsys.readouterr().err.endswith(error)


def test_an_application_needs_its_images_and_weights(monkeypatch, tmp_path, capsys):
    from PIL import Image

    from benchmarks.networks import export_application

    def unreachable(**_options):
        raise Exception("URL fetch failure on https://example.org/vgg16.h5: None -- unreachable")  # noqa: TRY002 - as Keras

    arguments = ["VGG16", "--folder", str(tmp_path), "-o", str(tmp_path / "out")]
    assert export_application.main(arguments) == 1
    assert "train: has no sub-folders: put each class's images into one named after it" in capsys.readouterr().err
    for part in ("train", "val"):
        (tmp_path / part / "n01440764").mkdir(parents=True)
        Image.new("RGB", (30, 20)).save(tmp_path / part / "n01440764" / "0.png")
    monkeypatch.setattr("keras.applications.VGG16", unreachable)
    assert export_application.main(arguments) == 1
    assert "VGG16: its weights cannot be downloaded (URL fetch failure" in capsys.readouterr().err


def test_the_preprocessing_of_applications_is_keras_own():
    from keras.applications import densenet, mobilenet, resnet

    from benchmarks.networks.export_application import APPLICATIONS

    pixels = np.random.default_rng(0).integers(0, 256, (1, 224, 224, 3), dtype=np.uint8)
    for name, module in {"ResNet152": resnet, "DenseNet121": densenet, "MobileNet": mobilenet}.items():
        expected = module.preprocess_input(pixels.astype(np.float32))
        np.testing.assert_allclose(APPLICATIONS[name].apply(pixels), expected, atol=1e-4)
