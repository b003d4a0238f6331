"""Labelled images from a folder or an `.npz`, and their split into parts."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cloud_pruner.errors import ImageDataError
from cloud_pruner.images import load_images, split_per_class

if TYPE_CHECKING:
    from pathlib import Path


def write_picture(path: Path, colour: tuple[int, int, int] = (10, 20, 30), size: tuple[int, int] = (6, 4)) -> Path:
    """Write a picture of `size` (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    folder = tmp_path / "zoo"
    write_picture(folder / "cat" / "b.png", (1, 1, 1))
    write_picture(folder / "cat" / "a.png", (2, 2, 2))
    write_picture(folder / "ant" / "z.bmp", (3, 3, 3))
    return folder


def write_npz(path: Path, **changes: object) -> Path:
    arrays = {
        "x": np.zeros((4, 5, 6, 3), dtype=np.uint8),
        "y": np.array([0, 1, 1, 0]),
        "classes": np.array(["ant", "cat"]),
    }
    np.savez(path, **{name: value for name, value in {**arrays, **changes}.items() if value is not None})
    return path


def test_a_folder_gives_sorted_classes_and_files(zoo: Path):
    images = load_images(zoo)
    assert images.classes == ("ant", "cat")
    assert images.labels.tolist() == [0, 1, 1]
    assert images.pixels.shape == (3, 4, 6, 3)
    assert images.pixels.dtype == np.uint8
    assert images.pixels[:, 0, 0, 0].tolist() == [3, 2, 1]


def test_a_folder_is_read_as_keras_reads_it(zoo: Path):
    keras_utils = pytest.importorskip("keras").utils
    dataset = keras_utils.image_dataset_from_directory(zoo, image_size=(4, 6), shuffle=False, verbose=False)
    pixels, labels = next(iter(dataset))
    images = load_images(zoo)
    assert tuple(dataset.class_names) == images.classes
    np.testing.assert_array_equal(labels, images.labels)
    np.testing.assert_array_equal(pixels, images.pixels)


@pytest.mark.parametrize("suffix", ["png", "jpg", "JPEG", "bmp", "gif", "webp", "ppm"])
def test_every_format_that_is_promised(tmp_path: Path, suffix: str):
    write_picture(tmp_path / "one" / f"picture.{suffix}", (200, 200, 200))
    np.testing.assert_allclose(load_images(tmp_path).pixels.astype(int), 200, atol=2)


def test_grey_files_stay_grey_unless_one_is_coloured(tmp_path: Path):
    folder = tmp_path / "digits"
    (folder / "one").mkdir(parents=True)
    Image.new("L", (6, 4), 7).save(folder / "one" / "a.png")
    assert load_images(folder).pixels.shape == (1, 4, 6, 1)
    write_picture(folder / "one" / "b.png", (1, 2, 3))
    assert load_images(folder).pixels[:, 0, 0].tolist() == [[7, 7, 7], [1, 2, 3]]


def test_other_and_hidden_files_are_passed_over(zoo: Path):
    (zoo / "readme.txt").write_text("three pictures")
    (zoo / "cat" / "notes.txt").write_text("none")
    (zoo / "cat" / "._a.png").write_bytes(b"left by another system")
    (zoo / ".thumbnails").mkdir()
    assert len(load_images(zoo).labels) == 3


def test_an_npz_keeps_its_order_of_images_and_classes(tmp_path: Path):
    x = np.random.default_rng(0).integers(0, 256, (4, 5, 6), dtype=np.uint8)
    images = load_images(write_npz(tmp_path / "a.npz", x=x, classes=np.array([b"zebra", b"ant"])), size=(5, 6))
    np.testing.assert_array_equal(images.pixels, x[..., np.newaxis])
    assert images.labels.tolist() == [0, 1, 1, 0]
    assert images.labels.dtype == np.int64
    assert images.classes == ("zebra", "ant")


def check_refused(path: Path, *words: str, size: tuple[int, int] | None = None) -> None:
    with pytest.raises(ImageDataError) as caught:
        load_images(path, size)
    message = str(caught.value)
    assert "\n" not in message
    for word in (str(path), *words):
        assert word in message


def test_a_path_that_is_not_there_or_neither(tmp_path: Path):
    check_refused(tmp_path / "nothing", "no such file or folder")
    (tmp_path / "a.zip").write_bytes(b"")
    check_refused(tmp_path / "a.zip", ".npz")


def test_a_folder_without_class_folders(tmp_path: Path):
    write_picture(tmp_path / "a.png")
    check_refused(tmp_path, "sub-folder")


def test_an_empty_class_folder(zoo: Path):
    (zoo / "bee").mkdir()
    check_refused(zoo, str(zoo / "bee"), "has no images")


def test_an_unreadable_image(zoo: Path):
    (zoo / "cat" / "c.png").write_bytes(b"no picture")
    check_refused(zoo, str(zoo / "cat" / "c.png"), "not a picture")


def test_images_of_different_sizes(zoo: Path):
    write_picture(zoo / "cat" / "c.png", size=(9, 8))
    check_refused(zoo, str(zoo / "cat" / "c.png"), "8 high and 9 wide", "4 and 6", str(zoo / "ant" / "z.bmp"), "resize")


def test_images_of_another_size_than_wanted(zoo: Path):
    check_refused(zoo, str(zoo / "ant" / "z.bmp"), "4 high and 6 wide", "32 and 32", "resize", size=(32, 32))
    assert load_images(zoo, size=(4, 6)).pixels.shape == (3, 4, 6, 3)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"x": None}, ["has no 'x'"]),
        ({"classes": None}, ["has no 'classes'"]),
        ({"x": np.zeros((4, 5, 6, 3))}, ["x is float64", "uint8"]),
        ({"x": np.zeros((4, 30), np.uint8)}, ["x has shape (4, 30)"]),
        ({"x": np.zeros((4, 5, 6, 4), np.uint8)}, ["x has shape (4, 5, 6, 4)"]),
        ({"y": np.array([0, 1, 1])}, ["y is int64 of shape (3,)", "4 integers"]),
        ({"y": np.array([0.0, 1.0, 1.0, 0.0])}, ["y is float64"]),
        ({"y": np.array([0, 1, 2, 0])}, ["y goes from 0 to 2", "2 classes"]),
        ({"y": np.array([0, -1, 1, 0])}, ["y goes from -1"]),
        ({"y": np.array([0, 0, 0, 0])}, ["class 'cat' has no images"]),
        ({"classes": np.array([1, 2])}, ["classes is int64"]),
        ({"classes": np.array(["ant", "ant"])}, ["twice"]),
        ({"classes": np.array(["ant", None], dtype=object)}, ["cannot be read"]),
    ],
    ids=lambda value: None if isinstance(value, list) else "-".join(value),
)
def test_an_npz_that_is_laid_out_otherwise(tmp_path: Path, changes: dict[str, object], words: list[str]):
    check_refused(write_npz(tmp_path / "images.npz", **changes), *words)


def test_an_npz_of_another_size_than_wanted(tmp_path: Path):
    check_refused(write_npz(tmp_path / "images.npz"), "5 high and 6 wide", "32 and 32", size=(32, 32))


@pytest.mark.parametrize("keep", [0, 1, 300, -30])
def test_a_damaged_npz(tmp_path: Path, keep: int):
    path = write_npz(tmp_path / "images.npz")
    path.write_bytes(path.read_bytes()[:keep])
    check_refused(path, "cannot be read")


def test_an_npz_that_is_something_else_is_never_unpickled(tmp_path: Path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    np.save(tmp_path / "trap.npy", np.array([Trap()], dtype=object), allow_pickle=True)
    check_refused((tmp_path / "trap.npy").rename(tmp_path / "trap.npz"), "cannot be read")
    check_refused(write_npz(tmp_path / "b.npz", y=np.array([Trap()], dtype=object)), "cannot be read")
    assert not (tmp_path / "sprung").exists()


def test_parts_are_random_samples_of_each_class_always_the_same():
    labels = np.repeat([0, 1], 1000)
    counts = {"profile": 500, "select": 500}
    parts = split_per_class(labels, counts)
    for positions in parts.values():
        for part in (positions[:500], positions[500:] - 1000, positions[:100]):
            # Six standard errors of the mean of 100 evenly spread numbers below 1000, nine of that of 500.
            assert abs(part.mean() - 499.5) < 1000 / 6 * (1 if len(part) == 100 else 0.5)
    again = split_per_class(labels, counts)
    assert all(np.array_equal(again[name], positions) for name, positions in parts.items())


def test_a_part_does_not_depend_on_those_after_it():
    labels = np.array([1, 0, 1, 1, 0, 0, 1])
    alone, followed = split_per_class(labels, {"a": 2}), split_per_class(labels, {"a": 2, "b": 1})
    assert alone["a"].tolist() == followed["a"].tolist()


@given(st.lists(st.integers(0, 3), min_size=40, max_size=80), st.tuples(*[st.integers(0, 2)] * 3))
def test_parts_are_disjoint_sorted_and_equal_for_every_class(drawn: list[int], counts: tuple[int, int, int]):
    labels = np.array([*drawn, *[0, 1, 2, 3] * 6])
    wanted = dict(zip("abc", counts, strict=True))
    parts = split_per_class(labels, wanted)
    taken = np.concatenate(list(parts.values()))
    assert len(set(taken.tolist())) == len(taken)
    for part, positions in parts.items():
        assert np.bincount(labels[positions], minlength=4).tolist() == [wanted[part]] * 4
        assert labels[positions].tolist() == sorted(labels[positions].tolist())


def test_a_class_with_too_few_images_is_named():
    labels = np.array([0, 0, 0, 1, 1, 0])
    with pytest.raises(ImageDataError, match=r"class 'cat' has 2 images, 3 are needed \(2 select \+ 1 certify\)"):
        split_per_class(labels, {"select": 2, "certify": 1}, ("ant", "cat"))
    with pytest.raises(ImageDataError, match="class 'dog' has 0 images"):
        split_per_class(labels, {"select": 1}, ("ant", "cat", "dog"))
    with pytest.raises(ImageDataError, match="class '1' has 2 images"):
        split_per_class(labels, {"select": 3})
