"""The images that the papers' networks are trained and measured on: CIFAR-10, CIFAR-100, or a folder of one's own.

CIFAR comes from the folder named by CAPNN_DATA where that is set, else through `keras.datasets`, which downloads it
once. The two have the same images in different orders; here both are ordered by what the images show, so that the same
ones are held out wherever they come from: a network trained on the one would else be measured on images it has seen.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from benchmarks.data import capnn_data, load_cifar
from cloud_pruner.errors import ImageDataError
from cloud_pruner.images import ImageSet
from edge_runtime.errors import InputError
from edge_runtime.preprocessing import read_pixels

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["DATASETS", "FOLDER_SIDE", "Dataset", "hold_out", "joined", "load_dataset", "read_folder"]

DATASETS: Final = ("cifar10", "cifar100", "imagenet-folder")
FOLDER_SIDE: Final = 224
"""Height and width, in pixels, that the images of a folder are resized to."""

_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp"})
_CIFAR10 = "airplane automobile bird cat deer dog frog horse ship truck"
_CIFAR100 = """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
    caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant
    flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree
    motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate
    poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider
    squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle
    wardrobe whale willow_tree wolf woman worm"""


@dataclass(frozen=True, slots=True)
class Dataset:
    """Images to train on, and images to report on.

    Attributes
    ----------
    name
        One of `DATASETS`.
    train
        What may be trained on, or held out of training.
    test
        What nothing is trained or chosen on. Has the classes of `train`.
    """

    name: str
    train: ImageSet
    test: ImageSet


def load_dataset(name: str, folder: Path | None = None) -> Dataset:
    """Load a data set, its images class by class in an order of their own.

    Parameters
    ----------
    name
        One of `DATASETS`.
    folder
        For "imagenet-folder" alone: a folder with the sub-folders `train` and `val`, each with one sub-folder a class.
        Images are resized to `FOLDER_SIDE` and held in memory, 150 kB each.

    Raises
    ------
    ImageDataError
        There is no such data set, it is neither in CAPNN_DATA nor can be downloaded, or the folder is not laid out
        like this.
    """
    if name not in DATASETS:
        raise ImageDataError(f"there is no data set '{name}': choose one of {', '.join(DATASETS)}")
    if name == "imagenet-folder":
        if folder is None:
            raise ImageDataError("imagenet-folder needs a folder with train/ and val/: name it with --folder")
        train, test = (read_folder(folder / part, FOLDER_SIDE) for part in ("train", "val"))
        if train.classes != test.classes:
            raise ImageDataError(f"{folder}: train and val have different sub-folders: give both the same classes")
        return Dataset(name, train, test)
    if capnn_data() is not None:
        parts: Iterable[ImageSet] = (ImageSet(*load_cifar(f"{name}_{part}")) for part in ("train", "test"))
    else:
        parts = _downloaded(name)
    return Dataset(name, *map(_ordered, parts))


def hold_out(images: ImageSet, per_class: int) -> tuple[ImageSet, ImageSet]:
    """Split images into (kept, held out): the last `per_class` of each class, in the order given, are held out.

    Both parts keep that order.

    Raises
    ------
    ImageDataError
        Nothing would be kept of a class.
    """
    last = np.zeros(len(images.labels), dtype=bool)
    for number, name in enumerate(images.classes):
        positions = np.flatnonzero(images.labels == number)
        if len(positions) <= per_class:
            raise ImageDataError(
                f"class '{name}' has {len(positions)} images, {per_class} of which cannot be held out: hold out fewer"
            )
        last[positions[len(positions) - per_class :]] = True
    return _chosen(images, ~last), _chosen(images, last)


def joined(first: ImageSet, second: ImageSet) -> ImageSet:
    """Return the images of both, one after the other; they have the same classes."""
    return ImageSet(
        np.concatenate([first.pixels, second.pixels]), np.concatenate([first.labels, second.labels]), first.classes
    )


def read_folder(folder: Path, side: int, per_class: int | None = None) -> ImageSet:
    """Read a folder with one sub-folder a class, every image resized to `side` x `side` RGB pixels.

    Classes come in the order of their sub-folders' names, images in that of their files', and of each class the first
    `per_class`, or all.

    Raises
    ------
    ImageDataError
        There is no such folder, it has no sub-folders, one of them has no images, or an image cannot be read.
    """
    classes = sorted(child for child in folder.iterdir() if child.is_dir()) if folder.is_dir() else []
    if not classes:
        raise ImageDataError(f"{folder}: has no sub-folders: put each class's images into one named after it")
    files = [[file for file in sorted(child.iterdir()) if file.suffix.lower() in _SUFFIXES] for child in classes]
    for child, inside in zip(classes, files, strict=True):
        if not inside:
            raise ImageDataError(f"{child}: has no images ({', '.join(sorted(_SUFFIXES))}): add some or remove it")
    chosen = [inside[:per_class] for inside in files]
    pixels = np.empty((sum(map(len, chosen)), side, side, 3), dtype=np.uint8)
    for position, file in enumerate(file for inside in chosen for file in inside):
        pixels[position] = _read(file, side)
    labels = np.repeat(np.arange(len(classes), dtype=np.int64), [len(inside) for inside in chosen])
    return ImageSet(pixels, labels, tuple(child.name for child in classes))


def _read(file: Path, side: int) -> NDArray[np.uint8]:
    try:
        return read_pixels(file.read_bytes(), mode="RGB", size=(side, side))
    except InputError as error:
        raise ImageDataError(f"{file}: {error}") from error


def _chosen(images: ImageSet, rows: NDArray[np.bool_] | NDArray[np.int64]) -> ImageSet:
    return ImageSet(images.pixels[rows], images.labels[rows], images.classes)


def _ordered(images: ImageSet) -> ImageSet:
    """Order images by class, and within a class by the digests of their pixels: as good as at random, yet settled."""
    digests = [hashlib.sha256(image.tobytes()).digest() for image in images.pixels]
    order = sorted(range(len(digests)), key=lambda row: (int(images.labels[row]), digests[row]))
    return _chosen(images, np.array(order, dtype=np.int64))


def _downloaded(name: str) -> Iterator[ImageSet]:
    import keras  # noqa: PLC0415 - seconds to import, and only without CAPNN_DATA

    source: Any = {"cifar10": keras.datasets.cifar10, "cifar100": keras.datasets.cifar100}[name]
    try:
        train, test = source.load_data()
    except Exception as error:  # Keras raises a bare Exception where it cannot download
        raise ImageDataError(
            f"{name} cannot be downloaded ({error}): connect to the internet, or set CAPNN_DATA to a folder that has "
            f"data/{name}_train.webp.npz and data/{name}_test.webp.npz"
        ) from error
    classes = tuple((_CIFAR10 if name == "cifar10" else _CIFAR100).split())
    for pixels, labels in (train, test):
        yield ImageSet(pixels, labels.reshape(-1).astype(np.int64), classes)
