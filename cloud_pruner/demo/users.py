"""The demo's users: what they are interested in, and the images that they show to their device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from cloud_pruner.images import ImageSet

__all__ = ["CHANGES", "FIRST", "LAST", "image_stream", "interests_text"]

FIRST: Final = {"0": 0.35, "4": 0.35, "6": 0.3}
"""What both users start with: class -> share, in whole twentieths."""

CHANGES: Final = (
    {"5": 0.3, "6": 0.2, "7": 0.2, "8": 0.3},
    {"3": 0.3, "6": 0.3, "9": 0.4},
    {"0": 0.2, "2": 0.3, "5": 0.2, "8": 0.3},
)
"""What the first user turns to, one after the other."""

LAST: Final = {"2": 0.3, "5": 0.4, "8": 0.3}
"""What the first user turns to when the cloud is away: one class less, which calls for another cut."""

_DECK: Final = 20


def image_stream(images: ImageSet, interests: Mapping[str, float], seed: int) -> Iterator[bytes]:
    """Yield images of the user's classes without end, as raw pixels.

    Every 20 images hold each class in exactly its share, in random order; of a class, each image comes up once, in
    random order, before any comes up again. So two users with the same interests meet the same in another order.
    """
    random = np.random.default_rng(seed)
    deck = [name for name, share in interests.items() for _ in range(round(share * _DECK))]
    pixels = {name: images.pixels[images.labels == images.classes.index(name)] for name in interests}
    of_class = {name: _shuffled_again_and_again(pixels[name], random) for name in interests}
    for name in _shuffled_again_and_again(np.array(deck), random):
        yield next(of_class[str(name)]).tobytes()


def _shuffled_again_and_again(values: NDArray[Any], random: np.random.Generator) -> Iterator[Any]:
    while True:
        yield from random.permutation(values)


def interests_text(interests: Mapping[str, float]) -> str:
    """Return "3 (0.50) 5 (0.30) 8 (0.20)"."""
    return " ".join(f"{name} ({share:.2f})" for name, share in interests.items())
