"""Figure 4 of CAP'NN: how large cuts are, by K and by how often each class comes up, for B, W, M and ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from benchmarks.experiments.cells import Paper, mean_cell, mean_over
from benchmarks.experiments.configurations import (
    DISTRIBUTIONS,
    METHODS,
    SETS,
    configuration_rows,
    distribution_name,
    network_of,
    of_k,
)
from benchmarks.experiments.plots import as_plot, bar_look, finish, interval, legend_below
from benchmarks.experiments.section import Section, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from benchmarks.experiments.configurations import Configurations
    from benchmarks.experiments.lab import Lab
    from benchmarks.experiments.section import Plot

__all__ = ["NAME", "TITLE", "run"]

NAME: Final = "figure-4"
TITLE: Final = "Size of the cuts by K and usage"

# CAP'NN, section V.A: the only sizes of figure 4 that are printed.
_PAPER_K5: Final = {"B": 0.66, "W": 0.30, "M": 0.29}


def run(lab: Lab) -> Section:
    """Measure the 24 configurations."""
    network, rows = network_of(lab), configuration_rows(lab)
    configurations = Table(
        "Relative size (parameters of cut / base), mean over sets of classes",
        ("K, usage in %", *METHODS),
        tuple(
            (
                f"{k}: {distribution_name(distribution)}",
                *(mean_cell(rows[k, distribution, method], "relative_size", interval=True) for method in METHODS),
            )
            for k, distributions in DISTRIBUTIONS.items()
            for distribution in distributions
        ),
    )
    by_k = Table(
        "Relative size, mean over all usage distributions, beside the paper's where it prints one",
        ("K", *METHODS, *(f"{method}, paper" for method in _PAPER_K5)),
        tuple(
            (
                str(k),
                *(mean_cell(of_k(rows, k, method), "relative_size", interval=True) for method in METHODS),
                *(Paper(f"{size:.2f}") if k == 5 else "" for size in _PAPER_K5.values()),
            )
            for k in DISTRIBUTIONS
        ),
    )
    return Section(
        NAME,
        TITLE,
        "CAP'NN (DAC 2020), figure 4",
        f"{network.note} For each K, {lab.users(SETS)} sets of classes at random, the same for all methods and "
        "distributions of usage. B, W and M prune the last six layers as in the paper, L all layers; epsilon is 3 %, "
        "measured on the images of the search, as in the paper. B and L do not look at usage.",
        (by_k, _plot(rows), configurations),
        _differences(rows),
    )


def _plot(rows: Configurations) -> Plot:
    def draw(figure: Figure) -> None:
        panels = figure.subplots(1, len(DISTRIBUTIONS), sharey=True)
        width = 0.8 / len(METHODS)
        for axes, (k, distributions) in zip(panels, DISTRIBUTIONS.items(), strict=True):
            for number, method in enumerate(METHODS):
                means = [interval(rows[k, distribution, method], "relative_size") for distribution in distributions]
                axes.bar(
                    np.arange(len(distributions)) + (number - (len(METHODS) - 1) / 2) * width,
                    [mean for mean, _ in means],
                    width,
                    yerr=[half for _, half in means],
                    error_kw={"elinewidth": 0.7, "ecolor": "#555555"},
                    **bar_look(method),
                )
            axes.set_title(f"K = {k}")
            axes.set_xticks(
                range(len(distributions)), [distribution_name(one) for one in distributions], rotation=55, ha="right"
            )
            finish(axes, "", "parameters, relative to the base" if k == min(DISTRIBUTIONS) else "")
            axes.set_ylim(0, 1.02)
        legend_below(figure, panels[0])

    return as_plot(
        NAME,
        draw,
        "Relative size for each K and usage distribution. Bars: 95 % intervals over sets of classes.",
        "Bars of relative size for methods B, W, M and L, in four panels for K = 2 to 5, six usage distributions each",
        width=11.5,
    )


def _differences(rows: Configurations) -> tuple[str, ...]:
    found = [
        (
            "The network and the images are other ones: a VGG-16 of reduced width, whose layers have less to spare, on "
            "CIFAR-10, of whose 10 classes K are a far larger part than of 1000. The labels of the paper's axis cannot "
            "be read: the six distributions a K are ours, from all alike to one class above all."
        )
    ]

    def size(k: int, method: str) -> float:
        return mean_over(of_k(rows, k, method), "relative_size")

    for method, paper in _PAPER_K5.items():
        ours = size(5, method)
        if abs(ours - paper) > 0.05:
            found.append(
                f"At K = 5 {method} keeps {ours:.2f} where the paper has {paper:.2f}: here that is half of all "
                "classes, there one in two hundred, and a unit that fires for none of them is "
                + ("rarer." if ours > paper else "more common.")
            )
    smaller = [k for k in DISTRIBUTIONS if size(k, "L") < min(size(k, method) for method in "BWM")]
    found.append(
        f"L, which is not the paper's, is the smallest at K = {', '.join(map(str, smaller))}."
        if smaller
        else "L, which is not the paper's, is nowhere the smallest."
    )
    return tuple(found)
