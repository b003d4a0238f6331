"""Figure 5 of CAP'NN: top-1 and top-5 accuracy of the cuts of figure 4, beside the network that was cut."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

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
from benchmarks.experiments.plots import as_plot, finish, interval, legend_below, look, room_for
from benchmarks.experiments.section import Section, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from benchmarks.experiments.configurations import Configurations
    from benchmarks.experiments.lab import Lab
    from benchmarks.experiments.section import Entry, Plot

__all__ = ["NAME", "TITLE", "run"]

NAME: Final = "figure-5"
TITLE: Final = "Accuracy of the cuts by K and usage"

# CAP'NN, section V.A, of M: top-1 "up to", top-5 "on average", in points.
_PAPER_TOP1: Final = {2: 10.0, 5: 5.6}
_PAPER_TOP5: Final = {2: 7.3, 5: 4.8}


def run(lab: Lab) -> Section:
    """Measure the 24 configurations, or take them from figure 4."""
    network, rows = network_of(lab), configuration_rows(lab)
    return Section(
        NAME,
        TITLE,
        "CAP'NN (DAC 2020), figure 5 and section V.A",
        f"{network.note} The cuts of figure 4 ({lab.users(SETS)} sets of classes a K), on images that neither "
        "training nor search has seen, over all outputs. Each class of a set counts alike, whatever its usage.",
        (_gains(rows), _plot(rows), _accuracies(rows, "top1", "Top-1"), _accuracies(rows, "top5", "Top-5")),
        _differences(rows),
    )


def _gains(rows: Configurations) -> Table:
    lines: list[tuple[Entry, ...]] = []
    for k in DISTRIBUTIONS:
        for method in METHODS:
            mine = of_k(rows, k, method)
            top1, top5 = (
                f"+{printed[k]}" if method == "M" and k in printed else "" for printed in (_PAPER_TOP1, _PAPER_TOP5)
            )
            lines.append(
                (
                    f"{k}, {method}",
                    mean_cell(mine, "gain", factor=100, digits=1, interval=True),
                    mean_cell(mine, "gain", statistic="max", factor=100, digits=1),
                    Paper(f"up to {top1}") if top1 else "",
                    mean_cell(mine, "top5_gain", factor=100, digits=1, interval=True),
                    Paper(top5) if top5 else "",
                    mean_cell(mine, "worst_loss", statistic="max", factor=100, digits=1),
                    mean_cell(mine, "beyond_share", factor=100, digits=1),
                )
            )
    columns = (
        "K, method", "top-1 gain, mean", "largest", "paper", "top-5 gain, mean", "paper", "largest loss of a class",
        "% of classes beyond epsilon",
    )  # fmt: skip
    return Table("Accuracy gained (points; negative where it is lost)", columns, tuple(lines))


def _accuracies(rows: Configurations, column: str, name: str) -> Table:
    lines: tuple[tuple[Entry, ...], ...] = tuple(
        (
            f"{k}: {distribution_name(distribution)}",
            mean_cell(rows[k, distribution, "L"], f"base_{column}", factor=100, digits=1),
            *(mean_cell(rows[k, distribution, method], column, factor=100, digits=1) for method in METHODS),
        )
        for k, distributions in DISTRIBUTIONS.items()
        for distribution in distributions
    )
    return Table(f"{name} accuracy in %, mean over sets of classes", ("K, usage in %", "base", *METHODS), lines)


def _plot(rows: Configurations) -> Plot:
    def draw(figure: Figure) -> None:
        grid = figure.subplots(2, len(DISTRIBUTIONS), sharey="row", sharex="col")
        for line, column, name in ((grid[0], "top1", "top-1 (%)"), (grid[1], "top5", "top-5 (%)")):
            drawn: list[float] = []
            for axes, (k, distributions) in zip(line, DISTRIBUTIONS.items(), strict=True):
                places = range(len(distributions))
                base = [interval(rows[k, one, "L"], f"base_{column}", 100)[0] for one in distributions]
                axes.plot(places, base, color="#555555", linewidth=1.2, linestyle=":", label="base")
                for method in METHODS:
                    means = [interval(rows[k, one, method], column, 100) for one in distributions]
                    drawn += [mean for mean, _ in means]
                    axes.errorbar(
                        places,
                        [m for m, _ in means],
                        yerr=[h for _, h in means],
                        capsize=2,
                        elinewidth=0.7,
                        **look(method),
                    )
                drawn += base
                finish(axes, "", name if k == min(DISTRIBUTIONS) else "")
                if column == "top1":
                    axes.set_title(f"K = {k}")
                axes.set_xticks(places, [distribution_name(one) for one in distributions], rotation=55, ha="right")
            room_for(line[0], drawn, 101)
        legend_below(figure, grid[0][0])

    return as_plot(
        NAME,
        draw,
        "Accuracy of base and cuts on the user's classes. Bars: 95 % intervals over sets of classes.",
        "Lines of top-1 and top-5 accuracy over usage distributions for base, B, W, M and L, for K = 2 to 5",
        width=11.5,
        height=5.8,
    )


def _differences(rows: Configurations) -> tuple[str, ...]:
    found = [
        (
            "With 10 classes the five best answers are half of all: top-5 is near its end before anything is pruned. "
            "The paper's gains in top-5 cannot be had on CIFAR-10."
        )
    ]
    for k, paper in _PAPER_TOP1.items():
        mine = of_k(rows, k, "M")
        mean, most = 100 * mean_over(mine, "gain"), 100 * max(cast("float", row["gain"]) for row in mine)
        found.append(
            f"At K = {k} M changes top-1 by {mean:+.1f} points on average and by {most:+.1f} at most (paper: up to "
            f"+{paper}): "
            + (
                "units that work for wrong classes are there too."
                if most >= paper
                else "what M can win is what the base mistakes for other classes, which are fewer here."
            )
        )
    shares = {
        f"{method} at K = {k}": mean_over(of_k(rows, k, method), "beyond_share") for method in METHODS for k in (2, 5)
    }
    lost = [f"{100 * share:.0f} % of the classes with {name}" for name, share in shares.items() if share > 0]
    if lost:
        found.append(
            "The paper reports no loss beyond epsilon. On images that the search has not seen, some classes lose "
            f"more than 3 %: {', '.join(lost)}. Epsilon was met on the images of the search only, which is what "
            "certification is for."
        )
    return tuple(found)
