"""The path of cuts: what each costs by the files that it makes, and that each step was the best to be had."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from cloud_pruner.allocation import OBJECTIVES, allocate
from cloud_pruner.elimination import Elimination
from cloud_pruner.search import Searcher
from cloud_pruner.variants import Usage
from edge_runtime.flatmodel import LayerCut, read_graph
from hwmodel import estimate
from tests.support.branched_networks import joined, padded_shortcut, profile_of
from tests.support.reference import kept_units
from tests.support.residual_digits import residual_profile

USAGE = Usage(np.array([0, 3, 5]), np.full(3, 1 / 3))


@pytest.fixture(scope="module", params=["sequential", "residual", "joined", "padded shortcut"])
def profile(request, tmp_path_factory):
    if request.param == "sequential":
        return request.getfixturevalue("digits_profile")
    if request.param == "residual":
        return residual_profile()
    structure = joined if request.param == "joined" else padded_shortcut
    return profile_of(structure, tmp_path_factory.mktemp("profiles") / "profile")


@pytest.fixture(scope="module")
def paths(profile):
    """Objective -> the path of a real user."""
    searcher = Searcher(profile)
    fitter = searcher._fitter(USAGE)
    return {objective: searcher._path(USAGE, fitter, objective) for objective in OBJECTIVES}


def cuts_of(profile, kept):
    groups = profile.groups.values()
    return [LayerCut(group.tensor, group.units, kept[group.group]) for group in groups]


def emitted(profile, path, cut):
    return read_graph(profile.base.emit(cuts_of(profile, path.kept(cut))))


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_each_cut_keeps_less_than_the_one_before_and_something_everywhere(profile, paths, objective):
    path = paths[objective]
    kept = [path.kept(number) for number in range(len(path.costs))]
    assert len(path.costs) == len(path.blocks) + 1 > 5
    assert all(len(kept[0][group.group]) == group.units for group in profile.groups.values())
    for before, after in itertools.pairwise(kept):
        assert all(set(after[number].tolist()) <= set(before[number].tolist()) for number in before)
        assert sum(map(len, after.values())) < sum(map(len, before.values()))
    keeps = kept_units(profile.base, cuts_of(profile, kept[-1]))
    assert all(keeps[along].any() for axes in profile.base.channels.axes.values() for along in axes.values())


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_costs_start_at_one_and_fall(paths, objective):
    costs = paths[objective].costs
    assert costs[0] == 1.0
    assert (np.diff(costs) <= 1e-12).all()
    assert 0.0 < costs[-1] < 0.5


def test_sizes_are_those_of_the_emitted_files(profile, paths):
    path, whole = paths["size"], profile.base.graph.parameters
    sizes = [emitted(profile, path, number).parameters / whole for number in range(len(path.costs))]
    np.testing.assert_allclose(path.costs, sizes, rtol=1e-12)


def test_macs_are_those_of_the_emitted_files(profile, paths):
    path, whole = paths["macs"], estimate(profile.base.graph).macs
    macs = [estimate(emitted(profile, path, number)).macs / whole for number in range(len(path.costs))]
    np.testing.assert_allclose(path.costs, macs, rtol=1e-9)


def test_modelled_energy_of_the_emitted_files_falls_along_the_path(profile, paths):
    """By less than the path says: activations and a layer's fixed costs do not shrink with its weights."""
    path = paths["energy"]
    cuts = np.linspace(0, len(path.costs) - 1, 6).astype(int)
    energies = [estimate(emitted(profile, path, number)).energy.total for number in cuts.tolist()]
    assert (np.diff(energies) < 0).all()


def test_each_step_has_the_lowest_error_per_parameter_that_is_to_be_had(profile):
    """Of one to four blocks of any group; parameters are counted axis by axis."""
    rng = np.random.default_rng(0)
    eliminations = {number: random_elimination(rng, group.units) for number, group in profile.groups.items()}
    groups = list(profile.groups.values())
    path = allocate(profile.base, groups, eliminations, "size")
    done = dict.fromkeys(eliminations, 0)
    for taken, units in path.blocks:
        offers = {}
        for number, elimination in eliminations.items():
            for blocks in range(done[number] + 1, min(done[number] + 4, len(elimination.ends)) + 1):
                kept = {other: kept_after(eliminations[other], profile, other, done[other]) for other in eliminations}
                before = plain_parameters(profile, kept)
                kept[number] = kept_after(elimination, profile, number, blocks)
                after = plain_parameters(profile, kept)
                if after is not None:
                    error = elimination.errors[blocks - 1] - (
                        elimination.errors[done[number] - 1] if done[number] else 0
                    )
                    offers[number, blocks] = error / (before - after) if before > after else math.inf
        best = min(offers.values())
        blocks = done[taken] + 1
        while len(units) > eliminations[taken].ends[blocks - 1] - (
            eliminations[taken].ends[done[taken] - 1] if done[taken] else 0
        ):
            blocks += 1
        assert math.isclose(offers[taken, blocks], best, rel_tol=1e-9)
        done[taken] = blocks
    for number, elimination in eliminations.items():
        # It goes on until nothing is left that could go.
        kept = {other: kept_after(eliminations[other], profile, other, done[other]) for other in eliminations}
        kept[number] = kept_after(elimination, profile, number, min(done[number] + 1, len(elimination.ends)))
        assert done[number] == len(elimination.ends) or plain_parameters(profile, kept) is None


def random_elimination(rng, units):
    ends = np.unique([*rng.integers(1, units, 8), units - 1])
    return Elimination(rng.permutation(units)[: units - 1], ends, np.cumsum(rng.exponential(size=len(ends)) ** 2))


def kept_after(elimination, profile, number, blocks):
    gone = elimination.order[: elimination.ends[blocks - 1]] if blocks else []
    return np.setdiff1d(np.arange(profile.groups[number].units), gone)


def plain_parameters(profile, kept):
    """Elements of all weights and biases that are left; None where an axis would be empty."""
    base, count = profile.base, 0
    keeps = kept_units(base, cuts_of(profile, kept))
    for tensor in base.graph.tensors:
        if tensor.is_constant and tensor.dtype.kind == "f":
            sides = list(tensor.shape)
            for axis, along in base.channels.axes.get(tensor.index, {}).items():
                sides[axis] = int(keeps[along].sum())
            if 0 in sides:
                return None
            count += math.prod(sides)
    return count
