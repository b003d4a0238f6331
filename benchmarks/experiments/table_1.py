"""Table I of CAP'NN: the energy constants, and what an inference of M's cuts takes; and of ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from benchmarks.experiments.cells import Paper, mean_cell, mean_over, value_cell
from benchmarks.experiments.configurations import SETS, configuration_rows, network_of, of_k
from benchmarks.experiments.plots import as_plot, finish, interval, legend_below, look, paper_look
from benchmarks.experiments.section import Section, Table
from benchmarks.experiments.store import select
from benchmarks.experiments.wishes import CUTS, Wish, users, usual_depth
from hwmodel import DAC20

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from benchmarks.experiments.lab import Lab
    from benchmarks.experiments.section import Entry, Plot
    from benchmarks.experiments.store import Row

__all__ = ["NAME", "TITLE", "run"]

NAME: Final = "table-1"
TITLE: Final = "Energy of the cuts"

_METHODS: Final = ("M", "L")
_PAPER: Final = {2: 0.33, 3: 0.36, 4: 0.38, 5: 0.42, 10: 0.56}
_COMPONENTS: Final = {
    "16-bit adder": ("add_pj", 0.4),
    "16-bit multiplier": ("multiply_pj", 1.0),
    "max pooling": ("max_pool_pj", 1.2),
    "ReLU": ("relu_pj", 0.9),
    "SRAM access": ("sram_pj", 5.0),
    "DRAM access": ("dram_pj", 640.0),
}
_MOST: Final = 10
_USERS: Final = {True: 3, False: 24}


def run(lab: Lab) -> Section:
    """Take K = 2 to 5 from figure 4's cuts, and measure K = 10."""
    network = network_of(lab)
    configurations = configuration_rows(lab)
    rows = {(k, method): of_k(configurations, k, method) for k in (2, 3, 4, 5) for method in _METHODS}
    classes = lab.profile(network.name).classes
    wishes = [
        Wish(network.name, method, *user, depth=usual_depth(method))
        for method in _METHODS
        for user in users(classes, _MOST, lab.users(_USERS), lab.seed)
    ]
    lab.measure(wishes, CUTS)
    for method in _METHODS:
        rows[_MOST, method] = lab.measure([wish for wish in wishes if wish.method == method], CUTS)
    return Section(
        NAME,
        TITLE,
        "CAP'NN (DAC 2020), Table I",
        f"{network.note} The cuts of figure 4 for K = 2 to 5, {lab.users(SETS)} sets of classes x 6 usage "
        f"distributions, and {lab.users(_USERS)} users of all {_MOST} classes. Energy is of one inference on the "
        "accelerator model dac20, cut / base: multiply-accumulates, SRAM and DRAM accesses by the constants below, "
        "with the equations reconstructed, as the paper's are not public.",
        (_energies(rows), _plot(rows), _constants(lab)),
        _differences(rows),
    )


def _energies(rows: dict[tuple[int, str], list[Row]]) -> Table:
    lines: tuple[tuple[Entry, ...], ...] = tuple(
        (
            str(k),
            Paper(f"{paper:.2f}"),
            *(mean_cell(rows[k, method], "relative_energy", interval=True) for method in _METHODS),
            *(mean_cell(rows[k, method], "relative_size") for method in _METHODS),
            *(mean_cell(rows[k, method], "relative_macs") for method in _METHODS),
        )
        for k, paper in _PAPER.items()
    )
    columns = ("K", "M, paper: energy", "M: energy", "L: energy", "M: size", "L: size", "M: MACs", "L: MACs")
    return Table("Relative energy, mean over users; size and multiply-accumulates of the same cuts", columns, lines)


def _constants(lab: Lab) -> Table:
    def compute() -> list[Row]:
        return [{"component": name, "energy_pj": getattr(DAC20, field)} for name, (field, _) in _COMPONENTS.items()]

    rows = lab.once("energy_constants", DAC20.name, compute)
    lines = tuple(
        (name, Paper(f"{paper:g}"), value_cell(select(rows, component=name)[0], "energy_pj", digits=1))
        for name, (_, paper) in _COMPONENTS.items()
    )
    return Table("Energy of an operation on 16-bit words, in pJ", ("component", "paper", "dac20"), lines)


def _plot(rows: dict[tuple[int, str], list[Row]]) -> Plot:
    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.plot(list(_PAPER), list(_PAPER.values()), **paper_look("M, paper (VGG-16, ImageNet)"))
        for method in _METHODS:
            means = [interval(rows[k, method], "relative_energy") for k in _PAPER]
            axes.errorbar(
                list(_PAPER),
                [m for m, _ in means],
                yerr=[h for _, h in means],
                capsize=2,
                elinewidth=0.8,
                **look(method),
            )
        finish(axes, "K (classes of the user)", "energy of an inference, relative to the base")
        axes.set_ylim(0, 1.05)
        axes.set_xticks(list(_PAPER))
        legend_below(figure, axes)

    return as_plot(
        NAME,
        draw,
        "Relative energy against K. Bars: 95 % intervals over users.",
        "Lines of relative energy against K for M and L, and the paper's M",
        width=6.5,
    )


def _differences(rows: dict[tuple[int, str], list[Row]]) -> tuple[str, ...]:
    means = {key: mean_over(mine, "relative_energy") for key, mine in rows.items()}
    above = [k for k, paper in _PAPER.items() if means[k, "M"] > paper + 0.02]
    below = [k for k, paper in _PAPER.items() if means[k, "L"] <= paper]
    found = []
    if above:
        found.append(
            f"M takes more than the paper's at K = {', '.join(map(str, above))}: at 32 x 32 pixels with few channels "
            "the first seven convolutions, which it leaves whole, have a larger part of the energy than on ImageNet, "
            "and K of 10 classes is a larger part of what the network tells apart than K of 1000."
        )
    found.append(
        f"L is at or below the paper's M at K = {', '.join(map(str, below))}."
        if below
        else "L is nowhere at or below the paper's M, which is of another network and of other images."
    )
    found.append("K = 10 is all classes here, and one in a hundred in the paper.")
    return tuple(found)
