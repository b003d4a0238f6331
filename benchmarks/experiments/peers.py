"""All methods at the same epsilon, for the same users: CAP'NN's, ours, and those of other papers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from benchmarks.experiments.cells import mean_cell, mean_over
from benchmarks.experiments.plots import as_plot, finish, interval, legend_below, look, room_for
from benchmarks.experiments.section import Section, Table
from benchmarks.experiments.store import select
from benchmarks.experiments.wishes import CAPTOR, CUTS, LAST_LAYERS, Wish, users
from cloud_pruner.evaluation_sets import RESTRICTED

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from benchmarks.experiments.lab import Lab
    from benchmarks.experiments.section import Plot
    from benchmarks.experiments.store import Row

__all__ = ["NAME", "TITLE", "run"]

NAME: Final = "peers"
TITLE: Final = "All methods at the same epsilon"

_METHODS: Final = ("L", "M", "W", "B", CAPTOR, "OCAP", "Guo-Potkonjak", "L1", "APoZ", "random", RESTRICTED)
_SIZES: Final = {True: (2, 5), False: (2, 3, 5, 8)}
_USERS: Final = {True: 3, False: 50}
_NETWORKS: Final = {
    True: ("vgg16", "vgg16-half"),
    False: ("vgg16", "vgg16-half", "alexnet", "resnet152", "resnet56", "resnet20", "resnet8"),
}


def run(lab: Lab) -> Section:
    """Measure every method on every network."""
    networks = lab.references(*_NETWORKS[lab.quick])
    networks = networks[:1] if lab.quick else networks
    sizes = _SIZES[lab.quick]
    parts: list[Table | Plot] = []
    rows: dict[str, list[Row]] = {}
    for network in networks:
        classes = lab.profile(network.name).classes
        wishes = [
            Wish(network.name, method, *user, depth=depth)
            for k in sizes
            for user in users(classes, k, lab.users(_USERS), lab.seed)
            for method in _METHODS
            for depth in _depths(method)
        ]
        rows[network.title] = mine = lab.measure(wishes, CUTS)
        parts += [_plot(network.name, network.title, mine), _table(network.title, mine, sizes)]
    return Section(
        NAME,
        TITLE,
        "CAP'NN compares with CAPTOR (ASP-DAC 2019) alone; the others are OCAP (Ma et al. 2023), Guo and Potkonjak "
        "(2017), L1 (Li et al. 2017) and APoZ (Hu et al. 2016)",
        f"{' '.join(network.note for network in networks)} {lab.users(_USERS)} users for each K, the same for all "
        "methods, every other one with equal usage. Every method is searched layer by layer, or along its path, for "
        "the most that it can prune with no class losing more than 3 % on the images of the search, without "
        "retraining; so methods differ in what they prune and in what they put in its place, and in nothing else. "
        f"All prune all layers but where it says the last six, the paper's choice for B, W and M. '{RESTRICTED}' "
        "prunes nothing and compares the outputs of the user's classes alone: what it gains, any device gains for "
        "nothing.",
        tuple(parts),
        _differences(rows, sizes),
    )


def _depths(method: str) -> tuple[int | None, ...]:
    if method == "B":
        return (LAST_LAYERS,)  # of all layers its offline part, for each class, takes longer than all the rest
    return (LAST_LAYERS, None) if method in ("W", "M") else (None,)


def _kinds(rows: list[Row]) -> dict[str, tuple[str, int | None]]:
    """Return the name of a line -> its method and depth."""
    pairs = {(str(row["method"]), row["depth"]) for row in rows}
    return {
        (f"{method}, last six layers" if depth else method): (method, depth)
        for method in _METHODS
        for depth in (None, LAST_LAYERS)
        if (method, depth) in pairs
    }


def _table(title: str, rows: list[Row], sizes: tuple[int, ...]) -> Table:
    lines = []
    for k in sizes:
        for name, (method, depth) in _kinds(rows).items():
            mine = select(rows, k=k, method=method, depth=depth)
            lines.append(
                (
                    f"{k}, {name}",
                    mean_cell(mine, "relative_size", interval=True),
                    mean_cell(mine, "relative_energy"),
                    mean_cell(mine, "gain", factor=100, digits=1, interval=True),
                    mean_cell(mine, "top5_gain", factor=100, digits=1),
                    mean_cell(mine, "beyond_share", factor=100, digits=1),
                    mean_cell(mine, "worst_loss", factor=100, digits=1),
                    mean_cell(mine, "seconds", digits=1),
                )
            )
    columns = (
        "K, method", "size", "energy", "top-1 gain", "top-5 gain", "% of classes beyond epsilon", "worst class's loss",
        "search (s)",
    )  # fmt: skip
    return Table(f"{title}: relative size and energy, accuracy gained and lost in points", columns, tuple(lines))


def _plot(name: str, title: str, rows: list[Row]) -> Plot:
    def draw(figure: Figure) -> None:
        sizes = sorted({int(row["k"] or 0) for row in rows})
        panels = figure.subplots(1, len(sizes), sharex=True, sharey=True, squeeze=False)[0]
        gains = [
            interval(select(rows, k=k, method=method, depth=depth), "gain", 100)[0]
            for k in sizes
            for method, depth in _kinds(rows).values()
        ]
        for axes, k in zip(panels, sizes, strict=True):
            for label, (method, depth) in _kinds(rows).items():
                mine = select(rows, k=k, method=method, depth=depth)
                size, gain = interval(mine, "relative_size"), interval(mine, "gain", 100)
                style = look(method) | {"label": label, "linestyle": "none", "markersize": 7}
                if depth and method != "B":
                    style["markerfacecolor"] = "none"
                axes.errorbar(size[0], gain[0], xerr=size[1], yerr=gain[1], elinewidth=0.7, capsize=0, **style)
            axes.axhline(0, color="#888888", linewidth=0.8)
            axes.set_title(f"K = {k}")
            axes.set_xlim(0, 1.05)
            room_for(axes, gains)
            finish(axes, "parameters, relative to the base", "top-1 gained (points)" if k == sizes[0] else "")
        figure.suptitle(title, x=0.01, ha="left", fontsize=10)
        legend_below(figure, panels[0])

    return as_plot(
        f"{NAME}-{name}",
        draw,
        f"{title}: accuracy gained against size; further left is smaller, further up better. Bars: 95 % intervals "
        "over users.",
        "Scatter of top-1 gained against relative size, one mark for each method, one panel for each K",
        width=3.6 * max(2, len({row["k"] for row in rows})) + 0.6,
        height=4.4,
    )


def _differences(rows: dict[str, list[Row]], sizes: tuple[int, ...]) -> tuple[str, ...]:
    found = []
    for title, mine in rows.items():
        kinds = {name: one for name, one in _kinds(mine).items() if one[0] != RESTRICTED}
        for k in sizes:
            means = {
                name: mean_over(select(mine, k=k, method=method, depth=depth), "relative_size")
                for name, (method, depth) in kinds.items()
            }
            first, second = sorted(means, key=means.__getitem__)[:2]
            found.append(
                f"{title}, K = {k}: {first} is the smallest ({means[first]:.2f}), {second} next ({means[second]:.2f})."
            )
    found.append(
        "The other papers retrain, or report other networks: their numbers cannot be put beside these. Each is done "
        "here as its paper orders units, at the same epsilon."
    )
    return tuple(found)
