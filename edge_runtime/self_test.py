"""Images that cloud and device both make from a number, and what a model must answer to them.

The cloud runs the file that it ships on them and puts the answers in the manifest; a device that gets other ones has a
damaged file, another interpreter than the file can stand, or failing hardware, and does not use the model.

The images are the same bytes on every platform and in every release of numpy: they come from the raw numbers of PCG64,
whose stream numpy guarantees, by integer arithmetic alone. Plain noise would leave most activations near their mean;
these have bright and dark regions of several sizes, edges of none, and a little noise.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from edge_runtime.serving import ServingModel
    from edge_runtime.wire import SelfTest

__all__ = ["EXPECTED", "expected_answer", "run_self_test", "self_test_images"]

EXPECTED = 5
"""How many of the most probable classes are compared."""

# Regions a side, each with the weight of its layer in 256ths; what is left to 256 is noise.
_LAYERS = ((2, 112), (5, 80), (11, 40))
_NOISE = 256 - sum(weight for _, weight in _LAYERS)


def self_test_images(seed: int, count: int, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return `count` images of `shape` (height, width, channels) made from `seed`: `(count, *shape)` uint8."""
    height, width, channels = shape
    stream = np.random.PCG64(seed)
    images = np.empty((count, *shape), dtype=np.uint8)
    for image in images:
        total = _NOISE * _random_bytes(stream, (height, width, channels))
        for regions, weight in _LAYERS:
            total += weight * _smooth(_random_bytes(stream, (regions + 1, regions + 1, channels)), height, width)
        # Sums of several bytes crowd in the middle: twice the contrast fills the range again.
        image[:] = np.clip(2 * (total >> 8) - 128, 0, 255)
    return images


def expected_answer(probabilities: NDArray[np.float32]) -> tuple[tuple[int, float], ...]:
    """Return the `EXPECTED` most probable classes of `(classes,)` probabilities, best first, with their probability."""
    order = np.argsort(-probabilities, kind="stable")[:EXPECTED]
    return tuple((int(index), float(probabilities[index])) for index in order)


def run_self_test(model: ServingModel, self_test: SelfTest) -> str | None:
    """Return in what way `model` answers differently from what `self_test` says; None where it does not.

    Raises
    ------
    ModelFileError
        The model fails while it runs.
    """
    shape = model.manifest.preprocessing.shape
    answers: Sequence[tuple[tuple[int, float], ...]] = self_test.expected
    for number, image in enumerate(self_test_images(self_test.seed, len(answers), shape)):
        probabilities = model.probabilities(image)
        for index, expected in answers[number]:
            if not 0 <= index < len(probabilities):
                return f"self-test image {number}: names class {index} of {len(probabilities)}"
            found = float(probabilities[index])
            if abs(found - expected) > self_test.tolerance:
                return (
                    f"self-test image {number}: class {index} has probability {found:.4f}, "
                    f"expected {expected:.4f} within {self_test.tolerance:g}"
                )
    return None


def _random_bytes(stream: np.random.PCG64, shape: tuple[int, ...]) -> NDArray[np.int32]:
    """Return the next numbers of the stream, each from 0 to 255."""
    raw = np.asarray(stream.random_raw(math.prod(shape)), dtype=np.uint64)
    return (raw >> np.uint64(56)).astype(np.int32).reshape(shape)


def _smooth(corners: NDArray[np.int32], height: int, width: int) -> NDArray[np.int32]:
    """Interpolate `(rows, columns, channels)` values from 0 to 255 to a map of `height` by `width`."""
    place, share = _between(height, len(corners))
    rows: NDArray[np.int32] = corners[place] * (256 - share[:, None, None])
    rows += corners[place + 1] * share[:, None, None]
    place, share = _between(width, corners.shape[1])
    both: NDArray[np.int32] = rows[:, place] * (256 - share[:, None])
    both += rows[:, place + 1] * share[:, None]
    return both >> 16


def _between(size: int, corners: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return for each of `size` places the corner before it, and how far it is to the next one in 256ths."""
    place = np.arange(size, dtype=np.int32) * (256 * (corners - 1)) // size
    return place >> 8, place & 255
