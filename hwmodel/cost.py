"""What one layer takes on an accelerator: cycles, time, words, energy."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from hwmodel.dataflow import ArrayAccesses, array_accesses
from hwmodel.energy import Energy, Traffic, energy_of
from hwmodel.placement import Placement, place
from hwmodel.tiling import Rooms, overlapped, schedule_product
from hwmodel.workload import Workload

if TYPE_CHECKING:
    from hwmodel.accelerator import Accelerator
    from hwmodel.workload import Layer

__all__ = ["Bound", "LayerFigures", "layer_figures"]

Bound = Literal["compute", "memory"]
"""What a layer waits for: the units that compute, or DRAM."""


@dataclass(frozen=True, slots=True)
class LayerFigures:
    """What a layer takes in one run.

    Attributes
    ----------
    array_cycles, vector_cycles
        Of the array, and of the units behind it, which take their turn; without waiting for DRAM (cycles).
    elapsed_cycles
        Of both with the waiting (cycles); see `hwmodel.tiling.overlapped`.
    accesses
        Elements that the array reads and writes: SCALE-Sim's SRAM counts.
    traffic, energy
        Words moved, and pJ.
    tiles
        Parts that what streams through the array was cut into because it does not fit; 1 where it was not.
    bound
        Whether computing or DRAM takes longer; None where there is neither.
    """

    layer: Layer
    array_cycles: int
    vector_cycles: int
    elapsed_cycles: float
    accesses: ArrayAccesses
    traffic: Traffic
    energy: Energy
    tiles: int
    bound: Bound | None

    @property
    def cycles(self) -> int:
        """Cycles of array and vector units together, without waiting for DRAM."""
        return self.array_cycles + self.vector_cycles


def layer_figures(layer: Layer, accelerator: Accelerator, placement: Placement | None = None) -> LayerFigures:
    """Cost one layer.

    `placement` says what DRAM holds; without it, what it would hold were this layer the whole network.
    """
    if placement is None:
        placement = place(Workload((replace(layer, sources=()),)), accelerator)[0]
    if layer.products:
        cycles, accesses, traffic, tiles = _on_array(layer, accelerator, placement)
    else:
        cycles, accesses, tiles = 0, ArrayAccesses(), 1
        traffic = _behind_array(layer, placement)
    # A fused activation works on what leaves the array; all else behind the array takes its turn.
    vector_cycles = -(-layer.vector_operations // accelerator.lanes)
    busy = cycles + vector_cycles
    elapsed = overlapped(busy, traffic.dram_words, accelerator)
    bound: Bound | None = None
    if elapsed:
        bound = "memory" if traffic.dram_words / accelerator.dram_words_per_cycle > busy else "compute"
    energy = energy_of(layer, traffic, accelerator)
    return LayerFigures(layer, cycles, vector_cycles, elapsed, accesses, traffic, energy, tiles, bound)


def _on_array(layer: Layer, accelerator: Accelerator, placement: Placement) -> tuple[int, ArrayAccesses, Traffic, int]:
    rooms = Rooms.of(accelerator, kept_weights=placement.kept_weights)
    accesses, cycles, tiles = ArrayAccesses(), 0, 1
    # Several products of one layer (gates) share its inputs, and what they make is not what the layer puts out.
    is_single = len(layer.products) == 1
    made = layer.outputs if placement.outputs else 0
    weights, sums = 0, 0
    inputs, outputs = (0, 0) if is_single else (placement.inputs, made)
    for product in layer.products:
        plan = schedule_product(
            product,
            accelerator,
            rooms,
            weights=placement.weights if product.stored else placement.inputs > 0,
            inputs=is_single and placement.inputs > 0,
            outputs=made if is_single else 0,
        )
        one = array_accesses(product, accelerator, tiles=plan.tiles)
        accesses += one
        cycles += plan.cycles
        tiles = max(tiles, plan.tiles)
        weights += plan.weights if product.stored else 0
        inputs += plan.inputs + (0 if product.stored else plan.weights)
        outputs += plan.outputs
        folded = one.output_writes > product.groups * product.filters * product.pixels
        sums += 2 * one.output_writes * (accelerator.sum_words if folded else 1)
    biases = layer.weights - layer.filter_weights
    fetched = biases if placement.weights else 0
    traffic = Traffic(
        dram_weights=weights,
        dram_biases=fetched,
        dram_inputs=inputs,
        dram_outputs=outputs,
        sram_weights=accesses.weight_reads + biases + weights + fetched,
        sram_inputs=accesses.input_reads + inputs,
        sram_outputs=sums + outputs,
    )
    return cycles, accesses, traffic, tiles


def _behind_array(layer: Layer, placement: Placement) -> Traffic:
    if layer.kind == "no cost":
        return Traffic()
    fetched = layer.weights if placement.weights else 0
    outputs = layer.outputs if placement.outputs else 0
    if layer.kind in {"elementwise", "copy"}:
        read, written = layer.inputs, layer.outputs
    else:
        read, written = placement.inputs, outputs
    return Traffic(
        dram_weights=fetched,
        dram_inputs=placement.inputs,
        dram_outputs=outputs,
        sram_weights=layer.weights + fetched,
        sram_inputs=read + placement.inputs,
        sram_outputs=written + outputs,
    )
