"""The figures of a model on an accelerator, layer by layer and in total, and the ratios between two models."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from edge_runtime.errors import ModelFileError
from edge_runtime.flatmodel import Graph, read_graph
from hwmodel.cost import layer_figures
from hwmodel.energy import Energy, Traffic
from hwmodel.errors import HardwareError
from hwmodel.operators import read_workload
from hwmodel.placement import place
from hwmodel.presets import DAC20

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hwmodel.accelerator import Accelerator
    from hwmodel.cost import LayerFigures
    from hwmodel.workload import Uncosted, Workload

__all__ = ["Comparison", "Report", "compare", "estimate", "estimate_workload"]

_DOMINATES = 0.5


@dataclass(frozen=True)
class Report:
    """What one run of a model costs on an accelerator: `batch` inferences together.

    Attributes
    ----------
    model
        What the caller calls the model.
    layers
        Figures in the order of the file.
    uncosted
        Work that the figures leave out because the hardware model does not understand it. Where there is any, the
        totals are lower bounds.
    batch
        Inferences in a run, beyond the model's own batch size.
    """

    model: str
    accelerator: Accelerator
    layers: tuple[LayerFigures, ...]
    uncosted: tuple[Uncosted, ...]
    batch: int = 1

    @cached_property
    def macs(self) -> int:
        """Multiply-accumulate operations of all layers."""
        return sum(figures.layer.macs for figures in self.layers)

    @cached_property
    def weights(self) -> int:
        """Weights and biases of all layers (elements)."""
        return sum(figures.layer.weights for figures in self.layers)

    @cached_property
    def cycles(self) -> int:
        """Cycles of all layers, one after the other, without waiting for DRAM."""
        return sum(figures.cycles for figures in self.layers)

    @cached_property
    def array_cycles(self) -> int:
        """Those of the cycles in which the array works."""
        return sum(figures.array_cycles for figures in self.layers)

    @cached_property
    def utilisation(self) -> float:
        """Share of the array's multiply-accumulate units that work while the array does (0 to 1)."""
        return _utilisation(self.macs, self.array_cycles, self.accelerator)

    @cached_property
    def time_s(self) -> float | None:
        """Time of a run with waiting for DRAM (s); None where the accelerator states no clock."""
        return _seconds(sum(figures.elapsed_cycles for figures in self.layers), self.accelerator)

    @cached_property
    def traffic(self) -> Traffic:
        """Words that all layers move."""
        return Traffic.sum(figures.traffic for figures in self.layers)

    @cached_property
    def energy(self) -> Energy:
        """Energy of all layers (pJ)."""
        return Energy.sum(figures.energy for figures in self.layers)

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """What a reader of the figures should know, a sentence each."""
        dense = [figures for figures in self.layers if figures.layer.kind == "dense" and _is_single(figures)]
        cycles = sum(figures.cycles for figures in dense)
        if self.cycles and cycles / self.cycles > _DOMINATES:
            largest = max(dense, key=lambda figures: figures.cycles).layer.name
            text = (
                f"dense layers at batch 1 take {cycles / self.cycles:.0%} of the cycles (most: {largest}): the array "
                "loads each of their weights for a single product; a larger batch shares them"
            )
            return (text,)
        return ()

    @cached_property
    def totals(self) -> dict[str, float | None]:
        """The totals by name: "macs", "cycles", "time_s", "dram_words", "energy", "energy.dram", ... (pJ)."""
        return {
            "macs": self.macs,
            "weights": self.weights,
            "cycles": self.cycles,
            "time_s": self.time_s,
            "dram_words": self.traffic.dram_words,
            "sram_words": self.traffic.sram_words,
            "energy": self.energy.total,
            **{f"energy.{component}": energy for component, energy in asdict(self.energy).items()},
        }

    def layer_dict(self, figures: LayerFigures) -> dict[str, Any]:
        """Return a layer's figures as JSON has them."""
        layer = figures.layer
        return {
            "name": layer.name,
            "operator": layer.operator,
            "kind": layer.kind,
            "inputs": layer.inputs,
            "outputs": layer.outputs,
            "macs": layer.macs,
            "weights": layer.weights,
            "cycles": figures.cycles,
            "array_cycles": figures.array_cycles,
            "utilisation": _utilisation(layer.macs, figures.array_cycles, self.accelerator),
            "time_s": _seconds(figures.elapsed_cycles, self.accelerator),
            "bound": figures.bound,
            "tiles": figures.tiles,
            "array": asdict(figures.accesses),
            **_words_and_energy(figures.traffic, figures.energy),
        }

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON has it: plain numbers, energies in pJ unless the name says mJ, times in s."""
        return {
            "model": self.model,
            "batch": self.batch,
            "accelerator": asdict(self.accelerator),
            "total": {
                "macs": self.macs,
                "weights": self.weights,
                "cycles": self.cycles,
                "array_cycles": self.array_cycles,
                "utilisation": self.utilisation,
                "time_s": self.time_s,
                **_words_and_energy(self.traffic, self.energy),
                "energy_mj": self.energy.millijoules,
            },
            "layers": [self.layer_dict(figures) for figures in self.layers],
            "uncosted": [asdict(work) for work in self.uncosted],
            "warnings": list(self.warnings),
        }


def _words_and_energy(traffic: Traffic, energy: Energy) -> dict[str, Any]:
    words = asdict(traffic)
    return {
        "dram_words": traffic.dram_words,
        "sram_words": traffic.sram_words,
        **{side: {name[5:]: words[name] for name in words if name.startswith(side)} for side in ("dram", "sram")},
        "energy_pj": {**asdict(energy), "total": energy.total},
    }


def _utilisation(macs: int, cycles: int, accelerator: Accelerator) -> float:
    return macs / (cycles * accelerator.rows * accelerator.columns) if cycles else 0.0


def _seconds(cycles: float, accelerator: Accelerator) -> float | None:
    return None if accelerator.clock_mhz is None else cycles / (accelerator.clock_mhz * 1e6)


def _is_single(figures: LayerFigures) -> bool:
    return all(product.pixels == 1 for product in figures.layer.products)


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a cut model takes of what its base takes.

    `ratios` maps each figure of `Report.totals` to cut / base; None where the base has none of it.
    """

    base: Report
    cut: Report
    ratios: dict[str, float | None]

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison as JSON has it."""
        return {"base": self.base.to_dict(), "cut": self.cut.to_dict(), "ratios": dict(self.ratios)}


def estimate(
    model: bytes | Graph,
    accelerator: Accelerator = DAC20,
    *,
    name: str = "model",
    batch: int = 1,
    shapes: Mapping[int, tuple[int, ...]] | None = None,
) -> Report:
    """Cost a model on an accelerator.

    Parameters
    ----------
    model
        The content of a .tflite file, or its graph.
    name
        What the report and the messages of errors call the model.
    batch
        How many inferences run together, sharing each weight that they fetch.
    shapes
        Tensor index -> the shape to assume instead of the file's: what the model would cost with other widths, without
        making the file.

    Raises
    ------
    edge_runtime.errors.ModelFileError
        The content is no .tflite file, is damaged, or an operator's tensors do not fit it.
    HardwareError
        `batch` is not 1 or more, or `shapes` names a tensor that the model does not have.
    """
    graph = model if isinstance(model, Graph) else read_graph(model, name)
    try:
        workload = read_workload(_reshaped(graph, shapes) if shapes else graph)
    except ModelFileError as error:
        raise ModelFileError(f"{name}: {error}") from error
    return estimate_workload(workload, accelerator, name=name, batch=batch)


def _reshaped(graph: Graph, shapes: Mapping[int, tuple[int, ...]]) -> Graph:
    tensors = list(graph.tensors)
    for index, shape in shapes.items():
        if not 0 <= index < len(tensors):
            raise HardwareError(f"shapes has tensor {index}: the model has {len(tensors)} tensors")
        tensors[index] = replace(tensors[index], shape=tuple(shape))
    return replace(graph, tensors=tuple(tensors))


def estimate_workload(
    workload: Workload, accelerator: Accelerator = DAC20, *, name: str = "model", batch: int = 1
) -> Report:
    """Cost layers that are given as values: of networks of which there is no file.

    Raises
    ------
    HardwareError
        `batch` is not 1 or more.
    """
    if batch < 1:
        raise HardwareError(f"batch is {batch}: expected 1 or more inferences together")
    workload = workload.batched(batch)
    layers = tuple(
        layer_figures(layer, accelerator, placement)
        for layer, placement in zip(workload.layers, place(workload, accelerator), strict=True)
    )
    return Report(name, accelerator, layers, workload.uncosted, batch)


def compare(base: Report, cut: Report) -> Comparison:
    """Return the ratio of each total of `cut` to that of `base`."""
    ratios: dict[str, float | None] = {}
    for figure, value in base.totals.items():
        part = cut.totals[figure]
        ratios[figure] = part / value if value and part is not None else None
    return Comparison(base, cut, ratios)
