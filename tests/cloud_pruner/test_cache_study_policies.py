"""Eviction policies, on cases small enough to follow by hand, and against what knowing the future gives."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache import MemoryStore
from cloud_pruner.cache_study.optimum import Belady, most_hits
from cloud_pruner.cache_study.policies import (
    POLICIES,
    GreedyDual,
    GreedyDualFrequency,
    LeastFrequent,
    LeastRecent,
    S3Fifo,
    Sieve,
    SplitLeastRecent,
)


def play(policy, requests, sizes=None):
    """Ask for entries, of size 1 unless `sizes` says otherwise, and count the hits."""
    hits = 0
    for entry in requests:
        if entry in policy:
            policy.use(entry)
            hits += 1
        else:
            policy.admit(entry, 1 if sizes is None else sizes[entry], 1.0)
    return hits


def test_lru_evicts_what_was_used_longest_ago():
    policy = LeastRecent(2)
    assert play(policy, [1, 2, 1, 3, 2]) == 1
    assert policy.evicted == [2, 1]


def test_lfu_evicts_what_was_used_least_often():
    policy = LeastFrequent(2)
    play(policy, [1, 1, 1, 2, 2, 3, 4])
    assert policy.evicted == [2, 3]


def test_sieve_clears_marks_as_its_hand_passes():
    policy = Sieve(3)
    play(policy, [1, 2, 3, 1])
    play(policy, [4])  # 1 was used: its mark goes, and 2 is evicted
    play(policy, [5])  # the hand stands on 3
    play(policy, [6])  # and then on 4, though 1 is older and has no mark any more
    assert policy.evicted == [2, 3, 4]
    play(policy, [5, 6])
    play(policy, [7])  # 5 and 6 lose their marks, and the hand comes round to 1
    assert policy.evicted == [2, 3, 4, 1]


def test_s3_fifo_keeps_what_proves_itself():
    policy = S3Fifo(10)  # 1 in the small queue once there is more
    play(policy, range(10))
    play(policy, [1, 1, 2])
    play(policy, [10])
    assert policy.evicted == [0]
    play(policy, [11])  # 1 was used twice since it came: into the main queue; once is too little for 2
    assert policy.evicted == [0, 2]
    play(policy, [0])  # is remembered: into the main queue at once
    assert policy.evicted == [0, 2, 3]
    play(policy, range(20, 40))
    assert (0 in policy, 1 in policy) == (True, True)


def test_s3_fifo_gives_used_entries_of_the_main_queue_another_round():
    policy = S3Fifo(4)
    play(policy, [0, 1, 2, 3, 0, 0, 1, 1, 2, 2, 3, 3, 4])  # all of 0 to 3 pass into the main queue, and 0 leaves it
    assert policy.evicted == [0]
    play(policy, [1])
    play(policy, [5, 4])  # 4 leaves the small queue, and comes back into the main one
    assert policy.evicted == [0, 4, 5]
    play(policy, [6])  # the small queue is empty, and 1 was used
    assert policy.evicted == [0, 4, 5, 2]


@pytest.mark.parametrize("make", [GreedyDual, GreedyDualFrequency])
def test_greedy_dual_weighs_seconds_and_bytes(make):
    policy = make(10)
    policy.admit(1, 1, 1.0)
    policy.admit(2, 9, 1.0)
    for entry in range(3, 9):  # each worth 0.2 more than what was evicted last; at last that is more than 1 is worth
        policy.admit(entry, 5, 1.0)
    assert policy.evicted == [2, 3, 4, 5, 6, 1]
    dear = make(2)
    dear.admit(1, 1, 5.0)
    dear.admit(2, 1, 1.0)
    dear.use(2)
    dear.admit(3, 1, 1.0)  # 2 is used twice as often, 1 is five times as dear
    assert dear.evicted == [2]


def test_only_gdsf_weighs_uses():
    for make, evicted in ((GreedyDual, 1), (GreedyDualFrequency, 2)):
        policy = make(2)
        play(policy, [1, 1, 1, 2, 3])
        assert policy.evicted == [evicted]


@settings(deadline=None)
@given(st.lists(st.integers(0, 9), max_size=60), st.integers(1, 6))
def test_among_equals_greedy_dual_is_lru(requests, capacity):
    lru, dual = LeastRecent(capacity), GreedyDual(capacity)
    assert play(lru, requests) == play(dual, requests)
    assert lru.evicted == dual.evicted


def test_split_lru_keeps_small_and_large_entries_apart():
    policy = SplitLeastRecent(100_000)
    for small in range(80):
        policy.admit(small, 128, 0.1)
    for large in range(1000, 1100):
        policy.admit(large, 40_000, 1.0)
    policy.use(79)
    assert sum(small in policy for small in range(80)) == 10_000 // 128
    assert [large for large in range(1000, 1100) if large in policy] == [1098, 1099]
    assert policy.evicted[:2] == [0, 1]


def test_belady_evicts_what_is_needed_last():
    requests = [1, 2, 3, 3, 1, 1, 2]
    policy = Belady(2, requests)
    assert play(policy, requests) == 3
    assert policy.evicted == [2]


def test_belady_leaves_out_what_is_needed_too_late():
    requests = [1, 2, 3, 1, 2, 3]
    assert play(Belady(2, requests), requests) == 2


@pytest.mark.parametrize("make", POLICIES.values(), ids=POLICIES)
def test_what_is_larger_than_the_cache_is_not_kept(make):
    policy = make(20_000)
    policy.admit(1, 2_000, 1.0)
    policy.admit(2, 20_001, 1.0)
    assert (1 in policy, 2 in policy, policy.evicted) == (True, False, [])


requests_of = st.lists(st.integers(0, 9), max_size=60)
sizes_of = st.lists(st.integers(1, 6), min_size=10, max_size=10)


@settings(deadline=None)
@given(requests_of, st.integers(1, 6))
def test_no_policy_beats_belady_with_equal_sizes(requests, capacity):
    best = play(Belady(capacity, requests), requests)
    for name, make in POLICIES.items():
        assert play(make(capacity), requests) <= best, name
    assert best <= most_hits(np.array(requests, np.int64), np.ones(10, np.int64), capacity)


@settings(deadline=None)
@given(st.lists(st.integers(0, 4), max_size=9), st.integers(1, 3))
def test_belady_is_the_best_there_is(requests, capacity):
    """All ways to fill the cache are tried: what is held after a request is some of what was, and the entry itself."""
    states = {frozenset(): 0}
    for entry in requests:
        reached: dict[frozenset[int], int] = {}
        for held, hits in states.items():
            there = held | {entry}
            for size in range(min(capacity, len(there)) + 1):
                for kept in map(frozenset, combinations(there, size)):
                    reached[kept] = max(reached.get(kept, 0), hits + (entry in held))
        states = reached
    assert play(Belady(capacity, requests), requests) == max(states.values())


@settings(deadline=None)
@given(requests_of, sizes_of, st.integers(1, 15))
def test_no_policy_exceeds_the_bound_whatever_the_sizes(requests, sizes, capacity):
    bound = most_hits(np.array(requests, np.int64), np.array(sizes), capacity)
    for name, make in {**POLICIES, "Belady": lambda size: Belady(size, requests)}.items():
        assert play(make(capacity), requests, sizes) <= bound, name


@settings(deadline=None)
@given(requests_of, sizes_of, st.integers(1, 15))
def test_the_cache_is_never_overfull(requests, sizes, capacity):
    for name, make in {**POLICIES, "Belady": lambda size: Belady(size, requests)}.items():
        policy, held = make(capacity), set()
        for entry in requests:
            was_held = entry in policy
            assert was_held == (entry in held), name
            play(policy, [entry], sizes)
            held -= set(policy.evicted)
            policy.evicted.clear()
            if entry in policy:
                held.add(entry)
            assert all(one in policy for one in held), name
            assert sum(sizes[one] for one in held) <= capacity, name


@settings(deadline=None)
@given(requests_of, sizes_of, st.integers(1, 15))
def test_lru_holds_what_the_memory_store_holds(requests, sizes, capacity):
    policy, store = LeastRecent(capacity), MemoryStore(max_bytes=capacity)
    for entry in requests:
        key = str(entry)  # one byte, so a value has one less than the entry
        if store.get(key) is None:
            store.put(key, bytes(sizes[entry] - 1))
        play(policy, [entry], sizes)
    assert set(map(int, store.keys())) == {entry for entry in range(10) if entry in policy}


def test_the_bound_is_what_a_cache_of_all_reaches():
    requests = np.array([0, 1, 0, 2, 0, 1, 2])
    assert most_hits(requests, np.array([1, 1, 1]), 3) == 4
    assert most_hits(requests, np.array([1, 1, 1]), 0) == 0
    assert most_hits(requests, np.array([1, 9, 9]), 3) == 2
