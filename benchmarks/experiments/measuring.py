"""Measures wishes, one after the other, on the profiles of their networks: what the lab's processes do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

import numpy as np

from benchmarks.experiments.network_profiles import preferences_file
from benchmarks.experiments.wishes import CAPTOR
from cloud_pruner.basic import basic_table
from cloud_pruner.captor import Preferences, captor_method
from cloud_pruner.evaluation import Evaluator
from cloud_pruner.evaluation_sets import RESTRICTED, ClassSet
from cloud_pruner.methods import METHODS
from cloud_pruner.personalize import Personalizer
from cloud_pruner.profile import Profile
from cloud_pruner.requests import PruneRequest, checked_usage
from edge_runtime.flatmodel import PruningPlan

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.experiments.store import Row
    from benchmarks.experiments.wishes import Wish
    from cloud_pruner.evaluation import SetFigures
    from cloud_pruner.methods import Method

__all__ = ["DELTA", "BasicTask", "Measurer", "Task"]

DELTA: Final = 0.1
"""Probability with which a certified cut may lose more than epsilon all the same."""

_OPEN: Final = 2  # profiles at a time, with what was made of them: tasks come profile by profile
_NOBODY: Final = np.empty(0, np.int64)


@dataclass(frozen=True, slots=True)
class Task:
    """A wish, and the folder of the profile to measure it on."""

    wish: Wish
    profile: Path


@dataclass(frozen=True, slots=True)
class BasicTask:
    """The table that method B needs of a profile for an epsilon, which is kept beside the profile."""

    epsilon: float
    profile: Path


class Measurer:
    """Does tasks; keeps the profiles that it used last."""

    def __init__(self) -> None:
        self._opened: dict[tuple[Path, float], tuple[Evaluator, Personalizer]] = {}

    def __call__(self, task: Task | BasicTask) -> Row:
        """Return the row of a wish; of a basic table there is none."""
        if isinstance(task, BasicTask):
            basic_table(Profile.open(task.profile), task.epsilon)
            return {}
        wish = task.wish
        evaluator, personalizer = self._open(task.profile, wish.epsilon)
        classes = personalizer.profile.classes
        wanted = dict(zip(wish.classes, wish.weights, strict=True))
        drawn = ClassSet(0, checked_usage(wanted, classes), _NOBODY)
        certified: bool | None = None
        if wish.guarantee == "certified":
            request = PruneRequest(wanted, wish.method, wish.epsilon, "certified", DELTA)
            answer = personalizer.personalize(request)
            certified = answer.manifest.certificate is not None
            figures = evaluator.of_cuts(wish.method, drawn, PruningPlan.from_bytes(answer.plan).cuts, answer.seconds)
        elif wish.method == RESTRICTED:
            figures = evaluator.restricted(drawn)
        else:
            figures = evaluator.searched(_method(wish.method, personalizer.profile), drawn)
        return {**wish.fields(), **_figures(figures), "certified": certified}

    def _open(self, folder: Path, epsilon: float) -> tuple[Evaluator, Personalizer]:
        key = folder, epsilon
        if key not in self._opened:
            while len(self._opened) >= _OPEN:
                del self._opened[next(iter(self._opened))]
            profile = Profile.open(folder)
            self._opened[key] = Evaluator(profile, epsilon), Personalizer(profile)
        return self._opened[key]


def _method(name: str, profile: Profile) -> Method:
    if name == CAPTOR:
        return captor_method(Preferences.load(preferences_file(profile.folder), profile.base.digest))
    return METHODS[name]


def _figures(figures: SetFigures) -> Row:
    names = (
        "relative_size", "relative_bytes", "relative_macs", "relative_energy", "base_top1", "top1", "gain",
        "base_top5", "top5", "top5_gain", "worst_loss", "beyond_epsilon",
    )  # fmt: skip
    row = cast("Row", {name: getattr(figures, name) for name in names})
    row["classes"] = ";".join(figures.classes)
    row["weights"] = ";".join(f"{weight:.4g}" for weight in figures.weights)
    # The mean of shares is the share in all: rows that are put together have the same number of classes.
    share, reduction = figures.beyond_epsilon / figures.k, 1.0 - figures.relative_size
    return row | {"beyond_share": share, "reduction": reduction, "seconds": figures.seconds}
