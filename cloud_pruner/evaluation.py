"""Compares methods: what their cuts of one base model take and are worth, on images that nothing else has seen.

For each K, class sets are drawn at random, the same for all methods: half with equal weights, half with random ones.
Each method searches a cut for each set; what it costs is read off the emitted file, and what it gets right is counted
on the profile's *report* images, from which neither search nor certification takes any.

One row more, "restricted", prunes nothing: it is the base with only the outputs of the user's classes compared. What
it gains, any device gains for nothing that knows its user's classes; what it loses is the base's ability to say that
an image is of none of them.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

import numpy as np
from threadpoolctl import threadpool_limits

from cloud_pruner.evaluation_sets import RESTRICTED, class_sets
from cloud_pruner.evaluation_workers import answers
from cloud_pruner.judge import losses_allowed
from cloud_pruner.methods import METHODS
from cloud_pruner.profile import Profile
from cloud_pruner.progress import no_progress
from cloud_pruner.search import Searcher
from edge_runtime.flatmodel import read_graph
from edge_runtime.interpreter import LoadedModel
from hwmodel import compare, estimate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from cloud_pruner.evaluation_sets import ClassSet, EvaluationSettings
    from cloud_pruner.methods import Method
    from cloud_pruner.progress import Progress
    from cloud_pruner.variants import Usage
    from edge_runtime.flatmodel import LayerCut

__all__ = ["Evaluator", "SetFigures", "evaluate"]

_TOP: Final = 5
_BATCH: Final = 16
_ROWS_AT_ONCE: Final = 1024


@dataclass(frozen=True, slots=True)
class SetFigures:
    """What a method's cut for one class set takes and is worth.

    Accuracies are over the report images of the set's classes, each class counting alike whatever its weight.

    Attributes
    ----------
    method, k, number
        Which method, how many classes, which set.
    classes, weights
        The user.
    relative_size, relative_bytes, relative_macs, relative_energy
        Parameters, bytes of the file, multiply-accumulates, and energy on `hwmodel.DAC20`: cut / base.
    base_top1, top1, base_top5, top5
        Accuracy of base and cut, over all outputs.
    losses
        Of each class: top-1 accuracy of the base minus that of the cut.
    beyond_epsilon
        How many classes lose more than epsilon on these images.
    base_outside, outside
        Share of images of other classes that base and cut take for something outside the set; None where the set has
        all classes.
    seconds
        Time of the search; None where there is none.
    """

    method: str
    k: int
    number: int
    classes: tuple[str, ...]
    weights: tuple[float, ...]
    relative_size: float
    relative_bytes: float
    relative_macs: float
    relative_energy: float
    base_top1: float
    top1: float
    base_top5: float
    top5: float
    losses: tuple[float, ...]
    beyond_epsilon: int
    base_outside: float | None
    outside: float | None
    seconds: float | None

    @property
    def gain(self) -> float:
        """Top-1 accuracy gained; negative where it is lost."""
        return self.top1 - self.base_top1

    @property
    def top5_gain(self) -> float:
        """Top-5 accuracy gained."""
        return self.top5 - self.base_top5

    @property
    def worst_loss(self) -> float:
        """Top-1 accuracy that the class loses which loses most."""
        return max(self.losses)


class Evaluator:
    """Searches cuts on one profile and measures them on its report images."""

    def __init__(self, profile: Profile, epsilon: float) -> None:
        self._profile, self._epsilon = profile, epsilon
        self._searcher = Searcher(profile)
        self._report = profile.splits["report"]
        self._base_outputs = self._outputs(np.arange(len(self._report.labels)), ())
        self._base_cost = estimate(profile.base.graph)

    def measure(self, method: str, drawn: ClassSet) -> SetFigures:
        """Search a cut for a class set and measure it; with `RESTRICTED`, measure the base on the set's outputs."""
        return self.restricted(drawn) if method == RESTRICTED else self.searched(METHODS[method], drawn)

    def searched(self, method: Method, drawn: ClassSet) -> SetFigures:
        """Search a cut for a class set and measure it."""
        with threadpool_limits(1):  # two BLAS threads on a busy machine are far slower than one
            result = self._searcher.search(drawn.usage, method, self._epsilon)
        return self.of_cuts(method.name, drawn, result.cuts, result.seconds)

    def of_cuts(self, method: str, drawn: ClassSet, cuts: Sequence[LayerCut], seconds: float | None) -> SetFigures:
        """Measure cuts that were found for a class set, in `seconds`, by what is called `method`."""
        return self._figures(method, drawn, self._outputs(self._rows(drawn), cuts), cuts, seconds)

    def restricted(self, drawn: ClassSet) -> SetFigures:
        """Measure the base on the outputs of a class set alone."""
        rows, labels = self._rows(drawn), drawn.usage.labels
        outputs = np.full((len(rows), len(self._profile.classes)), -np.inf, dtype=np.float32)
        outputs[:, labels] = self._base_outputs[np.ix_(rows, labels)]
        return self._figures(RESTRICTED, drawn, outputs, (), None)

    def _rows(self, drawn: ClassSet) -> NDArray[np.int64]:
        """Return the report images of the set's classes, followed by those of others."""
        return np.concatenate([np.flatnonzero(np.isin(self._report.labels, drawn.usage.labels)), drawn.outside])

    def _figures(
        self,
        method: str,
        drawn: ClassSet,
        outputs: NDArray[np.float32],
        cuts: Sequence[LayerCut],
        seconds: float | None,
    ) -> SetFigures:
        usage, rows = drawn.usage, self._rows(drawn)
        inside = len(rows) - len(drawn.outside)
        labels = self._report.labels[rows[:inside]]
        base, cut = _best(self._base_outputs[rows]), _best(outputs)
        base_hits, hits = (best[:inside] == labels[:, np.newaxis] for best in (base, cut))
        of_class = labels == usage.labels[:, np.newaxis]
        images = of_class.sum(axis=1)
        base_right, right = of_class @ base_hits[:, 0].astype(np.int64), of_class @ hits[:, 0].astype(np.int64)
        allowed = [losses_allowed(self._epsilon, count) for count in images.tolist()]
        return SetFigures(
            method=method,
            k=len(usage.labels),
            number=drawn.number,
            classes=tuple(self._profile.classes[label] for label in usage.labels),
            weights=tuple(usage.weights.tolist()),
            **self._relative_costs(cuts),
            base_top1=float(np.mean(base_right / images)),
            top1=float(np.mean(right / images)),
            base_top5=float(np.mean(of_class @ base_hits.any(axis=1).astype(np.int64) / images)),
            top5=float(np.mean(of_class @ hits.any(axis=1).astype(np.int64) / images)),
            losses=tuple(((base_right - right) / images).tolist()),
            beyond_epsilon=int(np.count_nonzero(base_right - right > allowed)),
            base_outside=_share_outside(base[inside:, 0], usage),
            outside=_share_outside(cut[inside:, 0], usage),
            seconds=seconds,
        )

    def _outputs(self, rows: NDArray[np.int64], cuts: Sequence[LayerCut]) -> NDArray[np.float32]:
        """Return the outputs `(rows, classes)` of the base as cut."""
        suffix = self._profile.suffix
        model = LoadedModel(suffix.emit(cuts), batch=_BATCH if suffix.any_batch else 1, name="cut model")
        parts = [
            model.run(self._report.activations[rows[start : start + _ROWS_AT_ONCE]])[0]
            for start in range(0, len(rows), _ROWS_AT_ONCE)
        ]
        return np.concatenate(parts)

    def _relative_costs(self, cuts: Sequence[LayerCut]) -> dict[str, float]:
        base = self._profile.base
        model = base.emit(cuts)
        graph = read_graph(model)
        ratios = compare(self._base_cost, estimate(graph)).ratios
        macs, energy = ratios["macs"], ratios["energy"]
        assert macs is not None  # what can be pruned multiplies
        assert energy is not None
        return {
            "relative_size": graph.parameters / base.graph.parameters,
            "relative_bytes": len(model) / len(base.content),
            "relative_macs": macs,
            "relative_energy": energy,
        }


def evaluate(
    profile: Profile, settings: EvaluationSettings, *, jobs: int = 1, progress: Progress = no_progress
) -> list[SetFigures]:
    """Measure every method on every class set of every K; rows by K, set and method.

    Parameters
    ----------
    jobs
        Processes; above 1 each opens the profile's folder itself. The rows are the same but for `seconds`.
    progress
        Called with the method and K that is at work, measurements done and measurements in all.

    Raises
    ------
    ProfileError
        The profile has no report images.
    RequestError
        A method is unknown, or a number out of range.
    PrunerError
        One of several processes died.
    """
    settings.check(profile)
    tasks = [
        (method, drawn)
        for k in settings.sizes
        for drawn in class_sets(profile, k, settings)
        for method in settings.methods
    ]
    rows: list[SetFigures | None] = [None] * len(tasks)
    progress("opening", 0, len(tasks))
    prepare = partial(_measurer, profile if jobs == 1 else profile.folder, settings.epsilon)
    with closing(answers(prepare, tasks, jobs)) as measured:
        for done, (position, row) in enumerate(measured, 1):
            rows[position] = row
            progress(f"{row.method}, K = {row.k}", done, len(tasks))
    return [row for row in rows if row is not None]


def _measurer(profile: Profile | Path, epsilon: float) -> Callable[[tuple[str, ClassSet]], SetFigures]:
    evaluator = Evaluator(profile if isinstance(profile, Profile) else Profile.open(profile), epsilon)
    return lambda task: evaluator.measure(*task)


def _best(outputs: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the `_TOP` classes with the largest outputs, best first; of equal ones the first, and NaN last."""
    return np.argsort(-outputs, axis=1, kind="stable")[:, :_TOP]


def _share_outside(taken_for: NDArray[np.int64], usage: Usage) -> float | None:
    return float(np.mean(~np.isin(taken_for, usage.labels))) if len(taken_for) else None
