"""Pictures of any size for networks without images of their own: crops of photographs that scikit-learn brings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["photograph_crops"]

_SIDE_MIN = 120


def photograph_crops(count: int, side: int) -> NDArray[np.uint8]:
    """Return square crops of two photographs, scaled to `(count, side, side, 3)`; the same ones every time."""
    random = np.random.default_rng(0)
    photographs = load_sample_images().images
    crops = []
    for number in range(count):
        photograph = photographs[number % len(photographs)]
        extent = int(random.integers(_SIDE_MIN, min(photograph.shape[:2])))
        top, left = (int(random.integers(size - extent)) for size in photograph.shape[:2])
        crop = Image.fromarray(photograph[top : top + extent, left : left + extent])
        crops.append(np.asarray(crop.resize((side, side), Image.Resampling.BICUBIC)))
    return np.stack(crops)
