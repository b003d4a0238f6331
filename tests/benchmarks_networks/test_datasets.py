"""Images to train and report on: the same ones wherever they come from, and none held out that was kept."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from benchmarks.networks.datasets import hold_out, joined, load_dataset, read_folder
from cloud_pruner.errors import ImageDataError
from cloud_pruner.images import ImageSet


def images(labels, seed=0):
    labels = np.asarray(labels, dtype=np.int64)
    pixels = np.random.default_rng(seed).integers(0, 256, (len(labels), 4, 4, 3), dtype=np.uint8)
    return ImageSet(pixels, labels, ("ant", "bee"))


def test_the_last_images_of_each_class_are_held_out():
    given = images([0, 1, 1, 0, 1, 0, 0])
    kept, held_out = hold_out(given, 2)
    assert kept.labels.tolist() == [0, 1, 0]
    assert np.array_equal(kept.pixels, given.pixels[[0, 1, 3]])
    assert held_out.labels.tolist() == [1, 1, 0, 0]
    assert np.array_equal(held_out.pixels, given.pixels[[2, 4, 5, 6]])
    assert len(hold_out(given, 0)[1].labels) == 0


def test_a_class_that_would_lose_all_its_images_is_refused():
    with pytest.raises(
        ImageDataError, match=r"class 'bee' has 3 images, 3 of which cannot be held out: hold out fewer"
    ):
        hold_out(images([0, 1, 1, 0, 1, 0, 0]), 3)


def test_two_sets_are_joined_one_after_the_other():
    both = joined(images([0, 1]), images([1, 1, 0], seed=1))
    assert both.labels.tolist() == [0, 1, 1, 1, 0]
    assert both.pixels.shape == (5, 4, 4, 3)


def archive(order):
    """The two parts of a data set as `keras.datasets` gives them, in any order."""
    rng = np.random.default_rng(2)
    pixels = rng.integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
    labels = np.arange(40) % 10
    return (pixels[order], labels[order, None]), (pixels[:20], labels[:20, None])


def test_downloaded_images_come_in_one_order_whatever_the_archive_s(monkeypatch):
    monkeypatch.delenv("CAPNN_DATA", raising=False)
    loaded = []
    for order in (np.arange(40), np.random.default_rng(3).permutation(40)):
        monkeypatch.setattr("keras.datasets.cifar10.load_data", lambda order=order: archive(order))
        loaded.append(load_dataset("cifar10"))
    first, second = (dataset.train for dataset in loaded)
    assert np.array_equal(first.pixels, second.pixels)
    assert first.labels.tolist() == second.labels.tolist() == sorted(np.arange(40) % 10)
    assert first.classes[3] == "cat"
    assert len(loaded[0].test.labels) == 20
    # Within a class the order is none that the archive or the pictures' brightness would suggest, but each is there.
    given = archive(np.arange(40))[0][0]
    assert sorted(image.tobytes() for image in first.pixels) == sorted(image.tobytes() for image in given)


def test_without_data_and_internet_one_line_says_what_to_do(monkeypatch):
    def fail():
        raise Exception("URL fetch failure on https://example.org/cifar-100-python.tar.gz: None -- unreachable")  # noqa: TRY002 - as Keras

    monkeypatch.delenv("CAPNN_DATA", raising=False)
    monkeypatch.setattr("keras.datasets.cifar100.load_data", fail)
    with pytest.raises(ImageDataError, match=r"cifar100 cannot be downloaded \(URL .*connect to the internet, or set "):
        load_dataset("cifar100")


@pytest.fixture
def folder(tmp_path):
    for part, counts in {"train": (3, 2), "val": (1, 1)}.items():
        for name, count in zip(("n01", "n02"), counts, strict=True):
            (tmp_path / part / name).mkdir(parents=True)
            for number in range(count):
                colour = (10 * number, 100, 0 if name == "n01" else 200)
                Image.new("RGB", (30, 20), colour).save(tmp_path / part / name / f"{number}.png")
    return tmp_path


def test_a_folder_s_images_are_resized(folder):
    dataset = load_dataset("imagenet-folder", folder)
    assert dataset.train.pixels.shape == (5, 224, 224, 3)
    assert dataset.train.labels.tolist() == [0, 0, 0, 1, 1]
    assert dataset.train.pixels[:, 100, 100].tolist() == [[0, 100, 0], [10, 100, 0], [20, 100, 0], [0, 100, 200],
                                                          [10, 100, 200]]  # fmt: skip
    assert dataset.test.labels.tolist() == [0, 1]
    assert read_folder(folder / "train", 8, per_class=1).pixels.shape == (2, 8, 8, 3)


def test_what_is_wrong_with_a_folder_is_said(folder):
    with pytest.raises(ImageDataError, match="imagenet-folder needs a folder with train/ and val/: name it with "):
        load_dataset("imagenet-folder")
    with pytest.raises(ImageDataError, match=r"nowhere.train: has no sub-folders: put each class's images into one "):
        load_dataset("imagenet-folder", folder / "nowhere")
    (folder / "val" / "n02" / "0.png").write_bytes(b"no picture")
    with pytest.raises(ImageDataError, match=r"n02.0\.png: not a picture"):
        load_dataset("imagenet-folder", folder)
    (folder / "val" / "n02" / "0.png").unlink()
    with pytest.raises(ImageDataError, match=r"n02: has no images \(\.bmp, .*\): add some or remove it"):
        load_dataset("imagenet-folder", folder)
    (folder / "val" / "n02").rmdir()
    with pytest.raises(ImageDataError, match="train and val have different sub-folders: give both the same classes"):
        load_dataset("imagenet-folder", folder)
    with pytest.raises(ImageDataError, match="there is no data set 'mnist': choose one of cifar10, cifar100, imagenet"):
        load_dataset("mnist")
