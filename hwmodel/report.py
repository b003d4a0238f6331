"""The figures of a model on an accelerator, layer by layer and in total, and the ratios between two models."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from edge_runtime.errors import ModelFileError
from edge_runtime.flatmodel import Graph, read_graph
from hwmodel.accelerator import DAC20
from hwmodel.energy import Energy, Traffic, layer_energy, layer_traffic
from hwmodel.operators import read_workload

if TYPE_CHECKING:
    from hwmodel.accelerator import Accelerator
    from hwmodel.workload import Layer, Uncosted, Workload

__all__ = ["Comparison", "LayerFigures", "Report", "compare", "estimate", "estimate_workload"]


@dataclass(frozen=True, slots=True)
class LayerFigures:
    """A layer, the words it moves and the energy it takes in one inference."""

    layer: Layer
    traffic: Traffic
    energy: Energy


@dataclass(frozen=True)
class Report:
    """What one inference of a model costs on an accelerator.

    Attributes
    ----------
    model
        What the caller calls the model.
    layers
        Figures in the order of the file.
    uncosted
        Work that the figures leave out because the hardware model does not understand it. Where there is any, the
        totals are lower bounds.
    """

    model: str
    accelerator: Accelerator
    layers: tuple[LayerFigures, ...]
    uncosted: tuple[Uncosted, ...]

    @cached_property
    def macs(self) -> int:
        """Multiply-accumulate operations of all layers."""
        return sum(figures.layer.macs for figures in self.layers)

    @cached_property
    def weights(self) -> int:
        """Weights and biases of all layers (elements)."""
        return sum(figures.layer.weights for figures in self.layers)

    @cached_property
    def traffic(self) -> Traffic:
        """Words that all layers move."""
        return sum((figures.traffic for figures in self.layers), Traffic())

    @cached_property
    def energy(self) -> Energy:
        """Energy of all layers (pJ)."""
        return sum((figures.energy for figures in self.layers), Energy())

    @cached_property
    def totals(self) -> dict[str, float]:
        """The totals by name: "macs", "weights", "dram_words", "sram_words", "energy", "energy.dram", ... (pJ)."""
        return {
            "macs": self.macs,
            "weights": self.weights,
            "dram_words": self.traffic.dram_words,
            "sram_words": self.traffic.sram_words,
            "energy": self.energy.total,
            **{f"energy.{component}": energy for component, energy in asdict(self.energy).items()},
        }

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON has it: plain numbers, energies in pJ unless the name says mJ."""
        return {
            "model": self.model,
            "accelerator": asdict(self.accelerator),
            "total": {
                **_figures(self.macs, self.weights, self.traffic, self.energy),
                "energy_mj": self.energy.millijoules,
            },
            "layers": [
                {
                    "name": figures.layer.name,
                    "operator": figures.layer.operator,
                    "kind": figures.layer.kind,
                    "inputs": figures.layer.inputs,
                    "outputs": figures.layer.outputs,
                    **_figures(figures.layer.macs, figures.layer.weights, figures.traffic, figures.energy),
                }
                for figures in self.layers
            ],
            "uncosted": [asdict(work) for work in self.uncosted],
        }


def _figures(macs: int, weights: int, traffic: Traffic, energy: Energy) -> dict[str, Any]:
    return {
        "macs": macs,
        "weights": weights,
        "dram_words": traffic.dram_words,
        "sram_words": traffic.sram_words,
        "energy_pj": {**asdict(energy), "total": energy.total},
    }


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


def estimate(model: bytes | Graph, accelerator: Accelerator = DAC20, *, name: str = "model") -> Report:
    """Cost a model on an accelerator.

    Parameters
    ----------
    model
        The content of a .tflite file, or its graph.
    name
        What the report and the messages of errors call the model.

    Raises
    ------
    edge_runtime.errors.ModelFileError
        The content is no .tflite file, is damaged, or an operator's tensors do not fit it.
    """
    graph = model if isinstance(model, Graph) else read_graph(model, name)
    try:
        workload = read_workload(graph)
    except ModelFileError as error:
        raise ModelFileError(f"{name}: {error}") from error
    return estimate_workload(workload, accelerator, name=name)


def estimate_workload(workload: Workload, accelerator: Accelerator = DAC20, *, name: str = "model") -> Report:
    """Cost layers that are given as values: of networks of which there is no file."""
    layers = tuple(
        LayerFigures(layer, layer_traffic(layer, accelerator), layer_energy(layer, accelerator))
        for layer in workload.layers
    )
    return Report(name, accelerator, layers, workload.uncosted)


def compare(base: Report, cut: Report) -> Comparison:
    """Return the ratio of each total of `cut` to that of `base`."""
    ratios = {figure: cut.totals[figure] / value if value else None for figure, value in base.totals.items()}
    return Comparison(base, cut, ratios)
