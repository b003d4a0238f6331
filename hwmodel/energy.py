"""Memory traffic and energy of a layer in closed form, for a weight-stationary accelerator with activations on chip.

On an array of R x C, a product with filters of K elements, N filters and T pixels runs in ceil(K / R) * ceil(N / C)
folds: a block of R x C weights stays in the array while all T pixels stream through it. Per inference,

- DRAM is read once for each weight and bias, and for nothing else;
- SRAM is written and read once for each weight: 2 * weights;
- SRAM is read for the inputs of every fold, so again for each block of C filters: K * T * ceil(N / C);
- SRAM is written and read for the partial sums of every fold, so again for each block of R elements:
  2 * N * T * ceil(K / R).

Pooling, activation, mean and softmax units sit on the way out of the array (CAP'NN, DAC 2020, Figure 2): what they
read are the outputs counted above. Element-wise operators fetch their operands and store their results: inputs +
outputs.

The paper's own equations are not public: these are a reconstruction. docs/decisions/0006-dac20-energy.md says what
supports it and what does not.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hwmodel.accelerator import Accelerator
    from hwmodel.workload import Layer, MatrixProduct

__all__ = ["Energy", "Traffic", "layer_energy", "layer_traffic", "streamed_words"]


@dataclass(frozen=True, slots=True)
class Traffic:
    """Words that move in one inference: reads of DRAM, reads and writes of SRAM."""

    dram_words: int = 0
    sram_words: int = 0

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(self.dram_words + other.dram_words, self.sram_words + other.sram_words)


@dataclass(frozen=True, slots=True)
class Energy:
    """Energy of one inference by component, all in pJ.

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
        Additions and multiplications outside the array.
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
        return float(sum(getattr(self, component.name) for component in fields(self)))

    @property
    def millijoules(self) -> float:
        """The sum of all components (mJ)."""
        return self.total * 1e-9

    def __add__(self, other: Energy) -> Energy:
        return Energy(*(getattr(self, part.name) + getattr(other, part.name) for part in fields(self)))


def streamed_words(product: MatrixProduct, accelerator: Accelerator) -> tuple[int, int]:
    """Return the words of inputs and of partial sums that stream through the weight-stationary array, over all folds.

    The counts are those of SCALE-Sim 3.0.0 (`sram_if_rd` and `sram_of_wr`).
    """
    row_folds = -(-product.reduction // accelerator.rows)
    column_folds = -(-product.filters // accelerator.columns)
    streams = product.groups * product.pixels
    return streams * product.reduction * column_folds, streams * product.filters * row_folds


def layer_traffic(layer: Layer, accelerator: Accelerator) -> Traffic:
    """Return the words that one layer moves; the module's docstring has the equations."""
    sram = 2 * layer.weights
    if layer.product is not None:
        inputs, outputs = streamed_words(layer.product, accelerator)
        sram += inputs + 2 * outputs
    elif layer.kind == "elementwise":
        sram += layer.inputs + layer.outputs
    return Traffic(dram_words=layer.weights, sram_words=sram)


def layer_energy(layer: Layer, accelerator: Accelerator) -> Energy:
    """Return the energy of one layer (pJ)."""
    traffic = layer_traffic(layer, accelerator)
    return Energy(
        dram=traffic.dram_words * accelerator.dram_pj,
        sram=traffic.sram_words * accelerator.sram_pj,
        macs=layer.macs * accelerator.mac_pj,
        pooling=layer.comparisons * accelerator.max_pool_pj,
        activation=layer.rectified * accelerator.relu_pj,
        arithmetic=layer.additions * accelerator.add_pj + layer.multiplications * accelerator.multiply_pj,
    )
