"""What base networks and cuts take on accelerators: against the paper's figures, and against SCALE-Sim."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from benchmarks.data import capnn_data
from benchmarks.experiments.cells import Paper, mean_cell, value_cell
from benchmarks.experiments.imagenet_costs import BY_SHAPE, PAPER_ENERGY, full_rows, size_rows
from benchmarks.experiments.plots import as_plot, finish, legend_below
from benchmarks.experiments.scalesim import RUNS, compared_layers
from benchmarks.experiments.section import Section, Table
from benchmarks.experiments.store import select
from benchmarks.experiments.wishes import LAST_LAYERS, class_sets
from cloud_pruner.methods import METHODS
from cloud_pruner.requests import checked_usage
from cloud_pruner.search import Searcher
from hwmodel import DAC20, PRESETS, compare, estimate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from benchmarks.experiments.lab import Lab
    from benchmarks.experiments.section import Entry, Plot
    from benchmarks.experiments.store import Row
    from benchmarks.networks.reference import Reference

__all__ = ["NAME", "TITLE", "run"]

NAME: Final = "hardware"
TITLE: Final = "Cycles, memory traffic and energy"

# What the reconstruction of `dac20` was set out to give (docs/decisions/0006).
_RECONSTRUCTED: Final = {"energy_mj": "112.75", "dram_share": "78.5", "macs_share": "19.2", "sram_share": "2.2"}

_NETWORKS: Final = (("vgg16", "vgg16-half"), ("alexnet",), ("resnet152", "resnet56"))
"""A VGG-16, an AlexNet and a deep residual network: of each the first that is there."""

_METHODS: Final = {"M": LAST_LAYERS, "L": None}
_K: Final = 2
_SETS: Final = {True: 1, False: 10}
_COMPONENTS: Final = {
    "dram": ("#0072B2", ""),
    "sram": ("#56B4E9", "///"),
    "macs": ("#D55E00", "..."),
    "other": ("#999999", "xxx"),
}


def run(lab: Lab) -> Section:
    """Estimate full networks by shape and cuts of the reference networks, and compare with SCALE-Sim's runs."""
    full = [row for name in BY_SHAPE for row in lab.once("hardware_full", name, lambda name=name: full_rows(name))]  # type: ignore[misc]
    sizes = lab.once("hardware_sizes", "VGG-16", size_rows)
    networks = _networks(lab)
    cuts = [row for network in networks for row in _cut_rows(lab, network)]
    parts: list[Table | Plot | str] = [
        _full_table(full), _paper_table(full), _sizes_table(sizes), _cuts_table(cuts), _plot(full, cuts),
    ]  # fmt: skip
    agreement = _scalesim(lab)
    parts += [agreement] if agreement else []
    return Section(
        NAME,
        TITLE,
        "CAP'NN (DAC 2020), section V.B and figure 2",
        "The hardware model in closed form, on three accelerators: dac20 is a reconstruction of the paper's (its "
        "equations are not public), tpu-v1 has the published figures of Google's first TPU, edge-tpu-like is of the "
        "size of an Edge TPU. VGG-16 and ResNet-152 for ImageNet are costed by their shapes. Cuts are searched for "
        f"{lab.users(_SETS)} of the sets of {_K} classes of each reference network, epsilon 3 %, empirical: M prunes "
        f"the last six layers, L all. {' '.join(network.note for network in networks)}",
        tuple(parts),
        _differences(full, sizes, cuts, has_scalesim=agreement is not None),
    )


def _networks(lab: Lab) -> list[Reference]:
    there = {network.name: network for network in lab.references(*(name for kind in _NETWORKS for name in kind))}
    return [there[next(name for name in kind if name in there)] for kind in _NETWORKS if there.keys() & set(kind)]


def _cut_rows(lab: Lab, network: Reference) -> list[Row]:
    """Return rows for each method, set of classes and accelerator."""
    rows: list[Row] = []
    for method, depth in _METHODS.items():

        def compute(method: str = method, depth: int | None = depth) -> list[Row]:
            profile = lab.profile(network.name, depth=depth)
            searcher, found = Searcher(profile), []
            chosen = class_sets(profile.classes, _K, lab.users(_SETS), lab.seed)
            for number, classes in enumerate(chosen):
                lab.progress(f"{network.name}, {method}", number, len(chosen))
                usage = checked_usage(dict.fromkeys(classes, 1.0), profile.classes)
                cuts = searcher.search(usage, METHODS[method], 0.03).cuts
                found += _compared(bytes(profile.base.content), bytes(profile.base.emit(cuts)))
                for row in found[-len(PRESETS) :]:
                    row |= {"network": network.title, "method": method, "classes": ";".join(classes)}
            return found

        key = f"{network.name} {method} depth={depth} sets={lab.users(_SETS)} seed={lab.seed}"
        rows += lab.once("hardware_cuts", key, compute)
    return rows


def _compared(base: bytes, cut: bytes) -> list[Row]:
    rows: list[Row] = []
    for preset in PRESETS.values():
        both = compare(estimate(base, preset), estimate(cut, preset))
        cycles, macs = both.ratios["cycles"], both.ratios["macs"]
        assert both.base.time_s is not None
        assert both.cut.time_s is not None
        rows.append(
            {
                "preset": preset.name,
                "base_energy_uj": both.base.energy.total / 1e6,
                "relative_size": both.cut.weights / both.base.weights,
                "relative_macs": macs,
                "relative_cycles": cycles,
                "relative_time": both.cut.time_s / both.base.time_s,
                # None where weights stay on the chip: there is no traffic to reduce.
                "relative_dram": both.ratios["dram_words"],
                "relative_sram": both.ratios["sram_words"],
                "relative_energy": both.cut.energy.total / both.base.energy.total,
            }
        )
    return rows


def _full_table(rows: list[Row]) -> Table:
    shown: tuple[tuple[str, float, int], ...] = (
        ("macs", 1e-9, 2), ("cycles", 1e-6, 2), ("utilisation", 100, 1), ("time_ms", 1, 2), ("dram_words", 1e-6, 1),
        ("sram_words", 1e-6, 1), ("energy_mj", 1, 2), ("dram_share", 100, 1), ("sram_share", 100, 1),
        ("macs_share", 100, 1), ("other_share", 100, 1),
    )  # fmt: skip
    lines: list[tuple[Entry, ...]] = []
    for row in rows:
        cells = [value_cell(row, name, factor=factor, digits=digits) for name, factor, digits in shown]
        lines.append((f"{row['network']}, {row['preset']}", *cells))
    columns = (
        "network, accelerator", "MACs (10^9)", "cycles (10^6)", "array in use, %", "time (ms)", "DRAM words (10^6)",
        "SRAM words (10^6)", "energy (mJ)", "DRAM, %", "SRAM, %", "MACs, %", "other, %",
    )  # fmt: skip
    return Table("One inference of the uncut networks for ImageNet; shares are of the energy", columns, tuple(lines))


def _paper_table(rows: list[Row]) -> Table:
    (row,) = select(rows, network="VGG-16", preset=DAC20.name)
    names = {"energy_mj": "energy, mJ", "dram_share": "DRAM, %", "macs_share": "MACs, %", "sram_share": "SRAM, %"}
    lines = tuple(
        (
            names[name],
            Paper(aim),
            value_cell(row, name, factor=1 if name == "energy_mj" else 100, digits=2 if name == "energy_mj" else 1),
        )
        for name, aim in _RECONSTRUCTED.items()
    )
    return Table("VGG-16 on dac20: what the reconstruction aims at, and gives", ("figure", "aim", "ours"), lines)


def _sizes_table(rows: list[Row]) -> Table:
    lines = tuple(
        (
            f"{row['wanted_size']:.2f}",
            Paper(PAPER_ENERGY[cast("float", row["wanted_size"])]),
            value_cell(row, "relative_energy", digits=3),
            value_cell(row, "relative_size", digits=3),
            value_cell(row, "relative_macs", digits=3),
        )
        for row in rows
    )
    return Table(
        "Relative energy of VGG-16 cut to the paper's relative sizes (K = 5: 0.29 by M and 0.30 by W; K = 10: 0.48), "
        "the last five hidden layers alike",
        ("relative size", "energy, paper", "energy, ours", "size, ours", "MACs, ours"),
        lines,
    )


def _cuts_table(rows: list[Row]) -> Table:
    columns = ("relative_size", "relative_macs", "relative_cycles", "relative_time", "relative_dram", "relative_energy")
    lines: list[tuple[Entry, ...]] = []
    for title in dict.fromkeys(row["network"] for row in rows):
        for method in _METHODS:
            for preset in PRESETS:
                mine = select(rows, network=title, method=method, preset=preset)
                cells = [mean_cell(mine, name) for name in columns]
                lines.append((f"{title}: {method}, {preset}", *cells, mean_cell(mine, "base_energy_uj", digits=1)))
    return Table(
        f"Cuts for {_K} classes: cut / base, mean over sets of classes. Where there is no figure for DRAM, the "
        "accelerator keeps all weights on the chip and fetches nothing",
        ("network: method, accelerator", "size", "MACs", "cycles", "time", "DRAM", "energy", "base energy (uJ)"),
        tuple(lines),
    )


def _plot(full: list[Row], cuts: list[Row]) -> Plot:
    def draw(figure: Figure) -> None:
        shares, ratios = figure.subplots(1, 2)
        names = [f"{row['network']}\n{row['preset']}" for row in full]
        left = [0.0] * len(full)
        for component, (colour, hatch) in _COMPONENTS.items():
            widths = [100 * cast("float", row[f"{component}_share"]) for row in full]
            shares.barh(names, widths, left=left, color=colour, hatch=hatch, edgecolor="white", label=component)
            left = [a + b for a, b in zip(left, widths, strict=True)]
        shares.invert_yaxis()
        finish(shares, "share of the energy (%)", "")
        shares.set_title("uncut networks for ImageNet")
        titles = list(dict.fromkeys(str(row["network"]) for row in cuts))
        for number, (preset, marker) in enumerate(zip(PRESETS, "osD", strict=True)):
            for method, colour in (("M", "#0072B2"), ("L", "#D55E00")):
                mine = [select(cuts, network=title, method=method, preset=preset) for title in titles]
                means = [sum(cast("float", row["relative_energy"]) for row in one) / len(one) for one in mine]
                ratios.plot(
                    [place + 0.12 * (number - 1) for place in range(len(titles))],
                    means,
                    marker=marker,
                    linestyle="none",
                    color=colour,
                    label=f"{method}, {preset}",
                )
        ratios.set_xticks(range(len(titles)), [title.split(",")[0] for title in titles])
        ratios.set_ylim(0, 1.05)
        ratios.set_title(f"cuts for {_K} classes")
        ratios.legend(frameon=False, fontsize=7)
        finish(ratios, "", "energy, cut / base")
        legend_below(figure, shares)

    return as_plot(
        NAME,
        draw,
        "Left: where the energy of an inference goes. Right: energy of cuts on three accelerators, mean over sets.",
        "Stacked bars of energy by component for each network and accelerator; marks of the relative energy of cuts",
        width=10.5,
        height=4.2,
    )


def _scalesim(lab: Lab) -> Table | None:
    """Compare with SCALE-Sim 3.0.0's runs on the same layers; None where they are not there."""
    data = capnn_data()
    if data is None or not (data / "reference" / "scalesim").is_dir():
        return None
    lines: list[tuple[Entry, ...]] = []
    for name in RUNS:
        rows = lab.once("hardware_scalesim", name, lambda name=name: compared_layers(data, name))  # type: ignore[misc]
        weights_known = all(row["dram_weights_equal"] is not None for row in rows)
        lines.append(
            (
                name.replace("__", ", ").replace("_", " "),
                mean_cell(rows, "layers", statistic="sum", digits=0),
                mean_cell(rows, "cycles", statistic="sum", digits=0),
                mean_cell(rows, "scalesim_cycles", statistic="sum", digits=0),
                *(
                    mean_cell(rows, name, statistic="share", factor=100, digits=0)
                    for name in ("cycles_equal", "sram_equal")
                ),
                mean_cell(rows, "dram_weights_equal", statistic="share", factor=100, digits=0) if weights_known else "",
                mean_cell(rows, "dram_inputs_off", statistic="max", factor=100, digits=2) if weights_known else "",
            )
        )
    columns = (
        "run", "layers", "cycles, ours", "cycles, SCALE-Sim", "layers with equal cycles, %", "equal SRAM counts, %",
        "equal DRAM weights, %", "DRAM inputs off by at most, %",
    )  # fmt: skip
    return Table("Agreement with SCALE-Sim 3.0.0, layer by layer", columns, tuple(lines))


def _differences(full: list[Row], sizes: list[Row], cuts: list[Row], *, has_scalesim: bool) -> tuple[str, ...]:
    (vgg,) = select(full, network="VGG-16", preset=DAC20.name)
    found = [
        (
            f"dac20 gives {vgg['energy_mj']:.2f} mJ for VGG-16; the paper prints no absolute energy, so 112.75 mJ and "
            "its shares are the mark of the reconstruction, not a measurement of theirs."
        )
    ]
    for row in sizes:
        paper, ours = float(PAPER_ENERGY[cast("float", row["wanted_size"])]), cast("float", row["relative_energy"])
        if abs(ours - paper) >= 0.01:
            found.append(
                f"At relative size {row['wanted_size']:.2f} ours is {ours:.3f} where the paper has {paper:.2f}: how "
                "its cut spreads over the layers is not published, here each of five layers loses the same share."
            )
    by_preset = {
        preset: [cast("float", row["relative_energy"]) for row in select(cuts, method="L", preset=preset)]
        for preset in PRESETS
    }
    means = {preset: sum(values) / len(values) for preset, values in by_preset.items()}
    best, worst = min(means, key=means.__getitem__), max(means, key=means.__getitem__)
    found.append(
        f"What a cut saves depends on the accelerator: L's keep {means[best]:.2f} of the energy on {best} and "
        f"{means[worst]:.2f} on {worst}, on average. Where each weight comes from DRAM once an inference, as the paper "
        "has it, energy follows size; where small networks stay on the chip, it follows SRAM accesses and MACs."
    )
    if not has_scalesim:
        found.append("SCALE-Sim's runs are not here: set CAPNN_DATA to the folder with reference/scalesim.")
    return tuple(found)
