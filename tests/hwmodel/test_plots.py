"""What the plots draw. That they are readable was looked at; that they draw the figures is tested."""

from __future__ import annotations

from dataclasses import replace

import pytest
from matplotlib.patches import Rectangle

from benchmarks.networks.shapes_only import vgg16_workload
from hwmodel import DAC20, EDGE_TPU_LIKE, Sweep, Workload, convolution, dense, estimate_workload
from hwmodel.plots import energy_plot, roofline_plot, sweep_plot, write_plots


@pytest.fixture(scope="module")
def models():
    return [estimate_workload(vgg16_workload()), estimate_workload(vgg16_workload(kept=0.5))]


def bars(axes):
    return [patch for patch in axes.patches if isinstance(patch, Rectangle) and patch.get_width() > 0]


def test_bars_add_up_to_the_energy(models):
    whole, each = energy_plot(models).axes
    lengths = sum(bar.get_width() for bar in bars(whole))
    assert lengths == pytest.approx(sum(model.energy.millijoules for model in models))
    assert whole.get_xlabel() == "energy of one inference (mJ)"
    layers = sum(bar.get_width() for bar in bars(each))
    assert layers == pytest.approx(lengths, rel=1e-3)  # what is not shown is next to nothing
    names = [label.get_text() for label in each.get_yticklabels()]
    assert names[0] == "conv1_1"
    assert names[-1] == "fc8"
    assert "5 others not shown" in each.get_title(loc="left")


def test_the_roofline_has_a_point_for_each_layer_under_the_roof(models):
    (axes,) = roofline_plot(models).axes
    roof, *points = [line for line in axes.lines if len(line.get_xdata())]
    points = [line for line in points if len(line.get_xdata()) == 1]
    assert len(points) == 2 * 16
    peak = 2 * 256 * 256 * 700e6
    assert max(roof.get_ydata()) == pytest.approx(peak)
    for point in points:
        (intensity,), (performance,) = point.get_xdata(), point.get_ydata()
        assert performance <= min(peak, intensity * 34e9) * (1 + 1e-9)
    assert "operations per byte" in axes.get_xlabel()
    assert "operations/s" in axes.get_ylabel()


def test_layers_without_dram_traffic_stand_apart():
    network = Workload((convolution("c", (16, 16, 8), 8), dense("d", 2048, 10)))
    (axes,) = roofline_plot([estimate_workload(network, EDGE_TPU_LIKE)]).axes
    assert "no DRAM traffic" in [text.get_text() for text in axes.texts]


def test_a_sweep_has_a_line_for_each_model():
    plan = Sweep.parse("rows,columns=16..64")
    steps = [
        [estimate_workload(vgg16_workload(kept=kept), one) for kept in (1, 0.5)] for one in plan.accelerators(DAC20)
    ]
    figure = sweep_plot(plan, steps)
    energy, time, use = figure.axes
    assert [axes.get_ylabel() for axes in (energy, time, use)] == ["energy (mJ)", "time (ms)", "array utilisation"]
    assert list(energy.lines[1].get_ydata()) == pytest.approx([step[1].energy.millijoules for step in steps])
    assert list(time.lines[0].get_ydata()) == pytest.approx([step[0].time_s * 1e3 for step in steps])
    assert {axes.get_xlabel() for axes in figure.axes} == {"rows, columns"}


def test_without_a_clock_there_is_no_roofline_and_a_sweep_shows_cycles(tmp_path):
    accelerator = replace(DAC20, clock_mhz=None)
    network = Workload((convolution("c", (16, 16, 8), 8),))
    plan = Sweep.parse("rows=16..32")
    steps = [[estimate_workload(network, one)] for one in plan.accelerators(accelerator)]
    paths = write_plots(tmp_path, [estimate_workload(network, accelerator)], plan, steps)
    assert [path.name for path in paths] == ["energy.png", "sweep.png"]
    assert sweep_plot(plan, steps).axes[1].get_ylabel() == "cycles"


def test_a_model_that_costs_nothing_can_be_drawn(tmp_path):
    assert len(write_plots(tmp_path, [estimate_workload(Workload(()))])) == 2
