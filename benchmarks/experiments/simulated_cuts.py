"""Users whose cuts truly lose about epsilon, drawn at random: what a rule ships them, and whether that harms them.

The rules are the product's own code; users, cuts and images are made up, so that the true losses are known. A user has
a path of cuts, each more daring than the one before. Along it the true loss of each class grows from nothing to more
than epsilon in at least one, through wrong answers that come and, for every other user, right ones too. Cuts are
nested: an image that one cut gets wrong anew, all later ones get wrong. Select and certify images are drawn apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Final

import numpy as np

from cloud_pruner.certification import walk, walk_from
from cloud_pruner.judge import losses_allowed, standard_error
from cloud_pruner.loss_tests import LOSS_TESTS, LossTest, PairedCounts

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["SimulatedUser", "is_hardest_harmed", "shipped_certified", "shipped_empirical"]

_CUTS: Final = 40
_STOPS: Final = (0.35, 0.8)  # where certification may start, as shares of the way to the found cut (decision 0011)
_MOST_LOST: Final = (1.5, 3.0)  # of epsilon, by the user's first class at the last cut; by the others from 0.5 on
_MOST_REPAIRED: Final = 0.05


@dataclass(frozen=True, slots=True)
class _Drawn:
    """Images of all classes, `(classes, images)`: whether the base is right, and how soon cuts change its answer."""

    base_right: NDArray[np.bool_]
    fragility: NDArray[np.float64]


class SimulatedUser:
    """One user.

    Parameters
    ----------
    rng
        Where all chance comes from.
    classes, images
        How many classes, and of each how many images to select on, and as many to certify with.
    epsilon
        About what cuts lose.
    repairs
        Whether cuts also put wrong answers right.
    """

    def __init__(self, rng: np.random.Generator, classes: int, images: int, epsilon: float, *, repairs: bool) -> None:
        low, high = _MOST_LOST
        lost = epsilon * np.append(rng.uniform(low, high), rng.uniform(0.5, high, classes - 1))
        repaired = rng.uniform(0, _MOST_REPAIRED, classes) if repairs else np.zeros(classes)
        way = np.arange(_CUTS + 1)[:, np.newaxis] / _CUTS
        self.losses: NDArray[np.float64] = way * lost
        """Of each cut, 0 being nothing pruned, and each class: the top-1 accuracy that is truly lost."""
        self.epsilon = epsilon
        base = rng.uniform(0.6, 0.9, classes)
        self._wrong = way * (lost + repaired) / base
        self._right = way * repaired / (1 - base)
        self._images = {split: self._draw(rng, base, images) for split in ("select", "certify")}

    @staticmethod
    def _draw(rng: np.random.Generator, base: NDArray[np.float64], images: int) -> _Drawn:
        shape = len(base), images
        return _Drawn(rng.random(shape) < base[:, np.newaxis], rng.random(shape))

    def count(self, cut: int, split: str) -> dict[int, PairedCounts]:
        """Count what base and cut get right of each class on the images of a split."""
        drawn = self._images[split]
        rate = np.where(drawn.base_right, self._wrong[cut][:, np.newaxis], self._right[cut][:, np.newaxis])
        changed = drawn.fragility < rate
        return {
            label: PairedCounts(right.size, int(right.sum()), int((now & right).sum()), int((now & ~right).sum()))
            for label, (right, now) in enumerate(zip(drawn.base_right, changed, strict=True))
        }

    def most_daring(self, epsilon: float) -> int:
        """Return the last cut with which no class loses more than `epsilon` on the select images."""

        def passes(cut: int) -> bool:
            counts = self.count(cut, "select").values()
            return all(one.base - one.cut <= losses_allowed(epsilon, one.images) for one in counts)

        return next(cut for cut in range(_CUTS, -1, -1) if passes(cut))

    def is_harmed_by(self, cut: int) -> bool:
        """Say whether some class truly loses more than epsilon."""
        return bool((self.losses[cut] > self.epsilon).any())


def shipped_empirical(user: SimulatedUser) -> int:
    """Return what CAP'NN's rule ships: the most daring cut whose measured losses are within epsilon."""
    return user.most_daring(user.epsilon)


def shipped_certified(user: SimulatedUser, test: str, delta: float) -> int:
    """Return what is certified on the way to a cut that was searched with a standard error to spare.

    As `cloud_pruner.personalize` does it: from the safer of the milder stops on; if that ships nothing, from the other.
    """
    images = next(iter(user.count(0, "select").values())).images
    found = user.most_daring(max(user.epsilon - standard_error(user.epsilon, images), 0.0))
    path = sorted({round(share * found) for share in (*_STOPS, 1)} - {0})
    if not path:
        return 0
    losses = [max(one.loss for one in user.count(cut, "select").values()) for cut in path[:-1]]
    walked = walk_from(
        losses.index(min(losses)) if losses else 0,
        len(path),
        lambda number: user.count(path[number - 1] if number else 0, "certify"),
        epsilon=user.epsilon,
        delta=delta,
        test=_Remembering(test),
    )
    return path[walked.shipped - 1] if walked.shipped else 0


def is_hardest_harmed(rng: np.random.Generator, images: int, epsilon: float, test: str, delta: float) -> bool:
    """Say whether a user of one class is shipped a cut of whose three each loses epsilon, by other images at each.

    All that can be shipped is as harmful as harmless: a class that loses epsilon itself is the hardest to refuse. So
    the share of those who are shipped a cut comes as near to delta as the test allows.
    """
    newly_wrong = rng.binomial(images, epsilon, 3).tolist()
    counts = [PairedCounts(images, images, wrong, 0) for wrong in (0, *newly_wrong)]
    walked = walk(3, lambda cut: {0: counts[cut]}, epsilon=epsilon, delta=delta, test=_Remembering(test))
    return walked.shipped > 0


class _Remembering(LossTest):
    """A test that computes each p-value once: users are many, and their counts few."""

    __slots__ = ()

    def p_value(self, counts: PairedCounts, epsilon: float) -> float:
        """Return the p-value, in [0, 1]."""
        return _p_value(self.name, counts.images, counts.newly_wrong, counts.newly_right, epsilon)


@cache
def _p_value(test: str, images: int, newly_wrong: int, newly_right: int, epsilon: float) -> float:
    # Of an image only its change counts: whatever the base gets right leaves room for the counts.
    return LOSS_TESTS[test].p_value(PairedCounts(images, images - newly_right, newly_wrong, newly_right), epsilon)
