"""The search along a path, against one that is told in a few lines, whatever passes and fails."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_pruner.allocation import CutPath
from cloud_pruner.path_search import search_path, stations
from cloud_pruner.progress import no_progress
from edge_runtime.errors import PlanError


def path_of(costs):
    """A path of one group that loses a unit at each step."""
    blocks = tuple((0, np.array([number])) for number in range(len(costs) - 1))
    return CutPath({0: len(costs)}, blocks, np.asarray(costs, float))


@st.composite
def paths(draw):
    steps = draw(st.lists(st.floats(0, 1), min_size=1, max_size=60))
    left = np.cumprod([1.0, *(1.0 - 0.5 * step for step in steps)])
    return path_of(np.maximum(left, 1e-4))


@given(paths(), st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.3, 0.7, 1.0]))
def test_what_is_taken_was_tried_and_passes(path, seed, share):
    """Passing and failing cuts may lie in any order."""
    verdicts = np.random.default_rng(seed).random(len(path.costs)) < share
    tried = []

    def passes(number):
        tried.append(number)
        return bool(verdicts[number])

    taken, count = search_path(path, passes, no_progress)
    assert count == len(tried) == len(set(tried))
    assert all(1 <= number < len(path.costs) for number in tried)
    assert taken == max((number for number in tried if verdicts[number]), default=0)


@given(paths(), st.integers(0, 60))
def test_where_losses_grow_it_ends_near_the_last_that_passes(path, last):
    """Every cut up to `last` passes: none half as dear again as the one taken does, but for the refinements."""
    last = min(last, len(path.costs) - 1)
    taken, count = search_path(path, lambda number: number <= last, no_progress)
    assert taken <= last
    assert path.costs[last] >= path.costs[taken] / 1.5**2 or np.diff(-path.costs).max() > 0.2 * path.costs[taken]
    assert count <= np.log(1 / path.costs[-1]) / np.log(1.5) + 1 + 4


def test_the_most_daring_cut_is_tried_first():
    tried = []
    path = path_of(0.9 ** np.arange(40))
    assert search_path(path, lambda number: tried.append(number) or True, no_progress) == (39, 1)
    assert tried == [39]


def test_trials_grow_by_half_until_one_passes_then_close_in():
    path, tried = path_of(0.9 ** np.arange(40)), []

    def passes(number):
        tried.append(number)
        return number <= 29

    taken, count = search_path(path, passes, no_progress)
    # 1.5 is 0.9 ** -3.85: every 3.85th cut from the end. Then halves, between 28 (passes) and 31 (fails).
    assert tried == [39, 35, 31, 27, 29, 30]
    assert (taken, count) == (29, 6)


def test_a_cut_that_would_leave_a_layer_empty_fails():
    path = path_of(0.8 ** np.arange(10))

    def passes(number):
        if number > 4:
            raise PlanError("nothing left")
        return True

    taken, _ = search_path(path, passes, no_progress)
    assert taken == 4


@pytest.mark.parametrize("costs", [[1.0], [1.0, 1.0], [1.0, 0.99]])
def test_paths_of_next_to_nothing(costs):
    assert search_path(path_of(costs), lambda _: False, no_progress)[0] == 0
    assert search_path(path_of(costs), lambda _: True, no_progress)[0] in {0, len(costs) - 1}


def test_progress_says_sizes_and_never_ends_too_early():
    seen = []
    path = path_of(0.9 ** np.arange(40))
    _, count = search_path(path, lambda number: number < 3, lambda *what: seen.append(what))
    assert [done for _, done, _ in seen] == list(range(count))
    assert seen[0][0] == "size 0.02"
    assert all(done < total for _, done, total in seen)


@given(paths(), st.integers(1, 60), st.lists(st.floats(0, 1), max_size=5))
def test_stations_lead_to_the_cut_by_powers_of_its_cost(path, last, powers):
    last = min(last, len(path.costs) - 1)
    costs = path.costs.tolist()
    expected = {last}
    for power in powers:
        wanted = max(costs[last] ** power, costs[last])
        expected.add(next(number for number in range(last + 1) if costs[number] <= wanted))
    assert stations(path, last, powers) == sorted(expected - {0})
