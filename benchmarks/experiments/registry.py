"""The experiments that there are, in the order of the report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from benchmarks.experiments import (
    cache,
    figure_4,
    figure_5,
    figure_6,
    guarantee,
    hardware,
    journal,
    peers,
    table_1,
    table_2,
    table_3,
    three_bit,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.experiments.lab import Lab
    from benchmarks.experiments.section import Section

__all__ = ["EXPERIMENTS", "Experiment"]


@dataclass(frozen=True, slots=True)
class Experiment:
    """An experiment: what `capnn reproduce` calls it, its title, and what does it."""

    name: str
    title: str
    run: Callable[[Lab], Section]

    @classmethod
    def of(cls, module: Any) -> Experiment:
        """Return what a module defines as `NAME`, `TITLE` and `run`."""
        return cls(module.NAME, module.TITLE, module.run)


_MODULES: Final = (
    figure_4, figure_5, figure_6, table_1, three_bit, table_2, table_3, journal, peers, cache, guarantee, hardware,
)  # fmt: skip

EXPERIMENTS: Final[dict[str, Experiment]] = {module.NAME: Experiment.of(module) for module in _MODULES}
