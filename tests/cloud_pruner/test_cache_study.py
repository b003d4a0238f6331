"""The cache study: its traces, what it counts as a hit, and its report."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from statistics import fmean

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cloud_pruner import cache_study
from cloud_pruner.cache_study import (
    COSTS,
    Clustering,
    CostModel,
    StudySettings,
    cluster_numbers,
    made_up_rates,
    run_study,
    with_numbers,
)
from cloud_pruner.cache_study.policies import LeastRecent
from cloud_pruner.cache_study.report import report_folder
from cloud_pruner.cache_study.simulation import Answers, entry_sizes, simulate, workload
from cloud_pruner.cache_study.study import mean_of, rows_csv
from cloud_pruner.cache_study.trace import K_MOST, SCENARIOS, Trace, TraceSettings, make_trace, numbered
from cloud_pruner.cli import main
from cloud_pruner.errors import RequestError

COSTS_OF_TEST = CostModel(cold=2.0, near=0.5, plan_bytes=(1000,), weighted=True)
PLENTY = 10**9


def trace_of(*requests):
    """A trace of {class: steps} mappings."""
    classes = np.full((len(requests), K_MOST), -1, np.int16)
    steps = np.zeros((len(requests), K_MOST), np.int16)
    for row, request in enumerate(requests):
        for column, (label, weight) in enumerate(sorted(request.items())):
            classes[row, column], steps[row, column] = label, weight
    return Trace(classes, steps, numbered(classes), numbered(np.hstack([classes, steps])))


def answers_to(requests, layers, *, capacity=PLENTY, near=True):
    work = workload(trace_of(*requests), [np.array(layer, np.int16) for layer in layers])
    return simulate(work, LeastRecent(capacity), entry_sizes(work, (1000,), 0), COSTS_OF_TEST, near=near)


def drawn(scenario="steady", zipf=1.0, *, weighted=False, seed=0, requests=5000, classes=20):
    return make_trace(TraceSettings(classes, zipf, scenario, requests, weighted, seed))


def shares(trace, part=slice(None)):
    """How often each class comes up, as a share of requests."""
    labels = trace.classes[part]
    return np.bincount(labels[labels >= 0], minlength=20) / len(labels)


def test_all_names_are_there():
    assert all(getattr(cache_study, name) is not None for name in cache_study.__all__)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_traces_are_requests_and_the_same_each_time(scenario):
    trace = drawn(scenario, weighted=True)
    again = drawn(scenario, weighted=True)
    assert np.array_equal(trace.plans, again.plans)
    assert not np.array_equal(trace.classes, drawn(scenario, weighted=True, seed=1).classes)
    there = trace.classes >= 0
    counts = there.sum(axis=1)
    assert (counts.min(), counts.max()) == (2, 5)
    for row, count in zip(trace.classes[:200], counts, strict=False):
        assert list(row[:count]) == sorted(set(row[:count].tolist()))
    assert np.array_equal(trace.steps > 0, there)
    # 20 steps of 5 %, give or take what rounding each weight adds or takes away.
    assert np.abs(trace.steps.sum(axis=1) - 20).max() <= 4


def test_a_larger_exponent_makes_some_classes_more_popular():
    even, skewed = shares(drawn(zipf=0.0, requests=20_000)), shares(drawn(zipf=1.2, requests=20_000))
    assert even == pytest.approx(np.full(20, 3.5 / 20), abs=0.015)
    assert skewed.max() > 10 * skewed.min()


def test_popularity_is_zipfs():
    trace = drawn(zipf=1.0, requests=40_000, classes=3)
    pairs = Counter(tuple(row[:2].tolist()) for row in trace.classes if (row >= 0).sum() == 2)
    p = np.array([1, 1 / 2, 1 / 3]) / (1 + 1 / 2 + 1 / 3)
    # Two without replacement: a first and then b, or b first.
    expected = sorted(p[a] * p[b] * (1 / (1 - p[a]) + 1 / (1 - p[b])) for a, b in ((0, 1), (0, 2), (1, 2)))
    seen = sorted(count / sum(pairs.values()) for count in pairs.values())
    assert seen == pytest.approx(expected, abs=0.01)


def test_popularity_changes_as_the_scenario_says():
    halves = slice(0, 2500), slice(2500, None)
    steady, drift, shift = (
        np.corrcoef(*(shares(drawn(scenario), half) for half in halves))[0, 1]
        for scenario in ("steady", "drift", "shift")
    )
    assert steady > 0.99
    assert shift < drift < steady
    scanned = drawn("scan")
    burst, before = slice(400, 500), slice(0, 400)
    assert set((scanned.classes[burst] >= 0).sum(axis=1)) == {5}
    assert shares(scanned, burst).max() < shares(scanned, before).max()


def test_half_of_the_requests_weigh_their_classes_alike():
    trace = drawn(weighted=True)
    pairs = trace.steps[(trace.classes >= 0).sum(axis=1) == 2][:, :2]
    assert 0.5 < (pairs[:, 0] == pairs[:, 1]).mean() < 0.6  # and some of the others by chance


def test_without_weights_requests_are_their_classes():
    trace = drawn()
    assert np.array_equal(trace.sets, trace.plans)
    assert set(np.unique(trace.steps)) == {0, 1}


def test_too_few_classes_are_refused():
    with pytest.raises(RequestError, match="1 classes"):
        drawn(classes=1)


def test_each_tier_answers_what_it_should():
    clusters = [(0, 0, 1, 1), (0, 0, 1, 1)]
    searched = {0: 10, 2: 10}
    assert answers_to([searched, searched], clusters) == Answers(exact=1, searched=1)
    assert answers_to([searched, {1: 10, 3: 10}], clusters) == Answers(thresholds=1, searched=1)
    assert answers_to([searched, {1: 9, 3: 11}], clusters) == Answers(searched=2)
    assert answers_to([{0: 5, 1: 5, 2: 10}, searched], clusters) == Answers(superset=1, searched=1)
    assert answers_to([searched, {0: 5, 2: 15}], clusters) == Answers(superset=1, same_classes=1, searched=1)
    # To both layers' clusters it must be the same.
    assert answers_to([searched, {1: 10, 3: 10}], [*clusters, (0, 1, 1, 2)]) == Answers(searched=2)
    # Two classes of one cluster weigh as much as one.
    assert answers_to([{0: 4, 1: 6, 2: 10}, {1: 10, 3: 10}], clusters) == Answers(thresholds=1, searched=1)


def test_what_was_evicted_answers_nothing():
    clusters = [(0, 1, 2, 3, 4)]
    first, second, inside = {0: 5, 1: 5, 2: 10}, {2: 5, 3: 5, 4: 10}, {0: 10, 1: 10}
    assert answers_to([first, second, inside], clusters).superset == 1
    # Room for one plan and its threshold.
    assert answers_to([first, second, inside], clusters, capacity=1500).superset == 0


def test_an_answer_from_a_near_hit_is_kept():
    clusters = [(0, 0, 1, 1)]
    near = {1: 10, 3: 10}
    assert answers_to([{0: 10, 2: 10}, near, near], clusters) == Answers(exact=1, thresholds=1, searched=1)


def test_near_hits_are_not_looked_for_unless_asked():
    found = answers_to([{0: 10, 2: 10}, {1: 10, 3: 10}], [(0, 0, 1, 1)], near=False)
    assert found == Answers(searched=2)


usages = st.dictionaries(st.integers(0, 5), st.integers(1, 3), min_size=2, max_size=5)


@settings(deadline=None)
@given(st.lists(usages, min_size=1, max_size=25), st.lists(st.integers(0, 2), min_size=6, max_size=6))
def test_with_room_for_all_tiers_are_what_a_plain_search_through_all_finds(requests, clusters):
    layers = [clusters, list(reversed(clusters))]
    expected, plans, thresholds = Answers(), [], set()
    for request in requests:
        marks = {(number, frozenset(_weights(request, layer).items())) for number, layer in enumerate(layers)}
        if request in plans:
            expected.exact += 1
            continue
        containing = [plan for plan in plans if plan.keys() >= request.keys()]
        if containing:
            expected.superset += 1
            expected.same_classes += min(map(len, containing)) == len(request)
        elif marks <= thresholds:
            expected.thresholds += 1
        else:
            expected.searched += 1
            thresholds |= marks
        plans.append(request)
    assert answers_to(requests, layers) == expected


def _weights(request, layer):
    weights = Counter()
    for label, steps in request.items():
        weights[layer[label]] += steps
    return weights


def test_seconds_saved_are_those_not_spent():
    answers = Answers(exact=3, superset=2, thresholds=1, searched=4)
    assert answers.seconds_saved(COSTS_OF_TEST) == 3 * 2.0 + 3 * 1.5
    assert answers.requests == 10


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"near": 3.0}, "no longer than"), ({"near": 0.0}, "above 0"), ({"plan_bytes": ()}, "at least one")],
)
def test_impossible_costs_are_refused(changes, message):
    fields = {"cold": 2.0, "near": 0.5, "plan_bytes": (1000,), "weighted": True}
    with pytest.raises(RequestError, match=message):
        CostModel(**fields | changes)


def test_clusterings_have_the_numbers_asked_for():
    rates = made_up_rates(12)
    assert cluster_numbers(12) == (2, 4, 8, 12)
    found = with_numbers(rates, (2, 4, 12))
    assert [one.counts for one in found] == [[2] * 5, [4] * 5, [12] * 5]
    assert all(np.array_equal(a, b) for a, b in zip(rates, made_up_rates(12), strict=True))
    twins = [np.repeat(np.eye(3, dtype=np.float32), 2, axis=1)]  # six classes, of which two at a time are the same
    assert with_numbers(twins, (6,))[0].counts == [3]


@pytest.fixture(scope="module")
def small_study():
    settings = StudySettings(COSTS["W"], 200, (0,), (0.6, 1.0), (5, 20))
    clusterings = [Clustering("elbow", (np.arange(10, dtype=np.int16) % 4,) * 2)]
    heard = []
    rows = run_study(10, clusterings, settings, lambda *args: heard.append(args))
    return settings, clusterings, rows, heard


def test_each_case_is_a_row(small_study):
    _, _, rows, heard = small_study
    assert [row.row for row in rows] == list(range(1, len(rows) + 1))
    assert len({(r.part, r.scenario, r.zipf, r.clusters, r.sizes, r.plans, r.policy, r.seed) for r in rows}) == len(
        rows
    )
    assert {row.scenario for row in rows} == set(SCENARIOS)
    assert {row.part for row in rows} == {"exact", "tiers", "clusters"}
    for row in rows:
        assert row.exact + row.superset + row.thresholds + row.searched == row.requests == 200
        assert row.cache_bytes == round(row.plans * COSTS["W"].mean_bytes)
    assert heard[-1] == ("done", len(rows), len(rows))
    assert [done for _, done, _ in heard] == list(range(len(rows) + 1))


def test_equal_runs_give_equal_rows(small_study):
    settings, clusterings, rows, _ = small_study
    assert rows_csv(run_study(10, clusterings, settings)) == rows_csv(rows)


def test_belady_is_above_all_policies_in_every_case(small_study):
    rows = [row for row in small_study[2] if row.part == "exact" and row.sizes == "equal"]
    best = {(r.scenario, r.zipf, r.plans, r.seed): r.exact for r in rows if r.policy == "Belady"}
    bound = {(r.scenario, r.zipf, r.plans, r.seed): r.exact for r in rows if r.policy == "bound"}
    for row in rows:
        case = row.scenario, row.zipf, row.plans, row.seed
        assert row.exact <= (bound if row.policy == "bound" else best)[case] <= bound[case]


def test_other_things_at_the_output_stay(tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(FileExistsError, match="no report"), report_folder(tmp_path):
        pass
    with pytest.raises(FileExistsError, match="no folder"), report_folder(tmp_path / "letter.txt"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_an_interrupted_study_leaves_nothing(tmp_path, monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("cloud_pruner.cli.reproduce.run_study", interrupt)
    assert main(["reproduce", "cache", "--quick", "-o", str(tmp_path / "report")]) == 130
    assert capsys.readouterr().err == "capnn: interrupted\n"
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def report(digits_profile, tmp_path_factory):
    """The quick study's report on the digits' profile."""
    folder = tmp_path_factory.mktemp("study") / "report"
    assert main(["reproduce", "cache", str(digits_profile.folder), "--quick", "-o", str(folder), "--seed", "3"]) == 0
    return folder


def test_every_figure_is_the_mean_of_its_rows(report, digits_profile):
    with (report / "rows.csv").open(newline="") as file:
        rows = {int(line["row"]): line for line in csv.DictReader(file)}
    fields = json.loads((report / "summary.json").read_text())
    assert fields["source"]["digest"] == digits_profile.digest
    assert fields["clusters"]["elbow"] == [len(np.unique(layer.clusters)) for layer in digits_profile.layers]
    for policy, scenarios in fields["saved"].items():
        for scenario, figure in scenarios.items():
            mine = [rows[number] for number in figure["rows"]]
            assert {(r["part"], r["policy"], r["scenario"]) for r in mine} == {("tiers", policy, scenario)}
            assert figure["mean"] == pytest.approx(fmean(float(row["saved"]) for row in mine))
            assert {int(row["seed"]) for row in mine} == {3}
    for policy, tiers in fields["tiers"].items():
        for tier, figure in tiers.items():
            (row,) = (rows[number] for number in figure["rows"])
            assert (row["policy"], row["scenario"]) == (policy, "steady")
            assert figure["mean"] == pytest.approx(int(row[tier]) / int(row["requests"]))


def test_the_page_shows_every_plot_and_names_its_rows(report):
    page = (report / "report.html").read_text()
    shown = re.findall(r'<img src="([^"]+)"', page)
    assert sorted(shown) == sorted(path.name for path in report.glob("*.png"))
    assert len(shown) == 4
    for name in shown:
        with Image.open(report / name) as image:
            assert (image.format, min(image.size) > 300) == ("PNG", True)
    figure = json.loads((report / "summary.json").read_text())["saved"]["LRU"]["steady"]
    assert f'<td>{100 * figure["mean"]:.1f}<span class="rows">{figure["rows"][0]}</span></td>' in page
    assert "made up" not in page.split("<h2>")[0].replace("made-up requests", "")


def test_without_a_profile_it_says_so(tmp_path, capsys):
    folder = tmp_path / "report"
    command = [
        "reproduce",
        "cache",
        "--quick",
        "--method",
        "W",
        "--entry-bytes",
        "500,700",
        "-o",
        str(folder),
        "--json",
    ]
    assert main(command) == 0
    fields = json.loads(capsys.readouterr().out)
    assert fields["source"]["made_up"] is True
    assert fields["settings"]["costs"]["plan_bytes"] == [500, 700]
    assert fields["cache_bytes"] == 100 * 600
    assert "no profile was given" in (folder / "report.html").read_text()
    assert fields == json.loads((folder / "summary.json").read_text()) | {"report": str(folder)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--seed", "-1"], "seed is -1"),
        (["--cold-seconds", "0.1"], "no longer than the cold one"),
        (["--entry-bytes", "0"], "above 0"),
        (["nowhere"], "no profile there"),
    ],
)
def test_bad_input_gets_one_line(options, message, tmp_path, capsys):
    assert main(["reproduce", "cache", "--quick", "-o", str(tmp_path / "report"), *options]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert message in line
    assert list(tmp_path.iterdir()) == []


def test_wrong_usage_is_told(capsys):
    for options in (["--entry-bytes", "many"], ["--method", "Q"], ["nothing", "else"]):
        with pytest.raises(SystemExit) as stopped:
            main(["reproduce", "cache", *options])
        assert stopped.value.code == 2
    assert "write 2000 or 2000,90000" in capsys.readouterr().err


def test_means_are_shares_of_requests_for_counts(small_study):
    row = next(row for row in small_study[2] if row.part == "tiers" and row.superset)
    assert mean_of([row], "superset") == row.superset / 200
    assert mean_of([row], "saved") == row.saved
