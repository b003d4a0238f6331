"""Memory traffic and energy of a layer.

Every word that comes from or goes to DRAM passes a buffer once: one SRAM access for each. Besides,

- the array reads weights and inputs and writes sums as its dataflow has it (`dataflow.ArrayAccesses`); each sum that it
  writes is read once, by what continues it or by the next unit; a bias is read once;
- element-wise operators and copies read their operands and write their results;
- pooling, activation, reduction and softmax units sit on the way out of the array (CAP'NN, DAC 2020, Figure 2) and read
  the outputs counted above; only where DRAM holds their operands do they fetch these from the buffer.

With weights from DRAM and activations on the chip, as in `dac20`, that is 2 * weights + inputs + 2 * outputs of the
array. The paper's own equations are not public: these are a reconstruction. docs/decisions/0006-dac20-energy.md says
what supports it and what does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hwmodel.accelerator import Accelerator
    from hwmodel.workload import Layer

__all__ = ["Energy", "Traffic", "energy_of"]


@dataclass(frozen=True, slots=True)
class Traffic:
    """Words that move in one run: reads and writes of DRAM and of SRAM, by what they are (words).

    `dram_weights` are filters and other constants without the biases, which are apart.
    """

    dram_weights: int = 0
    dram_biases: int = 0
    dram_inputs: int = 0
    dram_outputs: int = 0
    sram_weights: int = 0
    sram_inputs: int = 0
    sram_outputs: int = 0

    @property
    def dram_words(self) -> int:
        """Words between DRAM and the chip."""
        return self.dram_weights + self.dram_biases + self.dram_inputs + self.dram_outputs

    @property
    def sram_words(self) -> int:
        """Reads and writes of on-chip buffers."""
        return self.sram_weights + self.sram_inputs + self.sram_outputs

    @classmethod
    def sum(cls, parts: Iterable[Traffic]) -> Traffic:
        """Return what all `parts` move together."""
        return cls(*_totals(parts, cls.__slots__))


@dataclass(frozen=True, slots=True)
class Energy:
    """Energy of one run by component, all in pJ.

    Attributes
    ----------
    dram, sram
        Accesses of memory.
    macs
        Multiply-accumulate operations on the array.
    pooling
        Comparisons of max pooling.
    activation
        Rectified elements.
    arithmetic
        All other operations outside the array.
    """

    dram: float = 0.0
    sram: float = 0.0
    macs: float = 0.0
    pooling: float = 0.0
    activation: float = 0.0
    arithmetic: float = 0.0

    @property
    def total(self) -> float:
        """The sum of all components (pJ)."""
        return self.dram + self.sram + self.macs + self.pooling + self.activation + self.arithmetic

    @property
    def millijoules(self) -> float:
        """The sum of all components (mJ)."""
        return self.total * 1e-9

    @classmethod
    def sum(cls, parts: Iterable[Energy]) -> Energy:
        """Return what all `parts` take together."""
        return cls(*_totals(parts, cls.__slots__))


def _totals(parts: Iterable[object], names: Iterable[str]) -> list[Any]:
    parts = list(parts)
    return [sum(map(attrgetter(name), parts)) for name in names]


def energy_of(layer: Layer, traffic: Traffic, accelerator: Accelerator) -> Energy:
    """Return the energy of a layer that moves `traffic`."""
    comparisons = layer.comparisons * accelerator.max_pool_pj
    is_pooling = layer.kind == "pooling"
    return Energy(
        dram=traffic.dram_words * accelerator.dram_pj,
        sram=traffic.sram_words * accelerator.sram_pj,
        macs=layer.macs * accelerator.mac_pj,
        pooling=comparisons if is_pooling else 0.0,
        activation=layer.rectified * accelerator.relu_pj,
        arithmetic=layer.additions * accelerator.add_pj
        + layer.multiplications * accelerator.multiply_pj
        + layer.functions * accelerator.mac_pj
        + (0.0 if is_pooling else comparisons),
    )
