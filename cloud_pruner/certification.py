"""Certifies a cut: along a path of ever more daring cuts, the last that is shown to keep every class within epsilon.

The rules (Learn then Test with a fixed sequence: Angelopoulos et al., Ann. Appl. Stat. 2025, arXiv 2110.01052)
----------------------------------------------------------------------------------------------------------------
1. Cuts 0 (nothing pruned), 1, ..., J, their order, the test, epsilon and delta are fixed before the *certify* images
   are looked at. The images of a class are independent draws of it.
2. At each cut, each class of the user has a p-value for "this class loses epsilon or more" (`loss_tests`). The cut's is
   the largest: it can only be harmful if some class's hypothesis is true.
3. The walk goes from cut 1 on and stops at the first whose p-value is above delta. The last that passed is shipped;
   cut 0, which loses nothing, if none did.

Then, with a probability of at least 1 - delta over the certify images, no class loses more than epsilon with the
shipped cut: to ship a harmful cut the walk has to pass the first harmful one that it comes to, and which one that is
does not depend on the images. So neither the number of classes nor that of cuts has to be corrected for, whether their
losses depend on each other or not, and losses need not grow along the path.

Where the first cuts are less sure to pass than a later one, the walk starts there (`walk_from`). If that ships nothing,
the cuts before it are walked; each of the two walks has a share of delta for itself, and both together keep to it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from cloud_pruner.loss_tests import PairedCounts, check_shares, images_needed, smallest_epsilon
from edge_runtime.certificate import ClassEvidence

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cloud_pruner.loss_tests import LossTest

__all__ = ["Shortfall", "Step", "Walk", "walk", "walk_from"]

# Of delta for a walk that starts further along; the rest is for the cuts before, should it ship nothing.
_STARTING_SHARE: Final = 0.9


@dataclass(frozen=True, slots=True)
class Step:
    """What was found at one cut of the path.

    Attributes
    ----------
    number
        Which cut, from 1.
    counts
        Class -> what was counted on the certify images.
    p_values
        Class -> p-value of "this class loses epsilon or more".
    """

    number: int
    counts: Mapping[int, PairedCounts]
    p_values: Mapping[int, float]

    @property
    def worst(self) -> int:
        """The class with the largest p-value; of several the first by number."""
        return max(sorted(self.p_values), key=self.p_values.__getitem__)

    @property
    def p_value(self) -> float:
        """The p-value of "some class loses epsilon or more"."""
        return self.p_values[self.worst]

    def evidence(self, names: Sequence[str]) -> dict[str, ClassEvidence]:
        """Return what a certificate says of each class; `names` are those of all outputs."""
        return {
            names[label]: ClassEvidence(c.images, c.base, c.newly_wrong, c.newly_right, self.p_values[label])
            for label, c in self.counts.items()
        }


@dataclass(frozen=True, slots=True)
class Shortfall:
    """Why a walk went no further: the class that stood in the way, and what would help.

    Attributes
    ----------
    cut
        The cut that could not be certified.
    label
        The class.
    counts
        What was counted of it; where no count at all could have passed, of an untouched class.
    p_value, epsilon, delta
        What was found (the best that could be, where nothing was counted); what was allowed.
    images_needed
        Images a class with which a cut that changes nothing passes.
    smallest_epsilon
        The epsilon at which this class would have passed with `counts`. A hint, not a promise: a request that is chosen
        by it needs other certify images.
    too_few_images
        Whether the class could not have passed whatever the cuts do; then nothing was counted.
    """

    cut: int
    label: int
    counts: PairedCounts
    p_value: float
    epsilon: float
    delta: float
    images_needed: int
    smallest_epsilon: float
    too_few_images: bool

    def describe(self, name: str) -> str:
        """Say it in one line; `name` is the class's."""
        # Rounded up, so that what is printed would have passed too.
        reachable = f"{math.ceil(self.smallest_epsilon * 1000) / 10:.1f} %"
        wanted = f"epsilon {self.epsilon * 100:.3g} % at delta {self.delta:.3g}"
        images, wrong, right = self.counts.images, self.counts.newly_wrong, self.counts.newly_right
        if self.too_few_images:
            return (
                f"class '{name}' has {images} certify images, but {wanted} takes {self.images_needed} a class even "
                f"where a cut changes nothing: add images, or allow an epsilon of {reachable} or more"
            )
        return (
            f"cut {self.cut} is not certified: of {images} certify images of class '{name}' {wrong} are newly wrong, "
            f"{right} newly right, p = {self.p_value:.2g} for {wanted}: "
            f"add images, or allow an epsilon of about {reachable}"
        )


@dataclass(frozen=True, slots=True)
class Walk:
    """What was certified.

    Attributes
    ----------
    shipped
        The cut to ship: the last that passed, or 0, nothing pruned.
    steps
        The cuts that were counted, in order; all passed but the last, if there is a shortfall at it.
    shortfall
        Why the walk stopped; None where it came to the end of the path.
    is_second
        Whether another walk failed before (`walk_from`). That these steps came up then depends on the certify images,
        so nobody may take them for a sequence that was fixed beforehand and go through them again.
    """

    shipped: int
    steps: tuple[Step, ...]
    shortfall: Shortfall | None
    is_second: bool = False

    @property
    def certified(self) -> Step | None:
        """What was found at the shipped cut; None for cut 0, which needs no evidence."""
        return next((step for step in self.steps if step.number == self.shipped), None)


def walk(
    steps: int,
    count: Callable[[int], Mapping[int, PairedCounts]],
    *,
    epsilon: float,
    delta: float,
    test: LossTest,
) -> Walk:
    """Certify cuts along a path (see the module's rules).

    Parameters
    ----------
    steps
        The last cut's number; cut 0 is nothing pruned.
    count
        Cut -> class -> counts on the certify images. Asked for cut 0 first, which needs no model: how many images of
        each class there are and how many the base gets right. Then once for each cut that is come to.
    epsilon
        Top-1 accuracy that each class may lose, in (0, 1).
    delta
        Probability, over the certify images, that some class loses more all the same; in (0, 1).

    Raises
    ------
    ValueError
        `epsilon` or `delta` is not in (0, 1), there are no classes, or the counts of a cut are of other images than
        those of cut 0.
    """
    check_shares(epsilon, delta)
    untouched = {label: PairedCounts(c.images, c.base, 0, 0) for label, c in count(0).items()}
    if not untouched:
        raise ValueError("no classes: there is nothing to certify")

    def step(number: int, counts: Mapping[int, PairedCounts]) -> Step:
        return Step(number, counts, {label: test.p_value(c, epsilon) for label, c in counts.items()})

    def shortfall(failed: Step, counts: PairedCounts, *, too_few_images: bool) -> Shortfall:
        return Shortfall(
            cut=failed.number,
            label=failed.worst,
            counts=counts,
            p_value=failed.p_value,
            epsilon=epsilon,
            delta=delta,
            images_needed=images_needed(test, epsilon, delta),
            smallest_epsilon=smallest_epsilon(test, counts, delta),
            too_few_images=too_few_images,
        )

    ideal = step(1, {label: PairedCounts(c.images, c.base, 0, c.images - c.base) for label, c in untouched.items()})
    if steps and ideal.p_value > delta:
        return Walk(0, (), shortfall(ideal, untouched[ideal.worst], too_few_images=True))
    shipped, done = 0, []
    for number in range(1, steps + 1):
        counts = count(number)
        if {label: (c.images, c.base) for label, c in counts.items()} != {
            label: (c.images, c.base) for label, c in untouched.items()
        }:
            raise ValueError(f"the counts of cut {number} are of other classes or images than those of cut 0")
        done.append(step(number, counts))
        if done[-1].p_value > delta:
            reason = shortfall(done[-1], counts[done[-1].worst], too_few_images=False)
            return Walk(shipped, tuple(done), reason)
        shipped = number
    return Walk(shipped, tuple(done), None)


def walk_from(
    before: int,
    steps: int,
    count: Callable[[int], Mapping[int, PairedCounts]],
    *,
    epsilon: float,
    delta: float,
    test: LossTest,
) -> Walk:
    """Certify cuts along a path from one on that is surer to pass than those `before` it; if it fails, those.

    Parameters are those of `walk`, which is what `before` = 0 gives. Which cut the walk starts at must have been chosen
    without a look at the certify images. Where images are too few for a share of delta, but not for the whole, there is
    one walk, with all of it: that depends on how many images there are, and not on what they show.

    Raises
    ------
    ValueError
        As `walk`.
    """

    def further(share: float) -> Walk:
        walked = walk(
            steps - before,
            lambda number: count(number + before if number else 0),
            epsilon=epsilon,
            delta=share * delta,
            test=test,
        )
        return Walk(
            walked.shipped + before if walked.shipped else 0,
            tuple(replace(step, number=step.number + before) for step in walked.steps),
            None if walked.shortfall is None else replace(walked.shortfall, cut=walked.shortfall.cut + before),
        )

    first = further(_STARTING_SHARE if before else 1.0)
    if first.shipped or not before:
        return first
    if not first.steps:
        return further(1.0)
    milder = walk(before, count, epsilon=epsilon, delta=(1.0 - _STARTING_SHARE) * delta, test=test)
    return replace(milder, shortfall=first.shortfall, is_second=True)
