"""The study of the cache as a section: its own figures, each from rows."""

from __future__ import annotations

import dataclasses

import pytest

from benchmarks.experiments import cache
from benchmarks.experiments.lab import Lab, Settings
from benchmarks.experiments.section import Table
from cloud_pruner.cache_study import COSTS, StudySettings, run_study, summarise
from cloud_pruner.cache_study.clusterings import cluster_numbers, made_up_rates, with_numbers


@pytest.fixture(scope="module")
def small() -> StudySettings:
    """Return a study of one small cache, at the popularity that tables are about."""
    quick = StudySettings.quick(COSTS["L"])
    return dataclasses.replace(quick, requests=80, zipfs=(1.0,), plans=(10, 30))


def test_the_section_shows_what_the_study_finds(small, tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "_MADE_UP_CLASSES", 6)
    monkeypatch.setattr(StudySettings, "quick", classmethod(lambda *_: small))
    lab = Lab(tmp_path / "work", Settings(quick=True), references={})
    section = cache.run(lab)
    assert "made up" in section.intro
    assert all(cell.value(lab.store) is not None for cell in section.cells())
    assert [plot.name for plot in section.plots()] == [
        "cache-changes",
        "cache-tiers",
        "cache-policies",
        "cache-clusters",
    ]

    rates = made_up_rates(6)
    clusterings = [with_numbers(rates, [12])[0], *with_numbers(rates, cluster_numbers(6))]
    expected = summarise(run_study(6, clusterings, small), small)
    saved, tiers, exact = (part for part in section.parts if isinstance(part, Table))
    for line in saved.lines:
        assert [cell.value(lab.store) for cell in line[1:]] == pytest.approx(
            [figure.mean for figure in expected.saved[line[0]].values()]
        )
    for line in tiers.lines:
        assert [cell.value(lab.store) for cell in line[1:4]] == pytest.approx(
            [figure.mean for figure in expected.tiers[line[0]].values()]
        )
    for line in exact.lines:
        assert [cell.value(lab.store) for cell in line[1:]] == pytest.approx(
            [expected.exact_only[line[0]][sizes].mean for sizes in ("equal", "drawn")]
        )
