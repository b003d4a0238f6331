"""Whether the classes that a user meets are still those that the active cut was made for.

Rules
-----
1. A class enters on the most recent answers alone, when they call for it (`usage_estimate.EVIDENCE`) and its share
   reaches the floor: older answers are of the time before it came.
2. A class leaves on all answers, when its share is below half the floor and a share of the floor is ruled out by more
   than that: keeping a class costs little, and one that left too early is asked for again. Between half the floor and
   the floor nothing happens: what wavers about the floor is asked for once.
3. Other weights alone matter only to cuts that were searched by weights (variants W and M), and then only when they
   differ by more than a quarter, and by as much evidence.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from edge_runtime.usage_estimate import EVIDENCE, estimate

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from edge_runtime.usage_estimate import UsageEstimate

__all__ = ["RECENT", "WEIGHT_STEP", "WINDOW", "changed_usage", "first_usage", "rounded", "total_variation"]

WINDOW: Final = 400
"""Answers that usage is estimated from; older ones are forgotten."""
RECENT: Final = 200
"""Of these, the last, on which a class enters."""
WEIGHT_STEP: Final = 0.05
"""Weights are rounded to multiples of this. The service rounds to the same: finer ones would tell it more about a user
and get no other cut, and users who differ by less share one."""

_RULED_OUT: Final = 12.0
# Total variation distance of weights beyond which a cut that was searched by weights is out of date.
_WEIGHTS_DIFFER: Final = 0.25


def total_variation(p: Mapping[int, float], q: Mapping[int, float]) -> float:
    """Return the total variation distance of two distributions over classes, from 0 (equal) to 1 (disjoint)."""
    return sum(abs(p.get(label, 0.0) - q.get(label, 0.0)) for label in p.keys() | q.keys()) / 2


def first_usage(seen: NDArray[np.float64], floor: float) -> dict[int, float]:
    """Return the classes in use, with their shares, of a user without a cut.

    `seen` are the likelihoods `(images, classes)` of all answers. Classes below `floor` are left out; where none
    reaches it, all that were found are kept: no choice among them could be justified.
    """
    found = estimate(seen)
    kept = [label for label in found.labels if found.share(label) >= floor] or list(found.labels)
    return _shared(found, kept)


def changed_usage(
    seen: NDArray[np.float64], lasting: UsageEstimate, active: Mapping[int, float], floor: float, *, weighed: bool
) -> dict[int, float] | None:
    """Return the classes now in use, with their shares, if the active cut should give way to one for them; else None.

    Parameters
    ----------
    seen
        Likelihoods `(images, classes)` of all answers, the most recent last.
    lasting
        What `estimate` makes of them, starting from the classes of `active`.
    active
        Classes of the active cut, with their weights.
    floor
        Share from which a class is part of usage.
    weighed
        Whether the cut was searched by its weights.
    """
    recent = estimate(seen[-RECENT:], active)
    entering = {label for label in recent.labels if label not in active and recent.share(label) >= floor}
    leaving = {
        label
        for label in active
        if lasting.share(label) < floor / 2 and lasting.evidence_against(seen, label, floor) >= _RULED_OUT
    }
    kept = [label for label in recent.labels if label in (active.keys() | entering) - leaving]
    if not kept:
        return None
    if entering or leaving:
        return _shared(recent, kept)
    usage = _shared(lasting, kept)
    if weighed and total_variation(usage, active) > _WEIGHTS_DIFFER and _gain(seen, usage, active) >= EVIDENCE:
        return usage
    return None


def rounded(usage: Mapping[int, float]) -> dict[int, float]:
    """Return shares as multiples of `WEIGHT_STEP`, none of them less than one step."""
    return {label: round(max(1, round(share / WEIGHT_STEP)) * WEIGHT_STEP, 2) for label, share in usage.items()}


def _shared(found: UsageEstimate, labels: list[int]) -> dict[int, float]:
    """Return the shares that classes have of what they have together."""
    of_these = {label: max(found.share(label), 1e-6) for label in labels}
    total = sum(of_these.values())
    return {label: share / total for label, share in sorted(of_these.items())}


def _gain(seen: NDArray[np.float64], usage: Mapping[int, float], active: Mapping[int, float]) -> float:
    """Return how much likelier `usage` makes what was seen than `active` does, in logarithms."""
    now, then = (np.log(seen[:, list(shares)] @ np.array(list(shares.values()))).sum() for shares in (usage, active))
    return float(now - then)
