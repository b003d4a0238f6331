"""Runs inputs by number, within limits of time and memory; a number says all about an input, on every machine."""

from __future__ import annotations

import random
import resource
import signal
import traceback
import warnings
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from edge_runtime.flatmodel import BaseModel
from tests.fuzz.mutate_files import mutated
from tests.fuzz.mutate_plans import mutated_plan
from tests.fuzz.oracle import check_cut, check_normalised, check_plain, check_plan
from tests.fuzz.seeds import seeds

if TYPE_CHECKING:
    from pathlib import Path

# The seeds are files of a few kilobytes, and amplified ones of at most 100 kB.
SECONDS_MAX = 2.0
BYTES_MAX = 256 << 20


class TooSlowError(BaseException):
    """An input took more processor time than any input of its size should; not caught by `except Exception`."""


@dataclass(frozen=True)
class Input:
    """One damaged file or plan: what is checked ("normalised", "plain", "plan"), of which seed, and its bytes."""

    kind: str
    seed: int
    content: bytes

    @property
    def suffix(self) -> str:
        return "plan" if self.kind == "plan" else "tflite"


@dataclass
class Report:
    """What a run found: how many inputs ended how, and what must not be, in words, by input number."""

    outcomes: Counter = field(default_factory=Counter)
    findings: dict[int, str] = field(default_factory=dict)

    @property
    def count(self) -> int:
        return self.outcomes.total()

    def add(self, other: Report, folder: Path) -> None:
        """Add what another process found, and write the files of its findings to `folder`."""
        self.outcomes += other.outcomes
        self.findings |= other.findings
        for number, text in other.findings.items():
            made = make_input(number)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{number}.{made.suffix}").write_bytes(made.content)
            (folder / f"{number}.txt").write_text(f"{made.kind}, seed {seeds()[made.seed].name}: {text}\n")


def shown_outcomes(report: Report) -> str:
    """Return how many inputs ended how, one line each."""
    return "\n".join(f"{number:9d}  {outcome}" for outcome, number in sorted(report.outcomes.items()))


def make_input(number: int) -> Input:
    """Return the input of this number."""
    rng = random.Random(number)
    index = rng.randrange(len(seeds()))
    seed, other = seeds()[index], rng.choice(seeds())
    kind = rng.choices(("normalised", "plain", "plan"), (5, 2, 4))[0]
    if kind == "plan":
        return Input(kind, index, mutated_plan(rng.choice(seed.plans), rng))
    content = seed.normalised if kind == "normalised" else seed.plain
    return Input(kind, index, mutated(content, rng.choice(other.files), rng))


def check(number: int) -> str:
    """Check the input of this number and return how it ended; whatever is raised is a finding."""
    made = make_input(number)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # an overflow or a lost number is a wrong result, not a remark
        if made.kind == "plan":
            return f"plan: {check_plan(made.content, _base(made.seed))}"
        rng = np.random.default_rng(number)
        checked = check_normalised if made.kind == "normalised" else check_plain
        return f"{made.kind}: {checked(made.content, rng)}"


def run(numbers, report: Report, *, traces: bool = False) -> Report:
    """Check inputs until `numbers` ends, and count in `report`; with `traces`, print where a finding was raised."""
    _warm_up()
    with _limited_memory(), _alarm():
        for number in numbers:
            signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS_MAX)
            try:
                report.outcomes[check(number)] += 1
            except (Exception, TooSlowError) as error:  # noqa: BLE001 - anything at all is a finding
                report.outcomes["FOUND"] += 1
                report.findings[number] = _described(error)
                if traces:
                    traceback.print_exc()
            finally:
                signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    return report


@cache
def _base(index: int) -> BaseModel:
    return BaseModel(seeds()[index].normalised)


def _warm_up() -> None:
    """Import and allocate what any input needs, so that the limits are those of one input."""
    for index, seed in enumerate(seeds()):
        rng = np.random.default_rng(index)
        check_normalised(seed.normalised, rng)
        check_plain(seed.plain, rng)
        check_cut(_base(index), [])


def _described(error: BaseException) -> str:
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "edge_runtime" in frame.filename]
    where = f"{frames[-1].filename.rsplit('/', 1)[-1]}, {frames[-1].name}" if frames else "the checks"
    text = " ".join(str(error).split())
    return f"{type(error).__name__} in {where}: {text[:300]}"


@contextmanager
def _limited_memory():
    """Let this process have `BYTES_MAX` more than it has."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as statm:
        used = int(statm.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + BYTES_MAX, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@contextmanager
def _alarm():
    def ring(*_):
        raise TooSlowError(f"more than {SECONDS_MAX} s of processor time")

    before = signal.signal(signal.SIGVTALRM, ring)
    try:
        yield
    finally:
        signal.signal(signal.SIGVTALRM, before)
