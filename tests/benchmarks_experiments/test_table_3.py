"""Table III: what is asked for, and what the tables and sentences make of figures that are known."""

from __future__ import annotations

import pytest

from benchmarks.experiments import table_3
from benchmarks.experiments.cells import Cell, Paper
from benchmarks.experiments.lab import Lab, Settings
from benchmarks.experiments.wishes import CUTS, Wish, class_sets, equal_weights
from tests.benchmarks_experiments.digits_lab import DigitsReference, with_profile
from tests.support.digits import CLASSES

FIGURES = {
    "relative_size": 0.4, "relative_bytes": 0.4, "relative_macs": 0.7, "base_top1": 0.85, "top1": 0.86, "gain": 0.01,
    "base_top5": 0.99, "top5": 0.99, "top5_gain": 0.0, "worst_loss": 0.02, "beyond_epsilon": 0, "beyond_share": 0.0,
    "reduction": 0.6, "seconds": 1.0,
}  # fmt: skip


@pytest.fixture
def lab(digits_network, tmp_path):
    work = with_profile(digits_network, tmp_path, ("vgg16",))
    return Lab(
        work, Settings(quick=True, networks=("vgg16",)), references={"vgg16": DigitsReference("vgg16", digits_network)}
    )


def keep(lab, method, depth, guarantee, energy, **more):
    """Put the row of one method's cut for the only set of each K into the store; `energy` is a function of K."""
    for k in range(1, 11):
        (chosen,) = class_sets(CLASSES, k, 1, 0)
        wish = Wish("vgg16", method, chosen, equal_weights(k), guarantee=guarantee, depth=depth)
        certified = True if guarantee == "certified" else None
        figures = FIGURES | {"certified": certified, "relative_energy": energy(k)} | {n: v(k) for n, v in more.items()}
        lab.store.keep(CUTS, wish.key, [wish.fields() | figures])


def keep_all(lab, ours=lambda k: 0.05 * k, certified=lambda _: True):
    keep(lab, "L", None, "certified", ours, certified=certified)
    keep(lab, "M", 6, "empirical", lambda k: 0.3 + 0.07 * k, beyond_epsilon=lambda k: int(k == 10))
    keep(lab, "M", None, "empirical", lambda k: 0.2 + 0.07 * k)
    keep(lab, "CAPTOR", None, "empirical", lambda k: 0.6 + 0.04 * k)


def shown(lab, line):
    return [e.text(lab.store) if isinstance(e, Cell) else e.text if isinstance(e, Paper) else e for e in line]


def test_each_line_has_the_paper_s_figure_and_ours(lab):
    keep_all(lab)
    _, energies, accuracies, losses = table_3.run(lab).parts
    assert len(energies.lines) == 10
    assert shown(lab, energies.lines[0]) == ["10%", "0.36", "0.05", "0.37", "0.27", "0.64", "0.72"]
    assert shown(lab, energies.lines[4]) == ["50%", "0.76", "0.25", "0.65", "0.55", "0.80", "missing"]
    assert shown(lab, energies.lines[9]) == ["100%", "0.96", "0.50", "1.00", "0.90", "1.00", "1.00"]
    assert shown(lab, accuracies.lines[9])[:6] == ["100%", "100", "0.40", "0.70", "85.0", "86.0"]
    # Of 55 classes in ten cuts by M one: Clopper and Pearson's interval of 1 of 55.
    assert shown(lab, losses.lines[0])[:5] == ["L, certified", "10", "55", "0", "0.0"]
    assert shown(lab, losses.lines[1]) == ["M, last six layers", "10", "55", "1", "1.8", "0.0", "9.7"]


def test_the_report_says_whether_ours_is_below_the_paper_s_row(lab):
    keep_all(lab)
    differences = " ".join(table_3.run(lab).differences)
    assert "vgg16: L, certified, takes less than the paper's M at every share, by 0.31 or more." in differences
    assert "could not be certified" not in differences


def test_the_report_says_where_ours_is_above_and_what_was_not_certified(lab):
    keep_all(lab, ours=lambda k: 1.0 if k > 8 else 0.05 * k, certified=lambda k: k <= 8)
    differences = " ".join(table_3.run(lab).differences)
    assert "vgg16: L takes more than the paper's M at 90%, 100% of the classes." in differences
    assert "vgg16: 2 of 10 cuts by L could not be certified" in differences
