"""The accelerator that a model is costed on: an array of multiply-accumulate units, on-chip buffers, off-chip DRAM."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Final, Literal, get_args

from hwmodel.errors import AcceleratorError

__all__ = ["Accelerator", "Dataflow", "Word"]

Dataflow = Literal["ws", "os", "is"]
"""What stays in the array while the rest streams through: weights, outputs or inputs."""
Word = Literal["int8", "int16", "float16"]
"""The type of weights and activations."""

_WORD_BITS: Final = {"int8": 8, "int16": 16, "float16": 16}
_COUNTS: Final = ("rows", "columns", "accumulator_bits", "vector_lanes")
_SWITCHES: Final = ("double_buffered", "keep_activations", "keep_weights")
_ENERGIES: Final = ("add_pj", "multiply_pj", "max_pool_pj", "relu_pj", "sram_pj", "dram_pj")


@dataclass(frozen=True, slots=True, kw_only=True)
class Accelerator:
    """A TPU-like accelerator (CAP'NN, DAC 2020, Figure 2): sizes, speeds, and the energy of each operation.

    Where a capacity or a speed is None it is without limit, or not known: nothing waits for it.

    Attributes
    ----------
    name
        What reports call it.
    rows, columns
        Multiply-accumulate units along the two sides of the array (units).
    word
        Type of weights, biases and activations on the chip and in DRAM, whatever type the model file stores:
        "int8" (8 bits), "int16" or "float16" (16 bits).
    add_pj, multiply_pj
        Energy of one addition and of one multiplication (pJ). A multiply-accumulate costs both; a value of a
        non-linear function, looked up and interpolated, too.
    max_pool_pj
        Energy of one comparison (pJ).
    relu_pj
        Energy of rectifying one element in the activation unit (pJ).
    sram_pj
        Energy of reading or writing one word of an on-chip buffer (pJ).
    dram_pj
        Energy of reading or writing one word of off-chip memory (pJ).
    dataflow
        What stays in the array: "ws" weights, "os" outputs, "is" inputs. Default "ws".
    accumulator_bits
        Width of a partial sum (bits). Default 32.
    vector_lanes
        Operations a cycle of the units behind the array: pooling, activation, element-wise (operations/cycle).
        None: one a column of the array.
    clock_mhz
        Clock of the array (MHz).
    dram_gb_s
        Bandwidth of off-chip memory, both directions together (10^9 bytes/s).
    weight_buffer_kib, activation_buffer_kib
        Capacity of the buffer for weights, and of the one for inputs and outputs (KiB).
    accumulator_kib
        Capacity for partial sums, divided evenly among the columns (KiB).
    double_buffered
        Whether one half of each buffer is filled while the other is worked on: DRAM transfers then overlap with
        computing, and what is worked on must fit half a buffer. Default true.
    keep_activations
        Whether activations that fit stay on the chip from one layer to the next. Default false: every layer reads its
        inputs from DRAM and writes its outputs there.
    keep_weights
        Whether weights stay on the chip from one inference to the next: all where they fit, else some layers'. Default
        false: all are read from DRAM for each inference.

    Raises
    ------
    AcceleratorError
        A value is of the wrong type or out of its range; the message names the field.
    """

    name: str
    rows: int
    columns: int
    word: Word
    add_pj: float
    multiply_pj: float
    max_pool_pj: float
    relu_pj: float
    sram_pj: float
    dram_pj: float
    dataflow: Dataflow = "ws"
    accumulator_bits: int = 32
    vector_lanes: int | None = None
    clock_mhz: float | None = None
    dram_gb_s: float | None = None
    weight_buffer_kib: float | None = None
    activation_buffer_kib: float | None = None
    accumulator_kib: float | None = None
    double_buffered: bool = True
    keep_activations: bool = False
    keep_weights: bool = False

    def __post_init__(self) -> None:
        optional = {field.name for field in fields(self) if field.default is None}
        for field in fields(self):
            value = getattr(self, field.name)
            expected = "" if value is None and field.name in optional else _expectation(field.name, value)
            if expected:
                raise AcceleratorError(f"accelerator {self.name}: {field.name} is {value!r}: expected {expected}")
        if self.accumulator_bits < self.word_bits:
            raise AcceleratorError(
                f"accelerator {self.name}: accumulator_bits is {self.accumulator_bits}: "
                f"expected {self.word_bits}, the width of a word of {self.word}, or more"
            )

    @property
    def word_bits(self) -> int:
        """Width of a word (bits)."""
        return _WORD_BITS[self.word]

    @property
    def mac_pj(self) -> float:
        """Energy of one multiply-accumulate (pJ)."""
        return self.add_pj + self.multiply_pj

    @property
    def lanes(self) -> int:
        """Operations a cycle of the units behind the array."""
        return self.vector_lanes or self.columns

    @property
    def sum_words(self) -> int:
        """Words that one partial sum takes."""
        return -(-self.accumulator_bits // self.word_bits)

    @property
    def dram_words_per_cycle(self) -> float:
        """Words that DRAM moves in a cycle of the clock; infinite where the clock or the bandwidth is not stated."""
        if self.clock_mhz is None or self.dram_gb_s is None:
            return math.inf
        return self.dram_gb_s * 8e3 / (self.word_bits * self.clock_mhz)

    @property
    def peak_macs_per_s(self) -> float | None:
        """Multiply-accumulate operations of the whole array (1/s); None where the clock is not stated."""
        return None if self.clock_mhz is None else self.rows * self.columns * self.clock_mhz * 1e6

    def words_in(self, kib: float | None) -> float:
        """Return how many words a capacity holds."""
        return math.inf if kib is None else kib * 8192 // self.word_bits


_CHOICES: Final = {"word": get_args(Word), "dataflow": get_args(Dataflow)}


def _expectation(name: str, value: object) -> str:
    """Return what the field `name` should be; nothing where `value` will do."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if name == "name":
        will_do, expected = isinstance(value, str) and bool(value), "a text that is not empty"
    elif name in _CHOICES:
        will_do, expected = value in _CHOICES[name], "one of " + ", ".join(f'"{one}"' for one in _CHOICES[name])
    elif name in _SWITCHES:
        will_do, expected = isinstance(value, bool), "true or false"
    elif name in _COUNTS:
        will_do, expected = is_number and isinstance(value, int) and value >= 1, "a whole number of 1 or more"
    elif name in _ENERGIES:
        will_do, expected = is_number and isinstance(value, int | float) and value >= 0, "0 pJ or more"
    else:
        will_do, expected = is_number and isinstance(value, int | float) and value > 0, "a number above 0"
    return "" if will_do else expected
