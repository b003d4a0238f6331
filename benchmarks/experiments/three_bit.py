"""Section V.C of CAP'NN: what storing firing rates takes, and whether 3 bits each are enough."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Final, cast

import numpy as np

from benchmarks.experiments.cells import Paper, mean_cell, mean_over, value_cell
from benchmarks.experiments.plots import as_plot, bar_look, finish, interval, legend_below
from benchmarks.experiments.section import Section, Table
from benchmarks.experiments.store import select
from benchmarks.experiments.wishes import LAST_LAYERS, users
from cloud_pruner.evaluation import Evaluator
from cloud_pruner.evaluation_sets import ClassSet
from cloud_pruner.firing_rates import BITS, pack, unpack
from cloud_pruner.methods import METHODS
from cloud_pruner.requests import checked_usage

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from benchmarks.experiments.lab import Lab
    from benchmarks.experiments.section import Plot
    from benchmarks.experiments.store import Row
    from benchmarks.networks.reference import Reference
    from cloud_pruner.profile import Profile

__all__ = ["NAME", "TITLE", "at_three_bits", "overhead_row", "run"]

NAME: Final = "three-bit"
TITLE: Final = "Firing rates in 3 bits"

# CAP'NN, section V.C: three convolutions of 512 channels and two dense layers of 4096 units, 1000 classes; weights of
# 16 bits. The network's parameters are VGG-16's.
_UNITS: Final = (512, 512, 512, 4096, 4096)
_CLASSES: Final = 1000
_PARAMETERS: Final = 138_357_544
_WEIGHT_BYTES: Final = 2

_NETWORKS: Final = (("vgg16", "vgg16-half"), ("alexnet",), ("vgg-small",))
"""Of each the first that is there; a quick run takes the first two."""

_METHODS: Final = ("W", "M")
_RATES: Final = {"32 bits": 32, "3 bits": BITS}
_EPSILON: Final = 0.03
_SIZES: Final = (2, 5)
_USERS: Final = {True: 4, False: 50}
_NOBODY: Final = np.empty(0, np.int64)


def run(lab: Lab) -> Section:
    """Work out the paper's figure, and search W's and M's cuts with either kind of rates."""
    (overhead,) = lab.once("three_bit_overhead", "VGG-16", lambda: [overhead_row()])
    networks = _networks(lab)
    storage = [row for network in networks for row in _storage(lab, network)]
    rows = {network.title: _searched(lab, network) for network in networks}
    return Section(
        NAME,
        TITLE,
        "CAP'NN (DAC 2020), section V.C",
        "W and M need the firing rate of every prunable unit for every class. The paper stores them linearly quantised "
        "in 3 bits; here level i of 8 stands for a rate of i / 7. First its arithmetic for VGG-16 and 1000 classes. "
        "Then measured: cuts are searched with the rates as they were measured and as they are read back from 3 bits, "
        f"for the same {lab.users(_USERS)} users for each K, the last six layers, epsilon 3 %. "
        f"{' '.join(network.note for network in networks)}",
        (_overhead_table(overhead), _storage_table(storage), *_tables(rows), _plot(rows)),
        _differences(overhead, rows),
    )


def overhead_row() -> Row:
    """Return the paper's arithmetic: bytes of the rates of VGG-16's last layers, and of the network."""
    bits = sum(_UNITS) * _CLASSES * BITS
    network = _PARAMETERS * _WEIGHT_BYTES
    return {
        "units": sum(_UNITS),
        "classes": _CLASSES,
        "rates_mb": bits / 8e6,
        "network_mb": network / 1e6,
        "overhead": bits / 8 / network,
    }


def at_three_bits(profile: Profile) -> Profile:
    """Return the profile as it would be read back, had its firing rates been stored in 3 bits.

    Its class clusters stay those of the full rates: no search looks at them.
    """
    layers = tuple(
        dataclasses.replace(layer, firing_rates=unpack(*pack(np.asarray(layer.firing_rates))))
        for layer in profile.layers
    )
    return dataclasses.replace(profile, layers=layers)


def _networks(lab: Lab) -> list[Reference]:
    kinds = _NETWORKS[:2] if lab.quick else _NETWORKS
    there = {network.name: network for network in lab.references(*(name for kind in kinds for name in kind))}
    return [there[next(name for name in kind if name in there)] for kind in kinds if there.keys() & set(kind)]


def _storage(lab: Lab, network: Reference) -> list[Row]:
    def compute() -> list[Row]:
        profile = lab.profile(network.name, depth=LAST_LAYERS)
        rates = [np.asarray(layer.firing_rates) for layer in profile.layers]
        full, packed = sum(one.nbytes for one in rates), sum(pack(one)[0].nbytes for one in rates)
        return [
            {
                "network": network.title,
                "units": sum(len(one) for one in rates),
                "classes": len(profile.classes),
                "full_bytes": full,
                "packed_bytes": packed,
                "ratio": packed / full,
                "of_the_base": packed / len(profile.base.content),
            }
        ]

    return lab.once("three_bit_storage", network.name, compute)


def _searched(lab: Lab, network: Reference) -> list[Row]:
    """Return a row for each K, user, method and kind of rates."""
    found: list[Row] = []
    for k in _SIZES:

        def compute(k: int = k) -> list[Row]:
            profile = lab.profile(network.name, depth=LAST_LAYERS)
            kinds = {"32 bits": profile, "3 bits": at_three_bits(profile)}
            evaluators = {rates: Evaluator(one, _EPSILON) for rates, one in kinds.items()}
            drawn = users(profile.classes, k, lab.users(_USERS), lab.seed)
            rows: list[Row] = []
            for number, (classes, weights) in enumerate(drawn):
                lab.progress(f"{network.name}, K = {k}", number, len(drawn))
                usage = checked_usage(dict(zip(classes, weights, strict=True)), profile.classes)
                for method in _METHODS:
                    for rates, evaluator in evaluators.items():
                        figures = evaluator.searched(METHODS[method], ClassSet(number, usage, _NOBODY))
                        rows.append(
                            {
                                "network": network.title, "k": k, "user": number, "method": method, "rates": rates,
                                "bits": _RATES[rates], "classes": ";".join(figures.classes),
                                "relative_size": figures.relative_size, "base_top1": figures.base_top1,
                                "top1": figures.top1, "gain": figures.gain, "worst_loss": figures.worst_loss,
                            }
                        )  # fmt: skip
            return _with_differences(rows)

        found += lab.once("three_bit_cuts", f"{network.name} K={k} users={lab.users(_USERS)} seed={lab.seed}", compute)
    return found


def _with_differences(rows: list[Row]) -> list[Row]:
    """Add to rows with 3 bits by how much they differ from the same user's with full rates."""
    full = {(row["user"], row["method"]): row for row in select(rows, rates="32 bits")}
    for row in rows:
        other = full[row["user"], row["method"]]
        for name in ("relative_size", "gain"):
            row[f"{name}_more"] = cast("float", row[name]) - cast("float", other[name])
    return rows


def _overhead_table(row: Row) -> Table:
    shown = (("rates_mb", "firing rates, MB", "3.6", 1, 2), ("network_mb", "network, MB", "276", 1, 1),
             ("overhead", "overhead, %", "1.3", 100, 2))  # fmt: skip
    return Table(
        f"VGG-16: (3 x 512 + 2 x 4096) units x {_CLASSES} classes x {BITS} bits, against weights of 16 bits",
        ("", "paper", "ours"),
        tuple(
            (title, Paper(paper), value_cell(row, name, factor=factor, digits=digits))
            for name, title, paper, factor, digits in shown
        ),
    )


def _storage_table(rows: list[Row]) -> Table:
    return Table(
        "What the reference networks' profiles store for their last six layers",
        ("network", "units", "classes", "32 bits (kB)", "3 bits (kB)", "of that, %", "3 bits, of the base file, %"),
        tuple(
            (
                str(row["network"]),
                value_cell(row, "units", digits=0),
                value_cell(row, "classes", digits=0),
                value_cell(row, "full_bytes", factor=1e-3, digits=1),
                value_cell(row, "packed_bytes", factor=1e-3, digits=1),
                value_cell(row, "ratio", factor=100, digits=1),
                value_cell(row, "of_the_base", factor=100, digits=2),
            )
            for row in rows
        ),
    )


def _tables(rows: dict[str, list[Row]]) -> list[Table]:
    tables = []
    for title, mine in rows.items():
        lines = []
        for k in _SIZES:
            for method in _METHODS:
                full, packed = (select(mine, k=k, method=method, rates=rates) for rates in _RATES)
                lines.append(
                    (
                        f"{k}, {method}",
                        mean_cell(full, "relative_size", interval=True),
                        mean_cell(packed, "relative_size", interval=True),
                        mean_cell(packed, "relative_size_more", digits=3, interval=True),
                        mean_cell(full, "gain", factor=100, digits=1),
                        mean_cell(packed, "gain", factor=100, digits=1),
                        mean_cell(packed, "gain_more", factor=100, digits=1, interval=True),
                    )
                )
        columns = (
            "K, method", "size, 32 bits", "size, 3 bits", "more with 3 bits", "top-1 gain, 32 bits",
            "top-1 gain, 3 bits", "more with 3 bits",
        )  # fmt: skip
        tables.append(Table(f"{title}: relative size, and points of top-1 gained", columns, tuple(lines)))
    return tables


def _plot(rows: dict[str, list[Row]]) -> Plot:
    def draw(figure: Figure) -> None:
        panels = figure.subplots(1, len(rows), sharey=True, squeeze=False)[0]
        for axes, (title, mine) in zip(panels, rows.items(), strict=True):
            places = {(k, method): place for place, (k, method) in enumerate((k, m) for k in _SIZES for m in _METHODS)}
            for side, rates in enumerate(_RATES):
                means = [
                    interval(select(mine, k=k, method=method, rates=rates), "relative_size") for k, method in places
                ]
                axes.bar(
                    [place + 0.4 * side - 0.2 for place in places.values()],
                    [mean for mean, _ in means],
                    0.38,
                    yerr=[half for _, half in means],
                    error_kw={"elinewidth": 0.7, "ecolor": "#555555"},
                    **bar_look("W" if side else "M") | {"label": rates},
                )
            axes.set_xticks(list(places.values()), [f"{method}, K = {k}" for k, method in places])
            axes.set_ylim(0, 1.05)
            axes.set_title(title.split(",")[0])
            finish(axes, "", "parameters, relative to the base" if axes is panels[0] else "")
        legend_below(figure, panels[0])

    return as_plot(
        NAME,
        draw,
        "Relative size of W's and M's cuts with firing rates as measured and in 3 bits. Bars: 95 % intervals over "
        "users.",
        "Pairs of bars of relative size, nearly equal, for W and M and K = 2 and 5",
        width=9.5,
        height=3.6,
    )


def _differences(overhead: Row, rows: dict[str, list[Row]]) -> tuple[str, ...]:
    packed = [row for mine in rows.values() for row in select(mine, rates="3 bits")]
    size = mean_over(packed, "relative_size_more")
    most = max(abs(cast("float", row["relative_size_more"])) for row in packed)
    gain = mean_over(packed, "gain_more")
    return (
        (
            f"The arithmetic gives {overhead['rates_mb']:.2f} MB and {100 * cast('float', overhead['overhead']):.2f} "
            "%, as the paper says, rounded; it counts the rates alone, not the confusion that M also needs."
        ),
        (
            "The paper does not say over which range it quantises, nor what 3 bits cost in size or accuracy. Here they "
            f"change a cut's size by {size:+.3f} on average and by {most:.3f} at most, and its top-1 by "
            f"{100 * gain:+.1f} points on average."
        ),
    )
