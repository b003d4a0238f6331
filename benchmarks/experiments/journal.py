"""The journal version's claim (TECS 2022): three networks, how much smaller cuts are, and what accuracy they gain."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

import numpy as np

from benchmarks.experiments.cells import Paper, mean_cell, mean_over
from benchmarks.experiments.plots import as_plot, bar_look, finish, interval, legend_below, room_for
from benchmarks.experiments.section import Section, Table
from benchmarks.experiments.store import select
from benchmarks.experiments.wishes import CUTS, Wish, users, usual_depth

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from benchmarks.experiments.lab import Lab
    from benchmarks.experiments.plots import MethodLook
    from benchmarks.experiments.section import Entry, Plot
    from benchmarks.experiments.store import Row
    from benchmarks.experiments.wishes import Guarantee
    from benchmarks.networks.reference import Reference

__all__ = ["NAME", "TITLE", "run"]

NAME: Final = "journal"
TITLE: Final = "Three networks: ours against CAP'NN"

_KINDS: Final = (("vgg16", "vgg16-half"), ("alexnet",), ("resnet152", "resnet56"))
"""A VGG-16, an AlexNet and a deep residual network: of each the first that is there."""

_LINES: Final[dict[str, tuple[str, Guarantee]]] = {
    "M": ("M", "empirical"),
    "L": ("L", "empirical"),
    "L, certified": ("L", "certified"),
}
"""What a line or bar is called -> method, and what its cuts keep to; a quick run leaves out the last."""

_SIZES: Final = {True: (2, 5), False: (2, 3, 4, 5)}
_USERS: Final = {True: 3, False: 50}
_ALL: Final = "All networks"

# TECS 2022, abstract: M "on average, up to" these, over the three networks.
_PAPER: Final = {"reduction": 0.47, "gain": 0.039, "top5_gain": 0.034}


def run(lab: Lab) -> Section:
    """Measure M and L on each network."""
    networks = _networks(lab)
    rows: dict[str, list[Row]] = {}
    for network in networks:
        classes = lab.profile(network.name).classes
        wishes = [
            Wish(network.name, method, *user, guarantee=guarantee, depth=usual_depth(method))
            for k in _SIZES[lab.quick]
            for method, guarantee in list(_LINES.values())[: 2 if lab.quick else 3]
            for user in users(classes, k, lab.users(_USERS), lab.seed)
        ]
        rows[network.title] = lab.measure(wishes, CUTS)
    every = [row for mine in rows.values() for row in mine]
    tables = [_table(title, mine) for title, mine in rows.items()]
    return Section(
        NAME,
        TITLE,
        "CAP'NN's journal version (ACM TECS 2022), abstract",
        f"{' '.join(network.note for network in networks)} {lab.users(_USERS)} users for each network and K, every "
        "other one with equal usage. M prunes the last six weight layers, L all; epsilon is 3 %, measured on the "
        "images of the search, and where it says so shown on others with a probability of 90 %. Accuracies are on "
        "images that neither training nor search has seen; intervals are at 95 %, over users.",
        (_table(_ALL, every), _plot(rows), *tables),
        _differences(rows, every),
    )


def _networks(lab: Lab) -> list[Reference]:
    there = {network.name: network for network in lab.references(*(name for kind in _KINDS for name in kind))}
    return [there[next(name for name in kind if name in there)] for kind in _KINDS if there.keys() & set(kind)]


def _table(title: str, rows: list[Row]) -> Table:
    lines: list[tuple[Entry, ...]] = []
    for k in _sizes(rows):
        for name in _lines(rows):
            mine = _of(rows, k, name)
            lines.append(
                (
                    f"{k}, {name}",
                    mean_cell(mine, "relative_size", interval=True),
                    mean_cell(mine, "reduction", factor=100, digits=0),
                    mean_cell(mine, "relative_energy", interval=True),
                    mean_cell(mine, "gain", factor=100, digits=1, interval=True),
                    mean_cell(mine, "top5_gain", factor=100, digits=1, interval=True),
                    mean_cell(mine, "beyond_share", factor=100, digits=1),
                )
            )
    if title == _ALL:
        gains = (Paper(f"up to +{100 * _PAPER[name]:.1f}") for name in ("gain", "top5_gain"))
        lines.append(("M, paper", "", Paper(f"up to {100 * _PAPER['reduction']:.0f}"), "", *gains, ""))
    columns = (
        "K, method", "size", "reduction in %", "energy", "top-1 gain", "top-5 gain", "% of classes beyond epsilon",
    )  # fmt: skip
    return Table(f"{title}: relative size and energy, accuracy gained in points", columns, tuple(lines))


def _plot(rows: dict[str, list[Row]]) -> Plot:
    sizes, lines = _sizes(next(iter(rows.values()))), _lines(next(iter(rows.values())))
    width = 0.78 / len(lines)

    def draw(figure: Figure) -> None:
        grid = figure.subplots(2, len(rows), sharex=True, sharey="row", squeeze=False)
        drawn: list[float] = []
        for column, (title, mine) in enumerate(rows.items()):
            for axes, name, factor in ((grid[0, column], "relative_size", 1.0), (grid[1, column], "gain", 100.0)):
                for number, line in enumerate(lines):
                    means = [interval(_of(mine, k, line), name, factor) for k in sizes]
                    axes.bar(
                        np.arange(len(sizes)) + (number - (len(lines) - 1) / 2) * width,
                        [m for m, _ in means],
                        width,
                        yerr=[h for _, h in means],
                        error_kw={"elinewidth": 0.8, "ecolor": "#555555"},
                        **_bar_look(line),
                    )
                axes.set_xticks(range(len(sizes)), [f"K = {k}" for k in sizes])
            grid[0, column].set_title(title)
            finish(grid[0, column], "", "parameters, relative" if not column else "")
            finish(grid[1, column], "", "top-1 gained (points)" if not column else "")
            grid[0, column].set_ylim(0, 1.02)
            gains = [interval(_of(mine, k, line), "gain", 100)[0] for k in sizes for line in lines]
            room_for(grid[1, column], [*drawn, *gains])
            drawn += gains
            grid[1, column].axhline(0, color="#888888", linewidth=0.8)
        legend_below(figure, grid[0, 0])

    return as_plot(
        NAME,
        draw,
        "Relative size and top-1 gained for each network and K. Bars: 95 % intervals over users.",
        "Bars for M and L: relative size above, top-1 gained below, one column of panels for each network",
        width=3.6 * len(rows) + 0.6,
        height=5.0,
    )


def _differences(rows: dict[str, list[Row]], every: list[Row]) -> tuple[str, ...]:
    def best(line: str, name: str) -> float:
        return max(mean_over(_of(every, k, line), name) for k in _sizes(every))

    found = [
        (
            f"At the K where it is largest, the mean reduction over the {len(rows)} networks is "
            f"{100 * best('M', 'reduction'):.0f} % for M and {100 * best('L', 'reduction'):.0f} % for L; the paper's M "
            f"has up to {100 * _PAPER['reduction']:.0f} %. Top-1 gains are at most {100 * best('M', 'gain'):+.1f} and "
            f"{100 * best('L', 'gain'):+.1f} points on average (paper: up to +{100 * _PAPER['gain']:.1f}), top-5 "
            f"{100 * best('M', 'top5_gain'):+.1f} and {100 * best('L', 'top5_gain'):+.1f} (paper: up to "
            f"+{100 * _PAPER['top5_gain']:.1f})."
        )
    ]
    if best("L", "gain") < _PAPER["gain"]:
        found.append(
            "L spends the accuracy that it is allowed on size; what it gains comes from what the smaller choice "
            "leaves over. M takes away what works for other classes, and gains more where many classes are confused, "
            "as on ImageNet."
        )
    found.append(
        "The paper's networks are those for ImageNet with 1000 classes; ours are of reduced width, for CIFAR-10. K "
        "of 10 classes keep far more of a network busy than K of 1000."
    )
    return tuple(found)


def _sizes(rows: list[Row]) -> list[int]:
    return sorted({cast("int", row["k"]) for row in rows})


def _lines(rows: list[Row]) -> list[str]:
    there = {(row["method"], row["guarantee"]) for row in rows}
    return [name for name, kind in _LINES.items() if kind in there]


def _of(rows: list[Row], k: int, line: str) -> list[Row]:
    method, guarantee = _LINES[line]
    return select(rows, k=k, method=method, guarantee=guarantee)


def _bar_look(line: str) -> MethodLook:
    method, guarantee = _LINES[line]
    return bar_look(method) | {"label": line, "alpha": 1.0 if guarantee == "empirical" else 0.5}
