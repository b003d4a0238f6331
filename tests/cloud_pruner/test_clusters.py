"""Classes that fire units alike are found, in the same clusters every time, and drawn so that people can see them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from cloud_pruner.cli import main
from cloud_pruner.cluster_plot import cluster_plot
from cloud_pruner.clusters import MOST_CLUSTERS, cluster_classes, elbow
from cloud_pruner.profile import Profile
from cloud_pruner.profiling import ProfileSettings, build_profile
from tests.support.digits import CLASSES, PREPROCESSING


@pytest.mark.parametrize(
    ("inertia", "chosen"),
    [
        ([10, 6, 3, 2, 1, 0], 3),  # the chord: 10, 8, 6, 4, 2, 0; below it by 0, 2, 3, 2, 1, 0
        ([9, 3, 2, 1, 0], 2),  # 9, 6.75, 4.5, 2.25, 0; 0, 3.75, 2.5, 1.25, 0
        ([100, 90, 20, 15, 12], 3),  # it need not end at 0: 100, 78, 56, 34, 12; 0, -12, 36, 19, 0
        ([8, 6, 4, 2, 0], 5),  # a line has no elbow
        ([0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1], 7),  # nor has one with rounding errors
        ([5, 0], 2),
        ([0], 1),
    ],
)
def test_the_elbow_is_farthest_below_the_chord(inertia, chosen):
    assert elbow(np.array(inertia, np.float64)) == chosen


def planted(rng, groups, each, units=40):
    """Return firing rates of classes in shuffled groups, and the group of each class."""
    centres = rng.uniform(0.1, 0.9, (units, groups))
    truth = rng.permutation(np.repeat(np.arange(groups), each))
    return (centres[:, truth] + rng.normal(0, 0.01, (units, len(truth)))).astype(np.float32), truth


@pytest.mark.parametrize(("groups", "each"), [(2, 5), (4, 5), (7, 15)])
def test_planted_clusters_are_found(groups, each):
    rates, truth = planted(np.random.default_rng(groups), groups, each)
    found = cluster_classes(rates)
    assert found.labels.dtype == np.int16
    # Each label goes with one group, and they are as many: the same partition.
    assert len({*zip(found.labels.tolist(), truth.tolist(), strict=True)}) == groups == found.labels.max() + 1
    assert list(dict.fromkeys(found.labels.tolist())) == list(range(groups))  # in the order of their first classes


def test_inertia_is_the_sum_of_squared_distances_from_the_means():
    rates, _ = planted(np.random.default_rng(0), 3, 4)
    found = cluster_classes(rates)
    columns = rates.T.astype(np.float64)
    expected = sum(
        ((columns[found.labels == cluster] - columns[found.labels == cluster].mean(axis=0)) ** 2).sum()
        for cluster in range(3)
    )
    np.testing.assert_allclose(found.inertia[2], expected, rtol=0.02)  # of rates rounded to 4 decimals
    np.testing.assert_allclose(found.inertia[0], ((columns - columns.mean(axis=0)) ** 2).sum(), rtol=1e-3)
    assert found.inertia.shape == (12,)
    assert found.inertia[-1] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("columns", "labels"),
    [
        ([[0.5, 0.1]], [0]),
        ([[0.5, 0.1], [0.5, 0.1]], [0, 0]),
        ([[0.5, 0.1], [0.5, 0.2]], [0, 1]),
        ([[0.5, 0.1], [0.5, 0.1 + 1e-7]], [0, 0]),  # rounding errors are no difference
        ([[0.0, 0.0]] * 6, [0] * 6),
        ([[0.2, 0.3], [0.9, 0.9]] * 4, [0, 1] * 4),  # fewer distinct columns than classes
        (np.eye(5), [0, 1, 2, 3, 4]),  # all as far from each other: no cluster is worth less than another
    ],
)
@pytest.mark.filterwarnings("error")
def test_few_or_equal_columns(columns, labels):
    found = cluster_classes(np.array(columns, np.float32).T)
    assert found.labels.tolist() == labels
    assert len(found.inertia) == len({tuple(np.round(column, 4)) for column in columns})


def test_never_more_than_asked_for():
    rates = np.eye(50, dtype=np.float32)
    assert cluster_classes(rates).labels.max() + 1 == len(cluster_classes(rates).inertia) == MOST_CLUSTERS
    assert cluster_classes(rates, most=3).inertia.shape == (3,)
    assert not cluster_classes(rates, most=1).labels.any()


@pytest.mark.parametrize(
    ("rates", "most"), [(np.zeros((3, 0)), 5), (np.full((3, 2), np.nan), 5), (np.zeros((3, 2)), 0)]
)
def test_what_cannot_be_grouped(rates, most):
    with pytest.raises(ValueError, match=r"cannot group the classes of rates of shape \(3, \d\) into up to \d clust"):
        cluster_classes(rates.astype(np.float32), most=most)


def test_a_profile_keeps_the_clusters_of_its_rates(digits_profile):
    for layer in Profile.open(digits_profile.folder).layers:
        found = cluster_classes(layer.firing_rates)
        assert layer.clusters.dtype == np.int16
        np.testing.assert_array_equal(layer.clusters, found.labels)
        np.testing.assert_array_equal(layer.inertia, found.inertia)
        assert layer.cluster_count == elbow(layer.inertia) == len(set(layer.clusters.tolist()))
        assert 1 < layer.cluster_count < 10


def test_rates_in_three_bits_are_clustered_as_they_are_stored(digits_network, tmp_path):
    settings = ProfileSettings(depth=3, images={"profile": 30, "select": 20, "certify": 10}, three_bit_rates=True)
    arguments = (digits_network.tflite.read_bytes(), digits_network.unseen, PREPROCESSING, tmp_path / "p")
    said = []
    profile = build_profile(*arguments, settings=settings, progress=lambda *told: said.append(told))
    for layer in profile.layers:
        np.testing.assert_array_equal(layer.clusters, cluster_classes(layer.firing_rates).labels)
    assert [told for told in said if told[0] == "class clusters"] == [("class clusters", n, 2) for n in range(2)]


def test_other_numbers_of_threads_give_the_same(digits_profile):
    script = (
        "import sys, numpy as np\n"
        "from cloud_pruner.clusters import cluster_classes\n"
        "found = cluster_classes(np.load(sys.argv[1]))\n"
        "print(*found.labels, found.inertia.tobytes().hex())\n"
    )
    rates = str(digits_profile.folder / "firing_rates_3.npy")
    threads = {"OMP_NUM_THREADS": "3", "OPENBLAS_NUM_THREADS": "3"}
    done = subprocess.run(
        [sys.executable, "-c", script, rates], capture_output=True, text=True, check=True, env=os.environ | threads
    )
    *labels, inertia = done.stdout.split()
    layer = digits_profile.layers[3]
    assert list(map(int, labels)) == layer.clusters.tolist()
    assert inertia == layer.inertia.tobytes().hex()


def test_opening_a_profile_does_without_scikit_learn(digits_profile):
    script = "import sys; from cloud_pruner import Profile; Profile.open(sys.argv[1]); print(*sys.modules)"
    command = [sys.executable, "-c", script, str(digits_profile.folder)]
    modules = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert "numpy" in modules
    assert "sklearn" not in modules


class TestPlot:
    def test_the_command_draws_it_and_says_how_many(self, digits_network, tmp_path, capsys):
        data, picture = tmp_path / "data.npz", tmp_path / "clusters.png"
        images = digits_network.unseen
        np.savez(data, x=images.pixels, y=images.labels, classes=np.array(images.classes))
        command = ["profile", digits_network.tflite, "--data", data, "-o", tmp_path / "p", "--channels", "grey"]
        assert main([*map(str, command), "--plot", str(picture), "--json"]) == 0
        layers = json.loads(capsys.readouterr().out)["layers"]
        profile = Profile.open(tmp_path / "p")
        assert [layer["class_clusters"] for layer in layers] == [layer.cluster_count for layer in profile.layers]
        with Image.open(picture) as image:
            assert image.format == "PNG"
            assert image.size == (1800, 1050)  # two rows of two layers
            assert len(image.convert("RGB").getcolors(1 << 24)) > 100

    def test_names_of_classes_hide_nothing_and_stay_inside(self, digits_profile):
        figure = cluster_plot(digits_profile.layers, CLASSES)
        figure.draw_without_rendering()
        for part, layer in zip(figure.subfigs, digits_profile.layers, strict=True):
            curve, place = part.axes
            assert f"k = {layer.cluster_count}" in {text.get_text() for text in curve.texts}
            np.testing.assert_array_equal(curve.lines[0].get_ydata(), layer.inertia)
            boxes = [text.get_window_extent() for text in place.texts]
            assert {text.get_text() for text in place.texts} == set(CLASSES)  # ten have room
            for number, box in enumerate(boxes):
                assert place.get_window_extent().contains(box.x0, box.y0)
                assert place.get_window_extent().contains(box.x1, box.y1)
                assert not box.count_overlaps(boxes[number + 1 :])
            dots = [line for line in place.lines if line.get_marker() != "None"]
            assert len({(dot.get_color(), dot.get_marker()) for dot in dots}) == layer.cluster_count
            points = place.transData.transform(np.concatenate([dot.get_xydata() for dot in dots]))
            assert len(points) == 10
            assert not any(box.contains(x, y) for box in boxes for x, y in points)

    def test_a_crowd_leaves_names_out(self, digits_profile):
        rates = np.random.default_rng(0).random((8, 400), np.float32)
        figure = cluster_plot([with_rates(digits_profile.layers[0], rates)], [f"class {n}" for n in range(400)])
        assert 20 < len(figure.subfigs[0].axes[1].texts) < 400

    @pytest.mark.parametrize("rates", [np.full((5, 1), 0.3), np.eye(3)[:, :2], np.full((4, 6), 0.5), np.eye(1, 4)])
    @pytest.mark.filterwarnings("error")
    def test_few_or_equal_classes_or_one_unit(self, digits_profile, tmp_path, rates):
        layer = with_rates(digits_profile.layers[0], rates.astype(np.float32))
        figure = cluster_plot([layer], ["$x", "[b]", "c", "d", "e", "f"][: rates.shape[1]])
        figure.savefig(tmp_path / "plot.png")
        with Image.open(tmp_path / "plot.png") as image:
            assert image.size == (900, 550)

    @pytest.mark.parametrize(
        ("picture", "message"), [("nowhere/x.png", "nowhere: Not a directory"), ("x.jpg", "does not end in .png")]
    )
    def test_a_wrong_place_is_known_before_the_work(self, digits_network, tmp_path, capsys, picture, message):
        command = ["profile", digits_network.tflite, "--data", "nothing", "-o", tmp_path / "p"]
        try:
            code = main([*map(str, command), "--plot", str(tmp_path / picture)])
        except SystemExit as end:
            code = end.code
        assert code == (2 if picture == "x.jpg" else 1)
        assert message in capsys.readouterr().err
        assert os.listdir(tmp_path) == []

    def test_plotting_without_matplotlib(self, digits_network, tmp_path, capsys, monkeypatch):
        monkeypatch.setitem(sys.modules, "matplotlib", None)
        monkeypatch.delitem(sys.modules, "cloud_pruner.cluster_plot")
        command = ["profile", digits_network.tflite, "--data", "nothing", "-o", tmp_path / "p"]
        assert main([*map(str, command), "--plot", str(tmp_path / "x.png")]) == 1
        assert "pip install 'capnn[plots]'" in capsys.readouterr().err


def with_rates(layer, rates):
    found = cluster_classes(rates)
    return replace(layer, units=len(rates), firing_rates=rates, clusters=found.labels, inertia=found.inertia)
