"""The order in which units go, against refitting the regression of all removed units on all kept ones each time."""

from __future__ import annotations

import tracemalloc
from dataclasses import dataclass

import numpy as np
import pytest

from cloud_pruner import elimination as module
from cloud_pruner.elimination import Observed, eliminate

RIDGE = 0.02


@dataclass
class Reader:
    """A layer: `weights` `(outputs, n)` of the `units` that it reads, whose covariance is `covariance`."""

    units: np.ndarray
    weights: np.ndarray
    covariance: np.ndarray

    @property
    def observed(self):
        return Observed(self.units, self.covariance.copy(), self.weights.T @ self.weights)

    def lost(self, gone, ridge):
        """Share of the outputs' variance that is lost without the units `gone`, all predicted from all others."""
        n = len(self.units)
        regular = self.covariance + ridge * np.trace(self.covariance) / n * np.eye(n)
        out = np.isin(self.units, list(gone))
        residual = regular[np.ix_(out, out)]
        if not out.all():
            prediction = np.linalg.solve(regular[np.ix_(~out, ~out)], regular[np.ix_(~out, out)]).T
            residual = residual - prediction @ regular[np.ix_(~out, out)]
        whole = np.trace(self.weights @ self.covariance @ self.weights.T)
        return np.trace(self.weights[:, out] @ residual @ self.weights[:, out].T) / whole


def plain_elimination(units, readers, ridge):
    """Return the blocks and the errors after each, with every price and error worked out from nothing."""
    left, gone, blocks, errors = list(range(units)), set(), [], []
    step = max(int(units * 0.05), 1)
    while len(left) > 1:
        prices = {n: sum(reader.lost(gone | {n}, ridge) for reader in readers) for n in left}
        block = sorted(left, key=lambda n, prices=prices: (prices[n], n))[: min(step, len(left) - 1)]
        gone |= set(block)
        left = [n for n in left if n not in gone]
        blocks.append(sorted(block))
        errors.append(sum(reader.lost(gone, ridge) for reader in readers))
    return blocks, errors


def random_reader(rng, units, outputs, images=200):
    """A layer that reads `units`, whose activations are mixtures of fewer causes, with and without a ReLU."""
    causes = rng.normal(size=(images, max(len(units) // 2, 2))) @ rng.normal(size=(max(len(units) // 2, 2), len(units)))
    values = np.maximum(causes + rng.normal(0, 0.3, (images, len(units))), 0.0)
    return Reader(units, rng.normal(size=(outputs, len(units))), np.atleast_2d(np.cov(values.T, bias=True)))


def blocks_of(elimination):
    return [sorted(block.tolist()) for block in np.split(elimination.order, elimination.ends[:-1])]


@pytest.mark.parametrize("strip", [6, 256])
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("units", [2, 7, 20, 45])
def test_same_blocks_and_errors_as_refitting_everything(units, seed, strip, monkeypatch):
    monkeypatch.setattr(module, "_STRIP", strip)
    rng = np.random.default_rng([seed, units])
    every = np.arange(units)
    some = np.sort(rng.choice(units, max(units * 2 // 3, 1), replace=False))
    readers = [random_reader(rng, every, 9), random_reader(rng, some, 4), random_reader(rng, every, 1)][: 1 + seed % 3]
    elimination = eliminate(units, [reader.observed for reader in readers], RIDGE)
    blocks, errors = plain_elimination(units, readers, RIDGE)
    assert blocks_of(elimination) == blocks
    np.testing.assert_allclose(elimination.errors, errors, rtol=1e-6)


def test_same_on_what_a_trained_network_reads(residual_observed):
    for units, readers in residual_observed:
        elimination = eliminate(units, [reader.observed for reader in readers], RIDGE)
        blocks, errors = plain_elimination(units, readers, RIDGE)
        assert blocks_of(elimination) == blocks
        np.testing.assert_allclose(elimination.errors, errors, rtol=1e-6)


@pytest.fixture(scope="module")
def residual_observed():
    """Units and readers of each group of the residual network, for three classes."""
    from cloud_pruner.search import Searcher
    from cloud_pruner.variants import Usage
    from edge_runtime.flatmodel import real_values
    from tests.support.residual_digits import residual_profile

    profile = residual_profile()
    fitter = Searcher(profile)._fitter(Usage(np.array([1, 4, 8]), np.full(3, 1 / 3)))
    found = []
    for group in profile.groups.values():
        readers = []
        for reader in group.readers:
            values = real_values(profile.base.graph.tensors[reader.weight]).astype(np.float64)
            # Here no map is flattened: one column for each unit. Kernel positions count as outputs.
            weights = values[..., reader.columns[0]].reshape(-1, len(reader.units))
            readers.append(Reader(reader.units, weights, fitter.covariance(reader)))
        found.append((group.units, readers))
    return found


def test_thousands_of_units_take_little_more_memory_than_their_matrices():
    reader = random_reader(np.random.default_rng(4), np.arange(1024), 3)
    observed = reader.observed
    tracemalloc.start()
    try:
        eliminate(1024, [observed], RIDGE)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < reader.covariance.nbytes


def test_every_unit_but_one_goes_once():
    rng = np.random.default_rng(0)
    for units in (1, 2, 19, 20, 41, 100):
        elimination = eliminate(units, [random_reader(rng, np.arange(units), 3).observed] if units > 1 else [], RIDGE)
        assert len(set(elimination.order.tolist())) == len(elimination.order) == units - 1
        assert elimination.ends.tolist() == sorted({*elimination.ends.tolist()})
        assert (elimination.ends[-1:] == units - 1).all()
        assert (np.diff(elimination.errors) >= 0).all()


def test_one_of_two_equal_units_goes_for_nothing_and_the_other_not():
    rng = np.random.default_rng(1)
    values = rng.normal(size=(500, 6))
    values[:, 4] = values[:, 1]
    reader = Reader(np.arange(6), np.ones((1, 6)), np.cov(values.T, bias=True))
    elimination = eliminate(6, [reader.observed], 1e-6)
    assert elimination.order[0] in {1, 4}
    assert elimination.errors[0] < 1e-4

    assert elimination.errors[1] > 0.05


def test_a_unit_that_says_nothing_and_one_that_nobody_reads_go_first():
    rng = np.random.default_rng(2)
    values = rng.normal(size=(500, 5))
    values[:, 3] = 7.0
    covariance = np.cov(values.T, bias=True)
    units = np.array([0, 1, 2, 4, 5])  # nobody reads unit 3; unit 4 is always 7
    elimination = eliminate(6, [Reader(units, rng.normal(size=(4, 5)), covariance).observed], 1e-9)
    assert set(elimination.order[:2].tolist()) == {3, 4}
    assert elimination.errors[1] < 1e-6 < elimination.errors[2]


def test_activations_that_never_vary_cost_nothing():
    observed = Observed(np.arange(4), np.zeros((4, 4)), np.eye(4))
    elimination = eliminate(4, [observed], RIDGE)
    assert len(elimination.order) == 3
    assert np.isfinite(elimination.errors).all()
