"""What base and cut take the images of a user's classes for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from cloud_pruner.segments import load

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from cloud_pruner.profile import Profile
    from edge_runtime.flatmodel import LayerCut

__all__ = ["Confusion", "confusion_of"]

_IMAGES_MAX: Final = 2000
# Those that neither search nor certification looks at come first.
_SPLITS: Final = ("report", "certify", "select")


@dataclass(frozen=True, slots=True, eq=False)
class Confusion:
    """How often images of a user's classes were taken for which class.

    Attributes
    ----------
    split
        The profile's images that were counted.
    labels
        The user's classes.
    base, cut
        `(classes, classes + 1) int64`: images of the row's class taken for the column's; the last column are classes
        that are not the user's.
    """

    split: str
    labels: tuple[int, ...]
    base: NDArray[np.int64]
    cut: NDArray[np.int64]

    def images(self) -> NDArray[np.int64]:
        """Return the images of each class, `(classes,)`."""
        count: NDArray[np.int64] = self.base.sum(axis=1)
        return count


def confusion_of(profile: Profile, labels: Sequence[int], cuts: Sequence[LayerCut]) -> Confusion | None:
    """Count what the base and its cut by `cuts` take images of `labels` for; None where the profile has none of them.

    At most about 2000 images are run, of each class the first.
    """
    split = next((name for name in _SPLITS if np.isin(profile.splits[name].labels, labels).any()), None)
    if split is None:
        return None
    images = profile.splits[split]
    most = max(_IMAGES_MAX // len(labels), 1)
    rows = np.concatenate([np.arange(len(images.labels))[images.rows(label)][:most] for label in labels])
    truth, base = images.labels[rows], images.predictions[rows]
    # One at a time, as a device runs them.
    cut = load(profile.suffix, cuts, 1).run(images.activations[rows])[0].argmax(axis=1)
    return Confusion(split, tuple(labels), _counts(labels, truth, base), _counts(labels, truth, cut))


def _counts(labels: Sequence[int], truth: NDArray[Any], taken_for: NDArray[Any]) -> NDArray[np.int64]:
    counts = np.zeros((len(labels), len(labels) + 1), dtype=np.int64)
    columns = {label: number for number, label in enumerate(labels)}
    for own, other in zip(truth.tolist(), taken_for.tolist(), strict=True):
        counts[columns[own], columns.get(other, len(labels))] += 1
    return counts
