"""Labelled images to profile, search and measure with: a folder with one sub-folder per class, or one `.npz` file."""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cloud_pruner.errors import ImageDataError
from edge_runtime.errors import InputError
from edge_runtime.preprocessing import read_pixels

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

__all__ = ["ImageSet", "load_images", "split_per_class"]

_SEED = 0  # of the order in which images are split
_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".ppm")


@dataclass(frozen=True, slots=True, eq=False)
class ImageSet:
    """Images of one size with the class of each.

    Attributes
    ----------
    pixels
        `(n, height, width, channels)` uint8, RGB or grey.
    labels
        `(n,)` int64, positions in `classes`.
    classes
        Names, in the order of the model's outputs.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]


def load_images(path: Path | str, size: tuple[int, int] | None = None) -> ImageSet:
    """Load a folder or an `.npz` file of labelled images.

    A folder holds one sub-folder per class, whose sorted names give the order of the classes, as in Keras'
    `image_dataset_from_directory`; images come class by class in the order of their file names. They are RGB, or grey
    where every file is. An `.npz` file holds `x` `(n, height, width)` or `(n, height, width, channels)` uint8, `y`
    `(n,)` integers and `classes`, their names.

    Parameters
    ----------
    path
        The folder or file.
    size
        (height, width) that the images must have; without it, any that they share. Nothing is resized: a network is to
        be measured on what its user prepared.

    Raises
    ------
    ImageDataError
        There is no such path, or it is not laid out like this; an image cannot be read, or has another size than it
        must have; a class has no images.
    """
    path = Path(path)
    if path.is_dir():
        return _load_folder(path, size)
    if not path.exists():
        raise ImageDataError(
            f"{path}: no such file or folder: give a folder with one sub-folder per class, or an .npz file"
        )
    if path.suffix != ".npz":
        raise ImageDataError(
            f"{path}: is no folder and no .npz file: give a folder with one sub-folder per class, or an .npz file"
        )
    return _load_npz(path, size)


def split_per_class(
    labels: NDArray[np.int64], counts: Mapping[str, int], classes: Sequence[str] | None = None
) -> dict[str, NDArray[np.int64]]:
    """Split images at random into disjoint parts with equal numbers of every class.

    At random, since collections are often sorted within a class, by file name, place or date: without it, what is
    measured on one part does not hold for another, and a certificate, which takes its images for independent draws of
    their class, would not be true. The order is seeded: the same labels give the same parts.

    Parameters
    ----------
    labels
        `(n,)` class of each image.
    counts
        Name of a part -> its images a class. The first part takes the first images of each class in the random order,
        the next part the next ones, and so on.
    classes
        Names of the classes; without them the classes are 0 up to the highest label.

    Returns
    -------
    dict
        Name of a part -> positions in `labels`, sorted by class; within a class in the random order, so that the first
        few of a part are a fair sample too.

    Raises
    ------
    ImageDataError
        A class has fewer images than the parts need together.
    """
    names = [str(label) for label in range(int(labels.max(initial=-1)) + 1)] if classes is None else list(classes)
    available = np.bincount(labels, minlength=len(names))
    needed = sum(counts.values())
    for name, images in zip(names, available, strict=True):
        if images < needed:
            parts = " + ".join(f"{count} {part}" for part, count in counts.items())
            raise ImageDataError(
                f"class '{name}' has {images} images, {needed} are needed ({parts}): add images or ask for fewer"
            )
    by_class = [
        np.random.default_rng([_SEED, number]).permutation(np.flatnonzero(labels == number))
        for number in range(len(names))
    ]
    parts_by_name: dict[str, NDArray[np.int64]] = {}
    start = 0
    for part, count in counts.items():
        parts_by_name[part] = np.concatenate([positions[start : start + count] for positions in by_class])
        start += count
    return parts_by_name


def _load_folder(folder: Path, size: tuple[int, int] | None) -> ImageSet:
    class_folders = sorted(child for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))
    if not class_folders:
        raise ImageDataError(f"{folder}: has no sub-folders: put each class's images into a sub-folder named after it")
    images: list[NDArray[np.uint8]] = []
    labels: list[int] = []
    wanted, reason = size, "the wanted size"
    for label, class_folder in enumerate(class_folders):
        files = sorted(child for child in class_folder.iterdir() if _is_image(child))
        if not files:
            raise ImageDataError(
                f"{class_folder}: has no images ({', '.join(_SUFFIXES)}): add some or remove the folder"
            )
        for file in files:
            image = _read(file)
            if wanted is None:
                wanted, reason = image.shape[:2], f"the size of {file}"
            _check_size(file, image.shape[:2], wanted, reason)
            images.append(image)
        labels += [label] * len(files)
    if any(image.shape[2] == 3 for image in images):
        images = [np.broadcast_to(image, (*image.shape[:2], 3)) for image in images]
    names = tuple(class_folder.name for class_folder in class_folders)
    return ImageSet(np.stack(images), np.array(labels, dtype=np.int64), names)


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in _SUFFIXES and not file.name.startswith(".") and file.is_file()


def _read(file: Path) -> NDArray[np.uint8]:
    try:
        return read_pixels(file.read_bytes())
    except InputError as error:
        raise ImageDataError(f"{file}: {error}") from error


def _check_size(path: Path, size: tuple[int, ...], wanted: tuple[int, ...], reason: str) -> None:
    if size != wanted:
        raise ImageDataError(
            f"{path}: is {size[0]} high and {size[1]} wide, not {wanted[0]} and {wanted[1]} ({reason}): "
            f"resize the images as the network's training did"
        )


def _load_npz(path: Path, size: tuple[int, int] | None) -> ImageSet:
    arrays = _read_npz(path)
    pixels, labels, names = arrays["x"], arrays["y"], arrays["classes"]
    if pixels.dtype != np.uint8:
        raise ImageDataError(
            f"{path}: x is {pixels.dtype}: expected uint8 pixels from 0 to 255, before any preprocessing"
        )
    if pixels.ndim == 3:
        pixels = pixels[..., np.newaxis]
    if pixels.ndim != 4 or pixels.shape[3] not in {1, 3} or 0 in pixels.shape[1:]:
        raise ImageDataError(
            f"{path}: x has shape {arrays['x'].shape}: expected (n, height, width) or (n, height, width, 1 or 3)"
        )
    if labels.shape != pixels.shape[:1] or labels.dtype.kind not in "iu":
        raise ImageDataError(
            f"{path}: y is {labels.dtype} of shape {labels.shape}: expected {len(pixels)} integers, one an image"
        )
    if names.ndim != 1 or not names.size or names.dtype.kind not in "US":
        raise ImageDataError(f"{path}: classes is {names.dtype} of shape {names.shape}: expected a list of names")
    classes = tuple(name.decode() if isinstance(name, bytes) else str(name) for name in names)
    if len(set(classes)) < len(classes):
        raise ImageDataError(f"{path}: classes has a name twice: give every class a name of its own")
    if size is not None:
        _check_size(path, pixels.shape[1:3], size, "the wanted size")
    if labels.size and not 0 <= labels.min() <= labels.max() < len(classes):
        raise ImageDataError(
            f"{path}: y goes from {labels.min()} to {labels.max()}: "
            f"with {len(classes)} classes it must stay within 0 and {len(classes) - 1}"
        )
    images_per_class = np.bincount(labels, minlength=len(classes))
    if not images_per_class.all():
        raise ImageDataError(
            f"{path}: class '{classes[int(images_per_class.argmin())]}' has no images: add some or remove it"
        )
    return ImageSet(pixels, labels.astype(np.int64), classes)


def _read_npz(path: Path) -> dict[str, NDArray[Any]]:
    names = ("x", "y", "classes")
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in names if name in archive.files}
    except (OSError, ValueError, EOFError, AttributeError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        reason = str(error) or type(error).__name__
        raise ImageDataError(
            f"{path}: cannot be read as .npz ({reason}): write it with numpy.savez, numbers and strings only"
        ) from error
    for name in names:
        if name not in arrays:
            raise ImageDataError(f"{path}: has no '{name}': write it with numpy.savez(path, x=..., y=..., classes=...)")
    return arrays
