"""How a product runs on the array: folds, cycles, and the words that the array reads and writes, in closed form.

A product of K elements a filter, N filters and T pixels is laid over an array of R x C units, one fold after another:

| dataflow | along the rows | along the columns | streamed S | cycles of a fold |
|---|---|---|---|---|
| weight stationary | K | N | T | R to load the weights, then S + R + C - 2 until the last sum has left |
| output stationary | T | N | K | S + R + C - 2 until the last unit has its sum, which leaves at once |
| input stationary | K | T | N | as weight stationary, with inputs loaded and weights streamed |

These are the equations of SCALE-Sim 3.0.0, whose compute cycles and SRAM counts they give exactly; the tests prove them
on an array that is simulated one cycle at a time. A fold takes as long on a part of the array as on all of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hwmodel.accelerator import Accelerator
    from hwmodel.workload import MatrixProduct

__all__ = ["ArrayAccesses", "Mapping", "array_accesses", "array_cycles", "map_product"]


@dataclass(frozen=True, slots=True)
class Mapping:
    """One group of a product on the array.

    Attributes
    ----------
    row_folds, column_folds
        Blocks along the two sides; every pair of them is a fold.
    streamed
        Steps that stream through the array in a fold.
    overhead
        Cycles of a fold beyond those: loading, filling and draining.
    """

    row_folds: int
    column_folds: int
    streamed: int
    overhead: int

    def cycles(self, tiles: int = 1) -> int:
        """Return the cycles of all folds, with what streams cut into `tiles` parts that pass through them in turn."""
        return self.row_folds * self.column_folds * (self.streamed + tiles * self.overhead)


@dataclass(frozen=True, slots=True)
class ArrayAccesses:
    """Elements that the array takes from and gives to the buffers, all folds and groups (elements).

    `output_writes` counts partial sums: with rows along K, an output once for each block of rows.
    """

    weight_reads: int = 0
    input_reads: int = 0
    output_writes: int = 0

    def __add__(self, other: ArrayAccesses) -> ArrayAccesses:
        return ArrayAccesses(
            self.weight_reads + other.weight_reads,
            self.input_reads + other.input_reads,
            self.output_writes + other.output_writes,
        )


def map_product(product: MatrixProduct, accelerator: Accelerator) -> Mapping:
    """Lay a product over the array in the accelerator's dataflow."""
    rows, columns = accelerator.rows, accelerator.columns
    if accelerator.dataflow == "ws":
        along_rows, along_columns, streamed = product.reduction, product.filters, product.pixels
    elif accelerator.dataflow == "os":
        along_rows, along_columns, streamed = product.pixels, product.filters, product.reduction
    else:
        along_rows, along_columns, streamed = product.reduction, product.pixels, product.filters
    loading = 0 if accelerator.dataflow == "os" else rows
    return Mapping(-(-along_rows // rows), -(-along_columns // columns), streamed, loading + rows + columns - 2)


def array_cycles(product: MatrixProduct, accelerator: Accelerator, *, tiles: int = 1) -> int:
    """Return the cycles of a product, with what streams cut into `tiles` parts that pass through all folds in turn."""
    return product.groups * map_product(product, accelerator).cycles(tiles)


def array_accesses(product: MatrixProduct, accelerator: Accelerator, *, tiles: int = 1) -> ArrayAccesses:
    """Return what the array reads and writes for a product; what stays in it is loaded again for each tile."""
    mapping = map_product(product, accelerator)
    weights, outputs = product.weights, product.groups * product.filters * product.pixels
    inputs = product.groups * product.reduction * product.pixels
    if accelerator.dataflow == "ws":
        return ArrayAccesses(weights * tiles, inputs * mapping.column_folds, outputs * mapping.row_folds)
    if accelerator.dataflow == "os":
        return ArrayAccesses(weights * mapping.row_folds, inputs * mapping.column_folds, outputs)
    return ArrayAccesses(weights * mapping.column_folds, inputs * tiles, outputs * mapping.row_folds)
