"""Figure 6 of CAP'NN: size and accuracy of M's cuts against K, up to all classes; and of ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from benchmarks.experiments.cells import mean_cell, mean_over
from benchmarks.experiments.plots import as_plot, finish, interval, legend_below, look, room_for
from benchmarks.experiments.section import Section, Table
from benchmarks.experiments.store import select
from benchmarks.experiments.wishes import CUTS, Wish, users, usual_depth

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from benchmarks.experiments.lab import Lab
    from benchmarks.experiments.section import Plot
    from benchmarks.experiments.store import Row

__all__ = ["NAME", "TITLE", "run"]

NAME: Final = "figure-6"
TITLE: Final = "Size and accuracy against the number of classes"

_METHODS: Final = ("M", "L")
_USERS: Final = {True: 3, False: 50}
_SHARES: Final = {
    True: (0.1, 0.2, 0.4, 0.6, 0.8, 1.0),
    False: (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
}


def run(lab: Lab) -> Section:
    """Measure M and L from one class, or two, to all of them."""
    asked = ("vgg16", "vgg16-half") if lab.quick else ("vgg16", "vgg16-half", "vgg-small")
    networks = lab.references(*asked)[: 1 if lab.quick else len(asked)]
    parts: list[Table | Plot] = []
    rows: dict[str, list[Row]] = {}
    for network in networks:
        classes = lab.profile(network.name).classes
        sizes = sorted({round(share * len(classes)) for share in _SHARES[lab.quick]} - {0})
        wishes = [
            Wish(network.name, method, *user, depth=usual_depth(method))
            for k in sizes
            for method in _METHODS
            for user in users(classes, k, lab.users(_USERS), lab.seed)
        ]
        rows[network.name] = lab.measure(wishes, CUTS)
        parts += [
            _plot(network.name, network.title, rows[network.name]),
            _table(network.title, rows[network.name], sizes),
        ]
    return Section(
        NAME,
        TITLE,
        "CAP'NN (DAC 2020), figure 6",
        f"{' '.join(network.note for network in networks)} {lab.users(_USERS)} users for each K, every other one with "
        "equal usage, the others with random usage. M prunes the last six layers, L all; epsilon is 3 %, measured on "
        "the images of the search. Accuracies are on images that neither has seen.",
        tuple(parts),
        _differences(rows),
    )


def _table(title: str, rows: list[Row], sizes: list[int]) -> Table:
    lines = []
    for k in sizes:
        for method in _METHODS:
            mine = select(rows, k=k, method=method)
            lines.append(
                (
                    f"{k}, {method}",
                    mean_cell(mine, "relative_size", interval=True),
                    mean_cell(mine, "relative_energy"),
                    mean_cell(mine, "base_top1", factor=100, digits=1),
                    mean_cell(mine, "top1", factor=100, digits=1),
                    mean_cell(mine, "gain", factor=100, digits=1, interval=True),
                    mean_cell(mine, "top5_gain", factor=100, digits=1),
                    mean_cell(mine, "beyond_share", factor=100, digits=1),
                )
            )
    columns = (
        "K, method", "size", "energy", "base, top-1 %", "top-1 %", "gain", "top-5 gain", "% of classes beyond epsilon",
    )  # fmt: skip
    return Table(f"{title}: relative size and energy, accuracy and its gain in points", columns, tuple(lines))


def _plot(name: str, title: str, rows: list[Row]) -> Plot:
    def draw(figure: Figure) -> None:
        size, accuracy = figure.subplots(1, 2)
        for method in _METHODS:
            mine = select(rows, method=method)
            sizes = sorted({int(row["k"] or 0) for row in mine})
            for axes, column, factor in ((size, "relative_size", 1.0), (accuracy, "top1", 100.0)):
                means = [interval(select(mine, k=k), column, factor) for k in sizes]
                axes.errorbar(
                    sizes, [m for m, _ in means], yerr=[h for _, h in means], capsize=2, elinewidth=0.8, **look(method)
                )
        base = [interval(select(mine, k=k), "base_top1", 100)[0] for k in sizes]
        accuracy.plot(sizes, base, color="#555555", linestyle=":", label="base")
        finish(size, "K (classes of the user)", "parameters, relative to the base")
        finish(accuracy, "K (classes of the user)", "top-1 on the user's classes (%)")
        size.set_ylim(0, 1.05)
        room_for(
            accuracy, [interval(select(rows, k=k, method=one), "top1", 100)[0] for k in sizes for one in _METHODS], 101
        )
        figure.suptitle(title, x=0.01, ha="left", fontsize=10)
        legend_below(figure, accuracy)

    return as_plot(
        f"{NAME}-{name}",
        draw,
        f"{title}: relative size and top-1 accuracy against K. Bars: 95 % intervals over users.",
        "Two panels: relative size against K, and top-1 accuracy against K, for M and L, with the base's accuracy",
    )


def _differences(rows: dict[str, list[Row]]) -> tuple[str, ...]:
    found = []
    for network, mine in rows.items():
        most = max(int(row["k"] or 0) for row in mine)
        at_end = {method: mean_over(select(mine, k=most, method=method), "relative_size") for method in _METHODS}
        found.append(
            f"{network}: with all {most} classes M keeps {at_end['M']:.2f} and L {at_end['L']:.2f}. The paper ends at "
            "100 of 1000 classes, where M keeps 0.90: it is the classes, not their share, that occupy units there."
        )
    return tuple(found)
