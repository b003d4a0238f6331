"""Table II: networks that were pruned for nobody, and what the table makes of cuts on top of them."""

from __future__ import annotations

import keras
import pytest

from benchmarks.class_unaware.networks import Tuning, make_pruned
from benchmarks.experiments import table_2
from benchmarks.experiments.cells import Cell, Paper
from benchmarks.experiments.lab import Lab, Settings
from benchmarks.experiments.wishes import CUTS, Wish, class_sets, equal_weights
from tests.benchmarks_experiments.digits_lab import DigitsReference, with_profile
from tests.support.digits import CLASSES

FIGURES = {
    "relative_bytes": 0.4, "relative_macs": 0.7, "relative_energy": 0.5, "base_top1": 0.8, "top1": 0.86, "gain": 0.06,
    "base_top5": 0.98, "top5": 0.99, "top5_gain": 0.01, "worst_loss": 0.02, "beyond_epsilon": 0, "beyond_share": 0.0,
    "reduction": 0.6, "seconds": 1.0, "certified": None,
}  # fmt: skip
PRUNED = {"parameters": 94, "base_parameters": 100, "base_top1": 0.85, "cut_top1": 0.6, "top1": 0.84, "gain": -0.01}


@pytest.mark.parametrize("criterion", ["thinet", "reconstruction"])
def test_a_trained_network_is_pruned_and_tuned(digits_network, tmp_path, criterion):
    reference, path = DigitsReference("digits", digits_network), tmp_path / "pruned.keras"
    # Mirrored digits are none: tuning, which mirrors half of its images, is kept short.
    made = make_pruned(reference, criterion, 0.7, path, Tuning(sampled=10, images=45, epochs=1))
    assert 0.6 < made.parameters / made.base_parameters <= 0.7
    assert made.base_top1 > 0.95
    assert made.cut_top1 > made.base_top1 - 0.1
    assert made.top1 > made.base_top1 - 0.1
    saved = keras.models.load_model(path)
    assert saved.count_params() == made.parameters
    assert (saved.get_weights()[-2] != reference.build().get_weights()[-2]).any()  # the outputs' weights, by tuning


@pytest.fixture
def lab(digits_network, tmp_path):
    names = ("vgg16", "vgg16-thinet", "vgg16-reconstruction")
    work = with_profile(digits_network, tmp_path, names)
    lab = Lab(
        work, Settings(quick=True, networks=("vgg16",)), references={"vgg16": DigitsReference("vgg16", digits_network)}
    )
    for name, share in (("vgg16-thinet", 0.94), ("vgg16-reconstruction", 0.9)):
        lab.store.keep("class_unaware", name, [{"network": name, "share": share} | PRUNED])
        for k in (2, 3, 4, 5):
            for number, chosen in enumerate(class_sets(CLASSES, k, 2, 0)):
                for method, depth, size in (("M", 6, 0.4), ("L", None, 0.1)):
                    wish = Wish(name, method, chosen, equal_weights(k), depth=depth)
                    figures = FIGURES | {"relative_size": size + 0.1 * number}
                    lab.store.keep(CUTS, wish.key, [wish.fields() | figures])
    return lab


def shown(lab, line):
    return [e.text(lab.store) if isinstance(e, Cell) else e.text if isinstance(e, Paper) else e for e in line]


def test_sizes_are_relative_to_the_network_that_nobody_pruned(lab):
    starts, thinet, channels, _ = table_2.run(lab).parts
    assert shown(lab, starts.lines[0]) == ["ThiNet", "0.94", "0.94", "85.0", "60.0", "84.0"]
    assert shown(lab, thinet.lines[0])[:6] == ["2, paper (M)", "0.94", "0.21", "68.0 / 88.5", "", "71.4 / 90.8"]
    # 0.4 and 0.5 of 0.94; 0.1 and 0.2 of 0.90.
    assert shown(lab, thinet.lines[1]) == ["2, M", "0.94", "0.42", "80.0", "98.0", "86.0", "99.0", "6.0"]
    assert shown(lab, channels.lines[2])[:3] == ["2, L", "0.90", "0.14"]


def test_the_report_says_who_keeps_more(lab):
    differences = " ".join(table_2.run(lab).differences)
    assert "ThiNet: our network keeps 0.94 of its parameters and loses 1.0 points of top-1" in differences
    assert "ThiNet: M keeps more than the paper's at K = 2, 3, 4, 5" in differences
    assert "channel pruning: L keeps as much as the paper's M or less at K = 2, 3, 4, 5." in differences
