"""Table II of CAP'NN: cuts for a user on top of networks that were pruned for nobody in particular."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from benchmarks.class_unaware.networks import Tuning, make_pruned
from benchmarks.experiments.cells import Paper, mean_cell, mean_over, value_cell
from benchmarks.experiments.plots import as_plot, bar_look, finish, interval, legend_below
from benchmarks.experiments.section import Section, Table
from benchmarks.experiments.store import ROW, TABLE, select
from benchmarks.experiments.wishes import CUTS, LAST_LAYERS, Wish, class_sets, equal_weights

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from benchmarks.class_unaware.prune import Criterion
    from benchmarks.experiments.lab import Lab
    from benchmarks.experiments.section import Entry, Plot
    from benchmarks.experiments.store import Row
    from benchmarks.networks.reference import Reference

__all__ = ["NAME", "TITLE", "run"]

NAME: Final = "table-2"
TITLE: Final = "On top of pruning that knows of no user"

_PRUNED: Final = "class_unaware"
_ON_TOP: Final = "table_2"
_NETWORKS: Final = ("vgg16", "vgg16-half")
_SIZES: Final = (2, 3, 4, 5)
_SETS: Final = {True: 2, False: 50}
_TUNING: Final = {
    True: Tuning(sampled=10, images=500, epochs=1),
    False: Tuning(sampled=50, images=None, epochs=3),
}
_METHODS: Final = (("M", LAST_LAYERS), ("L", None))


@dataclass(frozen=True, slots=True)
class _Paper:
    """What the paper prints for one K: relative size, top-1 / top-5 without and with CAP'NN."""

    size: str
    without: str
    with_m: str


@dataclass(frozen=True, slots=True)
class _Start:
    """A way of pruning for nobody, with what the paper prints for cuts on top of it."""

    name: str
    criterion: Criterion
    share: float
    paper: dict[int, _Paper]


_STARTS: Final = (
    _Start(
        "ThiNet",
        "thinet",
        0.94,
        {
            2: _Paper("0.21", "68.0 / 88.5", "71.4 / 90.8"),
            3: _Paper("0.22", "69.3 / 89.1", "70.8 / 91.3"),
            4: _Paper("0.24", "70.1 / 89.3", "70.5 / 91.6"),
            5: _Paper("0.26", "69.8 / 88.6", "70.1 / 90.9"),
        },
    ),
    _Start(
        "channel pruning",
        "reconstruction",
        0.90,
        {
            2: _Paper("0.24", "69.0 / 88.6", "69.8 / 89.5"),
            3: _Paper("0.26", "69.0 / 88.9", "69.1 / 89.7"),
            4: _Paper("0.28", "67.0 / 89.1", "68.8 / 90.1"),
            5: _Paper("0.30", "67.8 / 88.8", "68.5 / 89.5"),
        },
    ),
)


def run(lab: Lab) -> Section:
    """Prune a network by each way, fine-tune it, and cut it for users of 2 to 5 classes."""
    reference = lab.references(*_NETWORKS)[0]
    pruned = {start.name: _pruned(lab, reference, start) for start in _STARTS}
    rows = {start.name: _on_top(lab, reference, start, pruned[start.name]) for start in _STARTS}
    tuning = _TUNING[lab.quick]
    images = "all training images" if tuning.images is None else f"{tuning.images} training images a class"
    return Section(
        NAME,
        TITLE,
        "CAP'NN (DAC 2020), Table II",
        f"{reference.note} Channels of its convolutions were pruned for nobody in particular, by ThiNet's greedy "
        "choice and by LASSO with reconstruction of the next layer (both implemented here), to the paper's share of "
        f"the parameters; the networks were then fine-tuned on {images} (epochs: {tuning.epochs}). On top of "
        f"that M, on the last six layers, and L, on all, cut for {lab.users(_SETS)} users of each K with all classes "
        "equally often. Epsilon is 3 %, measured on the images of the search. Sizes are relative to the network that "
        "nobody pruned; accuracies are on the users' classes, on images that nothing has seen.",
        (_starts(pruned), *(_table(start, rows[start.name]) for start in _STARTS), _plot(rows)),
        _differences(pruned, rows, lab.quick),
    )


def _pruned(lab: Lab, reference: Reference, start: _Start) -> Row:
    """Make the pruned network, known to the lab from then on, and return what came of it."""
    name = _network_name(reference, start)
    path = lab.folder / _PRUNED / f"{name}.keras"

    def compute() -> list[Row]:
        made = make_pruned(
            reference,
            start.criterion,
            start.share,
            path,
            _TUNING[lab.quick],
            lambda what, done, total: lab.progress(f"{name}: {what}", done, total),
        )
        share = made.parameters / made.base_parameters
        fields: Row = {"network": name, "method": start.name, "share": share}
        return [fields | asdict(made) | {"gain": made.top1 - made.base_top1}]

    (row,) = lab.once(_PRUNED, name, compute)
    lab.derive(name, reference, lambda: _loaded(path))
    return row


def _loaded(path: Any) -> Any:
    import keras  # noqa: PLC0415 - seconds to import

    return keras.models.load_model(path, compile=False)


def _network_name(reference: Reference, start: _Start) -> str:
    return f"{reference.name}-{start.criterion}"


def _on_top(lab: Lab, reference: Reference, start: _Start, pruned: Row) -> list[Row]:
    """Return a row for each cut on top, with its size relative to the network that nobody pruned."""
    name = _network_name(reference, start)
    classes = lab.profile(name).classes
    wishes = [
        Wish(name, method, chosen, equal_weights(k), depth=depth)
        for k in _SIZES
        for chosen in class_sets(classes, k, lab.users(_SETS), lab.seed)
        for method, depth in _METHODS
    ]
    share = cast("float", pruned["share"])
    found = []
    for wish, cut in zip(wishes, lab.measure(wishes, CUTS), strict=True):
        fields = {column: value for column, value in cut.items() if column not in {TABLE, ROW}}
        size = cast("float", cut["relative_size"])
        row = fields | {"size_without": share, "size": share * size, "reduction_on_top": 1.0 - size}
        found += lab.once(_ON_TOP, wish.key, lambda row=row: [row])  # type: ignore[misc]
    return found


def _starts(pruned: dict[str, Row]) -> Table:
    lines: tuple[tuple[Entry, ...], ...] = tuple(
        (
            start.name,
            Paper(f"{start.share:.2f}"),
            value_cell(pruned[start.name], "share"),
            *(
                value_cell(pruned[start.name], column, factor=100, digits=1)
                for column in ("base_top1", "cut_top1", "top1")
            ),
        )
        for start in _STARTS
    )
    columns = (
        "pruned by", "size, paper", "size", "top-1 % of the original", "pruned, not yet fine-tuned", "fine-tuned",
    )  # fmt: skip
    return Table("The networks that cuts begin with: relative size, and accuracy over all classes", columns, lines)


def _table(start: _Start, rows: list[Row]) -> Table:
    lines: list[tuple[Entry, ...]] = []
    for k, paper in start.paper.items():
        lines.append((f"{k}, paper (M)", Paper(f"{start.share:.2f}"), Paper(paper.size), Paper(paper.without), "",
                      Paper(paper.with_m), "", ""))  # fmt: skip
        for method, _ in _METHODS:
            mine = select(rows, k=k, method=method)
            lines.append(
                (
                    f"{k}, {method}",
                    mean_cell(mine, "size_without"),
                    mean_cell(mine, "size", interval=True),
                    *(
                        mean_cell(mine, column, factor=100, digits=1)
                        for column in ("base_top1", "base_top5", "top1", "top5")
                    ),
                    mean_cell(mine, "gain", factor=100, digits=1, interval=True),
                )
            )
    columns = (
        "K, method", "size without", "size with", "top-1 without", "top-5 without", "top-1 with", "top-5 with",
        "gain in top-1",
    )  # fmt: skip
    caption = (
        f"On top of {start.name}: size relative to the original network, and accuracy (%) without and with a cut for "
        "the user; the paper's are top-1 / top-5"
    )
    return Table(caption, columns, tuple(lines))


def _plot(rows: dict[str, list[Row]]) -> Plot:
    def draw(figure: Figure) -> None:
        panels = figure.subplots(1, len(_STARTS), sharey=True)
        for axes, start in zip(panels, _STARTS, strict=True):
            axes.axhline(start.share, color="#555555", linestyle=":", linewidth=1, label="without a cut")
            for number, (method, _) in enumerate(_METHODS):
                means = [interval(select(rows[start.name], k=k, method=method), "size") for k in _SIZES]
                places = [k + 0.27 * (number - 0.5) for k in _SIZES]
                axes.bar(
                    places, [m for m, _ in means], 0.26, yerr=[h for _, h in means], capsize=2,
                    error_kw={"elinewidth": 0.8}, **bar_look(method),
                )  # fmt: skip
            printed = [float(start.paper[k].size) for k in _SIZES]
            axes.plot(_SIZES, printed, "_", color="#000000", markersize=18, label="M, paper")
            axes.set_title(f"after {start.name}")
            axes.set_xticks(_SIZES)
            finish(axes, "K (classes of the user)", "parameters, relative to the original")
        panels[0].set_ylim(0, 1)
        legend_below(figure, panels[0])

    return as_plot(
        NAME,
        draw,
        "Relative size of cuts on top of each pruned network. Bars: 95 % intervals over sets of classes.",
        "Two panels of bars: relative size with M and with L on top of ThiNet and of channel pruning, for K = 2 to 5",
    )


def _differences(pruned: dict[str, Row], rows: dict[str, list[Row]], quick: bool) -> tuple[str, ...]:  # noqa: FBT001
    found = []
    for start in _STARTS:
        share, gain = (cast("float", pruned[start.name][column]) for column in ("share", "gain"))
        found.append(
            f"{start.name}: our network keeps {share:.2f} of its parameters and {'loses' if gain < 0 else 'gains'} "
            f"{100 * abs(gain):.1f} points of top-1 by pruning and fine-tuning; the paper took the networks of the "
            "method's own authors, which were tuned for longer."
        )
        means = {
            (k, method): mean_over(select(rows[start.name], k=k, method=method), "size")
            for k in _SIZES
            for method, _ in _METHODS
        }
        above = [str(k) for k in _SIZES if means[k, "M"] > float(start.paper[k].size) + 0.02]
        if above:
            found.append(
                f"{start.name}: M keeps more than the paper's at K = {', '.join(above)}: of ten classes, not of a "
                "thousand, K are a larger part of what the network tells apart, and this network is narrower."
            )
        below = [str(k) for k in _SIZES if means[k, "L"] <= float(start.paper[k].size)]
        if below:
            found.append(f"{start.name}: L keeps as much as the paper's M or less at K = {', '.join(below)}.")
    if quick:
        found.append(
            "A quick run fine-tunes for one epoch on a part of the images, so these networks are not at their best."
        )
    return tuple(found)
