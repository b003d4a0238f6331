"""The 24 configurations of figures 4 and 5: K = 2 to 5, and for each six ways in which its classes come up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

from benchmarks.experiments.store import ROW
from benchmarks.experiments.wishes import CUTS, Wish, class_sets, usual_depth

if TYPE_CHECKING:
    from benchmarks.experiments.lab import Lab
    from benchmarks.experiments.store import Row
    from benchmarks.networks.reference import Reference

Configurations: TypeAlias = "dict[tuple[int, tuple[int, ...], str], list[Row]]"
"""(K, distribution, method) -> a row for each set of classes."""

__all__ = [
    "DISTRIBUTIONS",
    "METHODS",
    "NETWORKS",
    "SETS",
    "Configurations",
    "configuration_rows",
    "distribution_name",
    "network_of",
    "of_k",
]

NETWORKS: Final = ("vgg16", "vgg16-half")
"""The first that is there is the one: a VGG-16 as in the paper."""

METHODS: Final = ("B", "W", "M", "L")

DISTRIBUTIONS: Final[dict[int, tuple[tuple[int, ...], ...]]] = {
    2: ((50, 50), (60, 40), (70, 30), (80, 20), (90, 10), (95, 5)),
    3: ((1, 1, 1), (40, 30, 30), (50, 25, 25), (60, 20, 20), (70, 15, 15), (80, 10, 10)),
    4: ((25, 25, 25, 25), (40, 20, 20, 20), (40, 30, 20, 10), (55, 15, 15, 15), (70, 10, 10, 10), (85, 5, 5, 5)),
    5: (
        (20, 20, 20, 20, 20), (30, 25, 20, 15, 10), (40, 15, 15, 15, 15), (50, 20, 10, 10, 10), (60, 10, 10, 10, 10),
        (80, 5, 5, 5, 5),
    ),
}  # fmt: skip
"""K -> how often its classes come up, from all alike to one above all. Those of the paper's axis cannot be read."""

SETS: Final = {True: 4, False: 50}
"""Sets of classes for each K: in a quick run, and in a full one (the paper: 200 of 1000 classes)."""


def network_of(lab: Lab) -> Reference:
    """Return the network that is looked at."""
    return lab.references(*NETWORKS)[0]


def configuration_rows(lab: Lab) -> Configurations:
    """Measure all; the sets of classes are the same throughout a K."""
    network = network_of(lab).name
    classes = lab.profile(network).classes
    wishes = {
        (k, distribution, method): [
            Wish(network, method, chosen, tuple(map(float, distribution)), depth=usual_depth(method))
            for chosen in class_sets(classes, k, lab.users(SETS), lab.seed)
        ]
        for k, distributions in DISTRIBUTIONS.items()
        for distribution in distributions
        for method in METHODS
    }
    lab.measure([wish for several in wishes.values() for wish in several], CUTS)
    return {key: lab.measure(several, CUTS) for key, several in wishes.items()}


def distribution_name(distribution: tuple[int, ...]) -> str:
    """Return a distribution as it is written at an axis: `80-10-10`."""
    return "equal" if len(set(distribution)) == 1 else "-".join(map(str, distribution))


def of_k(rows: Configurations, k: int, method: str) -> list[Row]:
    """Return the rows of a method at one K; each once, where several distributions share it."""
    several = [row for key, rows_there in rows.items() if key[0] == k and key[2] == method for row in rows_there]
    return list({row[ROW]: row for row in several}.values())
