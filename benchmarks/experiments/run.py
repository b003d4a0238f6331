"""Runs experiments in one folder, which holds the report and, under `work`, what later runs go on from."""

from __future__ import annotations

import json
import shutil
import time
import traceback
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

from benchmarks.experiments.lab import Lab, LabError, Settings, locked
from benchmarks.experiments.registry import EXPERIMENTS
from benchmarks.experiments.report import write_report
from benchmarks.networks.reference import REFERENCES
from cloud_pruner.progress import no_progress
from edge_runtime.durable import write_durably

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from benchmarks.experiments.registry import Experiment
    from benchmarks.experiments.section import Section
    from benchmarks.networks.reference import Reference
    from cloud_pruner.progress import Progress

__all__ = ["Outcome", "reproduce"]

_VERSION: Final = 1  # of what is kept in the folder: figures of another one are not gone on from
_WORK: Final = "work"
_SETTINGS: Final = "settings.json"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an experiment.

    Attributes
    ----------
    name, title
        Which.
    section
        Its part of the report; None where it failed.
    error
        Why it failed, in one line; empty where it did not.
    trace
        The traceback of that.
    seconds
        How long it took this time.
    """

    name: str
    title: str
    section: Section | None
    error: str
    trace: str
    seconds: float


def reproduce(
    names: Sequence[str],
    folder: Path,
    settings: Settings,
    *,
    jobs: int = 1,
    restart: bool = False,
    progress: Progress = no_progress,
    experiments: Mapping[str, Experiment] = EXPERIMENTS,
    references: Mapping[str, Reference] = REFERENCES,
) -> list[Outcome]:
    """Run experiments, one after the other, and write the report of them.

    One that fails does not stop the others. What was measured before is not measured again; an interruption loses
    what was under way alone.

    Parameters
    ----------
    names
        Of `experiments`.
    folder
        For the report; what an earlier run with the same settings left there is gone on from.
    restart
        Whether to begin anew in its place.

    Raises
    ------
    LabError
        The folder holds something else, or a report with other settings, or another process works there.
    """
    _check(folder, settings, restart=restart)
    work = folder / _WORK
    with locked(work):
        write_durably(work / _SETTINGS, json.dumps(_kept(settings)).encode())
        lab = Lab(work, settings, jobs=jobs, tell=progress, references=references)
        outcomes = []
        for name in names:
            lab.progress = _named(name, progress)
            outcomes.append(_outcome(experiments[name], lab))
        write_report(folder, outcomes, lab.store, settings, lab.left_out)
    return outcomes


def _outcome(experiment: Experiment, lab: Lab) -> Outcome:
    start = time.perf_counter()
    section, error, trace = None, "", ""
    lab.progress("starting", 0, 1)
    try:
        made = experiment.run(lab)
        for cell in made.cells():
            cell.value(lab.store)  # what cannot be worked out is this experiment's failure, and not the report's
        section = made
    except Exception as failure:  # noqa: BLE001 - whatever it is, the other experiments go on
        error, trace = " ".join(str(failure).split()) or type(failure).__name__, traceback.format_exc()
        if not isinstance(failure, LabError):
            error = f"{type(failure).__name__}: {error}"
    return Outcome(experiment.name, experiment.title, section, error, trace, time.perf_counter() - start)


def _check(folder: Path, settings: Settings, *, restart: bool) -> None:
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    try:
        former = json.loads((folder / _WORK / _SETTINGS).read_bytes())
    except (OSError, ValueError):
        raise LabError(f"{folder}: exists and is no report of experiments: give another folder with -o") from None
    if restart:
        with locked(folder / _WORK):  # nobody else works there
            pass
        shutil.rmtree(folder)
    elif former != _kept(settings):
        differing = [name for name, value in _kept(settings).items() if former.get(name) != value]
        raise LabError(
            f"{folder}: was made with another {' and '.join(differing)}: give another folder with -o, or --restart"
        )


def _kept(settings: Settings) -> dict[str, object]:
    fields = asdict(settings)
    del fields["users"]  # more of them leave the first ones as they were, and rows say how many they are of
    return {"version": _VERSION, **fields, "networks": sorted(settings.networks) if settings.networks else None}


def _named(name: str, progress: Progress) -> Progress:
    return lambda what, done, total: progress(f"{name}: {what}", done, total)
