"""The rules of a probation on simulated answers: the sound cut stays, the bad one goes."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edge_runtime.config import ProbationConfig
from edge_runtime.errors import MessageError, ModelFileError
from edge_runtime.messages import pack, unpack
from edge_runtime.observation import Observation
from edge_runtime.probation import KEPT, Baseline, Probation, RecentAnswers, measure_baseline
from edge_runtime.serving import Models, ServingModel

if TYPE_CHECKING:
    from edge_runtime.slots import StoredModel
    from edge_runtime.wire import Manifest

CONFIG = ProbationConfig(images=200, latency_factor=2.0, doubtful_jump=0.2, confidence=0.5)


@dataclass
class Model:
    """A model as its answers show it."""

    manifest: Manifest
    doubtful: float = 0.1
    seconds: float = 0.100

    def answers(self, count: int, rng: np.random.Generator, *, audited: bool = False) -> list[Observation]:
        """Draw answers; times vary by a fifth, and one in twenty takes five times as long."""
        confident = np.where(rng.random(count) < self.doubtful, 0.3, 0.9)
        seconds = self.seconds * np.exp(rng.normal(0, 0.2, count)) * np.where(rng.random(count) < 0.05, 5.0, 1.0)
        return [
            Observation(self.manifest, 0, float(c), float(s), audited, np.array([c, 1 - c], np.float32))
            for c, s in zip(confident, seconds, strict=True)
        ]


@pytest.fixture
def former(base: StoredModel) -> Model:
    return Model(base.manifest)


@pytest.fixture
def cut(west: StoredModel) -> Model:
    """A cut of 40 % of the base's parameters, in 60 % of its time."""
    return Model(west.manifest, seconds=0.060)


def baseline(former: Model, rng: np.random.Generator, images: int = 300) -> Baseline:
    seconds = float(np.median([answer.seconds for answer in former.answers(9, rng)]))
    return Baseline(images, int(rng.binomial(images, former.doubtful)), seconds, former.manifest.relative_size)


def verdict(former: Model, cut: Model, seed: int = 0, config: ProbationConfig = CONFIG) -> tuple[str | None, int]:
    rng = np.random.default_rng(seed)
    probation = Probation(config, cut.manifest, baseline(former, rng))
    for answer in cut.answers(config.images, rng):
        if probation.verdict is None:
            probation.observe(answer)
    return probation.verdict, probation.images


def test_a_sound_cut_is_kept_after_its_images(former: Model, cut: Model):
    assert verdict(former, cut) == (KEPT, 200)


@pytest.mark.parametrize(
    ("doubtful", "share_of_time"),
    [(0.1, 0.6), (0.2, 1.0), (0.28, 1.0)],
    ids=["as usual", "somewhat worse", "nearly too bad"],
)
def test_a_healthy_swap_is_hardly_ever_rolled_back(former: Model, cut: Model, doubtful: float, share_of_time: float):
    healthy = replace(cut, doubtful=doubtful, seconds=share_of_time * former.seconds)

    given_up = sum(verdict(former, healthy, seed)[0] != KEPT for seed in range(1000))

    assert given_up <= 10


@pytest.mark.parametrize("relative_size", [0.02, 0.1, 0.4, 0.9])
def test_a_cut_that_saves_parameters_and_hardly_any_work_is_kept(former: Model, cut: Model, relative_size: float):
    small = replace(cut, manifest=replace(cut.manifest, relative_size=relative_size), seconds=former.seconds)

    assert all(verdict(former, small, seed)[0] == KEPT for seed in range(50))


def test_a_cut_that_is_too_slow_goes_at_the_first_look(former: Model, cut: Model):
    # Twice the base's time would be within `latency_factor`, were its size not known.
    slow = replace(cut, seconds=1.6 * former.seconds)

    reason, images = verdict(former, slow)

    assert reason is not None
    assert re.search(r"it takes 1\d\d\.\d ms an image, at most 1\d\d\.\d ms were to be expected from its size", reason)
    assert images == 50


def test_what_nobody_notices_is_no_reason(former: Model, cut: Model):
    assert verdict(replace(former, seconds=0.0005), replace(cut, seconds=0.008))[0] == KEPT


def test_a_cut_that_is_hardly_smaller_has_the_factor(former: Model, cut: Model):
    large = replace(cut, manifest=replace(cut.manifest, relative_size=1.0))

    assert verdict(former, replace(large, seconds=1.6 * former.seconds))[0] == KEPT
    assert verdict(former, replace(large, seconds=2.5 * former.seconds))[0] != KEPT


def test_a_device_that_became_slower_altogether_is_no_reason(former: Model, cut: Model):
    rng = np.random.default_rng(0)
    probation = Probation(CONFIG, cut.manifest, baseline(former, rng))
    busy = replace(former, seconds=3 * former.seconds).answers(20, rng, audited=True)
    for number, answer in enumerate(replace(cut, seconds=3 * cut.seconds).answers(200, rng)):
        if number % 10 == 0:
            probation.observe(busy[number // 10])
        probation.observe(answer)

    assert probation.verdict == KEPT


def test_a_cut_that_has_become_doubtful_goes(former: Model, cut: Model):
    doubtful = replace(cut, doubtful=0.6)

    verdicts = [verdict(former, doubtful, seed) for seed in range(100)]

    assert all(reason is not None and "of its answers are doubtful" in reason for reason, _ in verdicts)
    assert np.mean([images for _, images in verdicts]) < 100


def test_doubts_that_were_there_before_are_no_reason(former: Model, cut: Model):
    assert verdict(replace(former, doubtful=0.6), replace(cut, doubtful=0.65))[0] == KEPT


def test_without_answers_of_the_former_model_doubts_are_no_reason(former: Model, cut: Model):
    rng = np.random.default_rng(0)
    probation = Probation(CONFIG, cut.manifest, Baseline(0, 0, former.seconds, 1.0))
    for answer in replace(cut, doubtful=0.9).answers(200, rng):
        probation.observe(answer)

    assert probation.verdict == KEPT


def test_a_failure_ends_it_at_once(former: Model, cut: Model):
    rng = np.random.default_rng(0)
    probation = Probation(CONFIG, cut.manifest, baseline(former, rng))
    probation.observe(cut.answers(1, rng)[0])
    probation.fail(ModelFileError("model 123: the interpreter failed while running it"))

    assert probation.verdict == "it failed on an image: model 123: the interpreter failed while running it"
    for answer in cut.answers(300, rng):
        probation.observe(answer)
    assert probation.verdict.startswith("it failed")
    assert probation.images == 1


def test_answers_of_other_models_are_not_counted(former: Model, cut: Model):
    rng = np.random.default_rng(0)
    probation = Probation(CONFIG, cut.manifest, baseline(former, rng))
    for answer in former.answers(300, rng):
        probation.observe(answer)

    assert (probation.images, probation.verdict) == (0, None)


@pytest.mark.parametrize("stop_at", [1, 49, 50, 120, 199])
def test_a_restart_goes_on_where_it_was(former: Model, cut: Model, stop_at: int):
    rng = np.random.default_rng(3)
    answers = cut.answers(200, rng)
    probation = Probation(CONFIG, cut.manifest, baseline(former, rng))
    for answer in answers[:stop_at]:
        probation.observe(answer)

    again = Probation.from_fields(CONFIG, cut.manifest, unpack(pack(probation.to_fields())))
    assert (again.images, again.verdict) == (stop_at, None)
    assert again.to_fields() == probation.to_fields()
    for answer in answers[stop_at:]:
        again.observe(answer)
    assert (again.images, again.verdict) == (200, KEPT)


def test_a_probation_that_is_shorter_after_a_restart_still_ends(former: Model, cut: Model):
    rng = np.random.default_rng(3)
    probation = Probation(CONFIG, cut.manifest, baseline(former, rng))
    for answer in cut.answers(150, rng):
        probation.observe(answer)

    again = Probation.from_fields(replace(CONFIG, images=40), cut.manifest, probation.to_fields())
    again.observe(cut.answers(1, rng)[0])
    assert again.verdict == KEPT


@pytest.mark.parametrize("fields", [{}, {"former": {}}, {"former": {"images": 1, "doubtful": 0, "seconds": "x"}}])
def test_what_is_no_probation_is_refused(cut: Model, fields: dict[str, object]):
    with pytest.raises(MessageError, match=r"probation|baseline"):
        Probation.from_fields(CONFIG, cut.manifest, fields)


def test_recent_answers_are_the_serving_models_and_no_audits(former: Model, cut: Model):
    rng = np.random.default_rng(0)
    recent = RecentAnswers(0.5)
    for answer in replace(former, doubtful=1.0).answers(30, rng):
        recent.observe(answer)
    assert recent.counts(former.manifest.digest) == (30, 30)
    assert recent.counts(cut.manifest.digest) == (0, 0)

    for answer in [*replace(cut, doubtful=0.0).answers(600, rng), *former.answers(50, rng, audited=True)]:
        recent.observe(answer)
    assert recent.counts(cut.manifest.digest) == (500, 0)
    assert recent.counts(former.manifest.digest) == (0, 0)


def test_the_baseline_is_measured_on_real_models(base: StoredModel, west: StoredModel):
    recent = RecentAnswers(0.5)
    measured = measure_baseline(Models(ServingModel(base), ServingModel(west)), recent)
    assert 0 < measured.seconds < 1
    assert (measured.images, measured.doubtful, measured.relative_size) == (0, 0, 1.0)

    alone = measure_baseline(Models(cut=ServingModel(west)), recent)
    assert alone.relative_size == west.manifest.relative_size
