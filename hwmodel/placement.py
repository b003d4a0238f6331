"""What stays on the chip from one layer, and from one inference, to the next.

Activations (where the accelerator keeps them): an output stays until the last layer that reads it has run. Where all
that must stay during a layer, with the layer's own inputs and outputs, is more than the buffer holds, all of it goes
through DRAM: its producers write it there, and the layers that read it fetch it.

Weights (where the accelerator keeps them): all, where the buffer holds them; otherwise layer by layer, in the order of
the file, while they fit half of it. The other half is for the weights of the other layers, which come and go.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hwmodel.accelerator import Accelerator
    from hwmodel.workload import Layer, Workload

__all__ = ["Placement", "place"]


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a layer finds its operands.

    Attributes
    ----------
    inputs
        Elements of its inputs that DRAM holds.
    outputs, weights
        Whether its outputs go to DRAM, and whether its weights come from there.
    kept_weights
        Words of the weight buffer that layers with lasting weights take.
    """

    inputs: int
    outputs: bool
    weights: bool = True
    kept_weights: int = 0


def place(workload: Workload, accelerator: Accelerator) -> list[Placement]:
    """Say for each layer what comes from and goes to DRAM."""
    layers = workload.layers
    lasting, taken = _lasting_weights(layers, accelerator)
    if not accelerator.keep_activations:
        return [
            Placement(layer.inputs, outputs=True, weights=number not in lasting, kept_weights=taken)
            for number, layer in enumerate(layers)
        ]
    sources = _sources(layers)
    crowded, in_dram = _crowded(layers, sources, accelerator.words_in(accelerator.activation_buffer_kib))
    placements = []
    for number, layer in enumerate(layers):
        fetched = sum(layers[source].outputs for source in sources[number] if source in in_dram)
        inputs = layer.inputs if number in crowded else min(layer.inputs, fetched)
        placements.append(Placement(inputs, number in in_dram, number not in lasting, taken))
    return placements


def _lasting_weights(layers: tuple[Layer, ...], accelerator: Accelerator) -> tuple[set[int], int]:
    """Return which layers' weights stay from one inference to the next, and how many words they are."""
    lasting: set[int] = set()
    taken = 0
    if accelerator.keep_weights:
        room = accelerator.words_in(accelerator.weight_buffer_kib)
        if sum(layer.weights for layer in layers) > room:
            room /= 2
        for number, layer in enumerate(layers):
            if layer.weights and taken + layer.weights <= room:
                lasting.add(number)
                taken += layer.weights
    return lasting, taken


def _sources(layers: tuple[Layer, ...]) -> list[tuple[int, ...]]:
    """Return for each layer those that computed what it reads: operators without cost only hand it on."""
    sources: list[tuple[int, ...]] = []
    for number, layer in enumerate(layers):
        before = (number - 1,) if number else ()
        read = before if layer.sources is None else layer.sources
        handed_on = (sources[one] if layers[one].kind == "no cost" else (one,) for one in read)
        sources.append(tuple(dict.fromkeys(one for origin in handed_on for one in origin)))
    return sources


def _crowded(layers: tuple[Layer, ...], sources: list[tuple[int, ...]], room: float) -> tuple[set[int], set[int]]:
    """Return the layers during which not all fits, and those whose outputs DRAM therefore holds."""
    last_use = {source: number for number, read in enumerate(sources) for source in read}
    crowded: set[int] = set()
    in_dram: set[int] = set()
    waiting: dict[int, int] = {}  # outputs that a later layer reads
    for number, layer in enumerate(layers):
        if layer.kind == "no cost":
            continue
        bystanders = sum(size for one, size in waiting.items() if one not in sources[number] and one not in in_dram)
        if layer.inputs + layer.outputs + bystanders > room:
            crowded.add(number)
            in_dram |= {*waiting, number}
        if last_use.get(number, -1) > number:
            waiting[number] = layer.outputs
        waiting = {one: size for one, size in waiting.items() if last_use[one] > number}
    return crowded, in_dram
