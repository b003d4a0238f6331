"""The real images that the benchmarks run on: CIFAR-10 and CIFAR-100.

They lie in the folder named by the environment variable CAPNN_DATA, as `data/NAME.webp.npz`: `blob` (lossless WebP
sheets of 10 x 10 images, end to end), `offsets` (where each sheet starts, and the end), `labels` and `classes`. Source:
Krizhevsky, "Learning multiple layers of features from tiny images", technical report, 2009.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["capnn_data", "load_cifar", "require_capnn_data"]

_SIDE = 32
_SHEET = 10


def capnn_data() -> Path | None:
    """Return the folder that CAPNN_DATA names, or None where it names none."""
    folder = Path(os.environ.get("CAPNN_DATA", ""))
    return folder if os.environ.get("CAPNN_DATA") and folder.is_dir() else None


def require_capnn_data() -> Path:
    """Return the folder that CAPNN_DATA names.

    Raises
    ------
    FileNotFoundError
        It names none.
    """
    folder = capnn_data()
    if folder is None:
        raise FileNotFoundError(
            "set CAPNN_DATA to the folder with the reference images (data/) and networks (weights/)"
        )
    return folder


def load_cifar(name: str, every: int = 1) -> tuple[NDArray[np.uint8], NDArray[np.int64], tuple[str, ...]]:
    """Decode "cifar10_train", "cifar10_test", "cifar100_train" or "cifar100_test"; 10,000 images take about 2 s.

    Parameters
    ----------
    name
        Of the archive.
    every
        Decode only every so manyth hundred of the images, which are sorted by class: 1: all. There are 50 hundreds of
        a class in cifar10_train, 10 in cifar10_test, 5 in cifar100_train and 1 in cifar100_test.

    Returns
    -------
    tuple
        Images `(n, 32, 32, 3)` uint8 RGB, labels `(n,)` int64 and the names of the classes, all in archive order.

    Raises
    ------
    FileNotFoundError
        CAPNN_DATA names no folder, or that has no such archive.
    """
    with np.load(require_capnn_data() / "data" / f"{name}.webp.npz", allow_pickle=False) as archive:
        blob, offsets = memoryview(archive["blob"]), archive["offsets"].tolist()
        labels, names = archive["labels"].astype(np.int64), archive["classes"].tolist()
    labels = labels.reshape(-1, _SHEET**2)[::every].reshape(-1)
    images = np.empty((len(labels), _SIDE, _SIDE, 3), dtype=np.uint8)
    sheets = images.reshape(-1, _SHEET, _SHEET, _SIDE, _SIDE, 3)
    for sheet, start, end in zip(sheets, offsets[:-1:every], offsets[1::every], strict=True):
        picture = np.asarray(Image.open(io.BytesIO(blob[start:end])).convert("RGB"))
        sheet[:] = picture.reshape(_SHEET, _SIDE, _SHEET, _SIDE, 3).swapaxes(1, 2)
    return images, labels, tuple(name.decode() for name in names)
