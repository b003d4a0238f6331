"""What each method says of four units, worked out by hand from the table in `tests.support.two_by_two`."""

from __future__ import annotations

import numpy as np
import pytest

from cloud_pruner.baselines import BASELINES
from cloud_pruner.basic import basic_table
from cloud_pruner.variants import Basic, Miseffectual, Usage, Weighted, confusing_classes
from tests.support.two_by_two import two_by_two_profile

ONLY_A = Usage(np.array([0]), np.array([1.0]))
A_AND_B = Usage(np.array([0, 1]), np.array([0.75, 0.25]))
A_AND_C = Usage(np.array([0, 2]), np.array([0.5, 0.5]))
EVERYONE = Usage(np.arange(3), np.full(3, 1 / 3))


@pytest.fixture(scope="module")
def profile(tmp_path_factory):
    return two_by_two_profile(tmp_path_factory.mktemp("profiles") / "two-by-two")


@pytest.fixture
def layer(profile):
    (layer,) = profile.layers
    return layer


def kept(variant, profile, layer, usage):
    """Thresholds or shares, and the units that stay at each, the most daring first."""
    return [(round(one.figure, 3), one.kept.tolist()) for one in variant.candidates(profile, layer, usage)]


def test_the_network_is_the_one_in_the_table(profile, layer):
    np.testing.assert_array_equal(layer.firing_rates.T, [[0.25, 0.25, 0.25, 0.75], [0.5, 0.5, 0, 0.5], [1, 0, 0, 0]])
    np.testing.assert_array_equal(layer.mean_activations.T, [[1, 0.75, 1, 2.25], [1, 0.5, 0, 1.5], [1, 0, 0, 0]])
    np.testing.assert_array_equal(profile.confusion, [[0, 4, 0], [0, 4, 0], [0, 0, 4]])


def test_l1_drops_the_smallest_filters_first(profile, layer):
    # |1|, |1|, |2|, |-3|: of 0 and 1, which are alike, the first.
    assert kept(BASELINES["L1"], profile, layer, A_AND_B) == [(0.95, [3]), (0.7, [2, 3]), (0.45, [1, 2, 3])]


def test_apoz_drops_what_fires_least_over_all_classes(profile, layer):
    # 7/12, 3/12, 1/12, 5/12, whoever the user is.
    expected = [(0.95, [0]), (0.7, [0, 3]), (0.45, [0, 1, 3])]
    assert kept(BASELINES["APoZ"], profile, layer, ONLY_A) == expected
    assert kept(BASELINES["APoZ"], profile, layer, A_AND_C) == expected


def test_ocap_keeps_the_union_of_what_the_classes_activate_most(profile, layer):
    # Of a's 5, unit 3 carries 9/4, 0 and 2 carry 1 each, 1 carries 3/4; of b's 3: 3/2 by 3, 1 by 0, 1/2 by 1.
    # Above a unit stand, for a: 0.65 (2), 0.45 (0), 0.85 (1), 0 (3); for b: 1 (2), 0.5 (0), 0.83 (1), 0 (3).
    np.testing.assert_allclose(BASELINES["OCAP"].score(profile, layer, A_AND_B), [-0.45, -2.5 / 3, -0.65, 0])
    assert kept(BASELINES["OCAP"], profile, layer, A_AND_B) == [(0.95, [3]), (0.7, [0, 3]), (0.45, [0, 2, 3])]
    # c is carried by unit 0 alone.
    assert kept(BASELINES["OCAP"], profile, layer, A_AND_C)[1] == (0.7, [0, 3])


def test_guo_and_potkonjak_drop_what_contributes_least(profile, layer):
    # Means for 3/4 a and 1/4 b: 1, 11/16, 3/4, 33/16; times the weights that read them: 1, 2, 4, 1.
    np.testing.assert_allclose(BASELINES["Guo-Potkonjak"].score(profile, layer, A_AND_B), [1, 1.375, 3, 2.0625])
    expected = [(0.95, [2]), (0.7, [2, 3]), (0.45, [1, 2, 3])]
    assert kept(BASELINES["Guo-Potkonjak"], profile, layer, A_AND_B) == expected


def test_chance_asks_neither_for_the_network_nor_for_the_user(profile, layer):
    cuts = kept(BASELINES["random"], profile, layer, A_AND_B)
    assert [len(units) for _, units in cuts] == [1, 2, 3]
    assert cuts == kept(BASELINES["random"], profile, layer, A_AND_C)


def test_w_drops_units_up_to_a_threshold_on_weighted_firing(profile, layer):
    # 3/4 a and 1/4 b: 5/16, 5/16, 3/16, 11/16. Unit 3 alone above 0.4, units 0 and 1 above 0.3, and from 0.175 on all.
    assert kept(Weighted(), profile, layer, A_AND_B) == [(0.4, [3]), (0.3, [0, 1, 3])]


def test_w_drops_what_fires_for_a_class_that_is_seldom_met_and_b_does_not(profile, layer):
    """CAP'NN, figure 3: a unit above T for one class goes all the same where that class comes up one time in ten."""
    seldom = Usage(np.array([0, 2]), np.array([0.1, 0.9]))
    assert Weighted().start > 0.1 * layer.firing_rates[3, 0] + 0.9 * layer.firing_rates[3, 2]
    assert kept(Weighted(), profile, layer, seldom)[0] == (0.4, [0])
    assert 3 in next(Basic().candidates(profile, layer, seldom)).kept


def test_b_drops_what_is_idle_for_each_class_alone(profile, layer):
    # Below 0.4 fire, for a: 0, 1, 2; for b: 2; for c: 1, 2, 3. Without them a is taken for b, as before, and b and c
    # for what they are: the first threshold will do.
    table = basic_table(profile, 0.03)
    assert table.thresholds == (pytest.approx(0.4),)
    assert table.pruned[0].T.tolist() == [
        [True, True, True, False],
        [False, False, True, False],
        [False, True, True, True],
    ]
    assert kept(Basic(), profile, layer, A_AND_B) == [(0.4, [0, 1, 3])]
    assert kept(Basic(), profile, layer, A_AND_C) == [(0.4, [0, 3])]
    assert kept(Basic(), profile, layer, EVERYONE) == [(0.4, [0, 1, 3])]


def test_m_drops_units_that_speak_for_what_a_class_is_mistaken_for(profile, layer):
    # a is taken for b; units 1 and 3 weigh more for b than for a (2 > 0, 1 > 0): for a they count as idle.
    assert confusing_classes(profile.confusion, 0, 5).tolist() == [1]
    assert kept(Weighted(), profile, layer, ONLY_A) == [(0.4, [3])]
    assert kept(Miseffectual(), profile, layer, ONLY_A) == [(0.225, [0, 2])]
    # With 1/4 b: 5/16, 2/16, 3/16, 2/16.
    assert kept(Miseffectual(), profile, layer, A_AND_B) == [(0.3, [0]), (0.175, [0, 2])]
