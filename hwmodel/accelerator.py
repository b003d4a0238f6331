"""The accelerator that a model is costed on: an array of multiply-accumulate units, on-chip buffers, off-chip DRAM."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Final

from hwmodel.errors import AcceleratorError

__all__ = ["DAC20", "PRESETS", "Accelerator"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Accelerator:
    """A weight-stationary accelerator: the size of its array, the width of its words, the energy of each operation.

    Attributes
    ----------
    name
        What reports call it.
    rows, columns
        Multiply-accumulate units along the two sides of the array (units). A row holds one element
        of every filter, a column one filter.
    word_bits
        Width of a word (bits). Every weight, activation and partial sum takes one word, whatever type the model file
        stores it in.
    add_pj, multiply_pj
        Energy of one addition and of one multiplication (pJ). A multiply-accumulate costs both.
    max_pool_pj
        Energy of one comparison in the pooling unit (pJ).
    relu_pj
        Energy of rectifying one element in the activation unit (pJ).
    sram_pj
        Energy of reading or writing one word of an on-chip buffer (pJ).
    dram_pj
        Energy of reading one word of off-chip memory (pJ).

    Raises
    ------
    AcceleratorError
        A size that is not positive, or an energy that is negative or not finite.
    """

    name: str
    rows: int
    columns: int
    word_bits: int
    add_pj: float
    multiply_pj: float
    max_pool_pj: float
    relu_pj: float
    sram_pj: float
    dram_pj: float

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in {"rows", "columns", "word_bits"} and value < 1:
                raise AcceleratorError(f"accelerator {self.name}: {field.name} is {value}, it must be 1 or more")
            if field.name.endswith("_pj") and not (math.isfinite(value) and value >= 0):
                raise AcceleratorError(f"accelerator {self.name}: {field.name} is {value}, it must be 0 pJ or more")

    @property
    def mac_pj(self) -> float:
        """Energy of one multiply-accumulate (pJ)."""
        return self.add_pj + self.multiply_pj


DAC20: Final = Accelerator(
    name="dac20",
    # Not in Table I: chosen with the traffic equations (docs/decisions/0006-dac20-energy.md).
    rows=256,
    columns=256,
    # CAP'NN, DAC 2020, Table I: energy per operation on 16-bit words.
    word_bits=16,
    add_pj=0.4,
    multiply_pj=1.0,
    max_pool_pj=1.2,
    relu_pj=0.9,
    sram_pj=5.0,
    dram_pj=640.0,
)
"""The accelerator of CAP'NN (DAC 2020), Figure 2 and Table I. A reconstruction: its equations are not public."""

PRESETS: Final = {DAC20.name: DAC20}
"""The accelerators that the command line knows, by name."""
