"""What a product moves between DRAM and the chip, where buffers are smaller than what it works on.

The folds of a product run block of columns by block of columns, and within it block of rows by block of rows, as in
SCALE-Sim. What is needed again later and does not fit its buffer is fetched again:

- weight stationary: inputs once if all fit; else for each fold, or for as many folds together as find room, what
  their parts of the filters read of the image;
- input stationary: weights once if all fit; else again for each block of pixels;
- output stationary: inputs once if all fit, else again for each block of filters; weights once if those of a block of
  filters fit, else again for each block of pixels;
- partial sums that find no room in the accumulators go to DRAM and come back, once for each further block of rows.

Alternatively what streams is cut into *tiles* that pass through all folds one after another: pixels (weight stationary)
or filters (input stationary), so that the sums of a tile, and what it reads, find room. That costs the loading, filling
and draining of every fold again, neighbouring tiles of pixels both read the rows between them, and what stays in the
array is fetched for each tile unless it fits. Tiles run within a block of columns, or around all of them. The schedule
taken is the fastest, and of equally fast ones that with the least traffic. Our own; SCALE-Sim knows no tiles.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hwmodel.dataflow import Mapping, map_product

if TYPE_CHECKING:
    from hwmodel.accelerator import Accelerator
    from hwmodel.workload import MatrixProduct

__all__ = ["Rooms", "Schedule", "overlapped", "schedule_product"]


@dataclass(frozen=True, slots=True)
class Rooms:
    """What the buffers can hold of the product that is worked on: words, words, and sums of each column.

    `halves` says that they are halves of buffers, which take turns.
    """

    weights: float
    activations: float
    sums: float
    halves: bool

    @classmethod
    def of(cls, accelerator: Accelerator, *, kept_weights: int = 0) -> Rooms:
        """Return the working room: half the buffers where the other half is being filled.

        `kept_weights` words of the weight buffer are taken by layers whose weights stay there.
        """
        share = 2 if accelerator.double_buffered else 1
        sums = math.inf
        if accelerator.accumulator_kib is not None:
            bits = accelerator.accumulator_kib * 8192 / share
            sums = bits // (accelerator.accumulator_bits * accelerator.columns)
        return cls(
            weights=(accelerator.words_in(accelerator.weight_buffer_kib) - kept_weights) / share,
            activations=accelerator.words_in(accelerator.activation_buffer_kib) / share,
            sums=sums,
            halves=accelerator.double_buffered,
        )


@dataclass(frozen=True, slots=True)
class Schedule:
    """How a product runs.

    Attributes
    ----------
    cycles
        Of the array, without waiting for DRAM.
    weights, inputs, outputs
        Words between DRAM and the chip; outputs include partial sums that go and come back.
    tiles
        Parts that what streams is cut into; 1 where it is not.
    """

    cycles: int
    weights: int
    inputs: int
    outputs: int
    tiles: int = 1

    @property
    def dram_words(self) -> int:
        """Words between DRAM and the chip."""
        return self.weights + self.inputs + self.outputs


def overlapped(cycles: int, dram_words: int, accelerator: Accelerator) -> float:
    """Return the cycles until work of so many cycles and so many DRAM words is done (cycles).

    With double buffering the longer of the two; else one after the other.
    """
    transfer = dram_words / accelerator.dram_words_per_cycle
    return max(cycles, transfer) if accelerator.double_buffered else cycles + transfer


def schedule_product(
    product: MatrixProduct,
    accelerator: Accelerator,
    rooms: Rooms,
    *,
    weights: bool = True,
    inputs: bool = True,
    outputs: int = 0,
) -> Schedule:
    """Choose how a product runs.

    `weights` and `inputs` say whether DRAM holds them, `outputs` how many words go there when the product is done.
    """
    group = _Group(product, map_product(product, accelerator), accelerator, rooms)
    if not weights and not inputs and not group.sums_moved(1):
        return Schedule(product.groups * group.mapping.cycles(), 0, 0, outputs)

    def evaluate(tiles: int, *, around: bool) -> Schedule:
        of_weights, of_inputs = group.fetched(tiles, around=around)
        return Schedule(
            product.groups * group.mapping.cycles(tiles),
            product.groups * of_weights if weights else 0,
            product.groups * of_inputs if inputs else 0,
            product.groups * group.sums_moved(tiles) + outputs,
            tiles,
        )

    whole = evaluate(1, around=False)
    compulsory = product.weights * weights + product.groups * group.image_words * inputs + outputs
    if whole.dram_words <= compulsory:
        return whole
    cut = [evaluate(tiles, around=around) for tiles in group.tile_counts() for around in (False, True)]
    return min([whole, *cut], key=lambda plan: (overlapped(plan.cycles, plan.dram_words, accelerator), plan.dram_words))


@dataclass(frozen=True, slots=True)
class _Group:
    """One group of a product, on its array and in its buffers. All words are those of the group."""

    product: MatrixProduct
    mapping: Mapping
    accelerator: Accelerator
    rooms: Rooms

    @property
    def weights(self) -> int:
        return self.product.reduction * self.product.filters

    @property
    def elements(self) -> int:
        """Elements of the left matrix, where those that windows share count for each window."""
        return self.product.reduction * self.product.pixels

    @property
    def images(self) -> int:
        return 1 if self.product.window is None else -(-self.product.pixels // self.product.window.pixels)

    @property
    def image_words(self) -> int:
        """Different words of the inputs."""
        return self.elements if self.product.window is None else self.images * self.product.window.words

    def sums_moved(self, tiles: int) -> int:
        """Words of partial sums that go to DRAM and come back."""
        further = self.mapping.row_folds - 1
        if self.accelerator.dataflow == "os" or math.ceil(self.mapping.streamed / tiles) <= self.rooms.sums:
            return 0
        return 2 * further * self.product.filters * self.product.pixels * self.accelerator.sum_words

    def tile_counts(self) -> set[int]:
        """Numbers of tiles worth trying: so many that the sums fit, or that what a tile reads fits too."""
        steps = self.mapping.streamed
        if self.accelerator.dataflow == "os":
            return set()
        if self.mapping.row_folds > 1:
            steps = int(min(steps, self.rooms.sums))
        fitting = steps
        if self.accelerator.dataflow == "ws":
            while fitting and self.tile_words(fitting) > self.rooms.activations:
                fitting //= 2
        else:
            fitting = int(min(steps, self.rooms.weights // self.product.reduction))
        return {-(-self.mapping.streamed // step) for step in (steps, fitting) if 0 < step < self.mapping.streamed}

    def fetched(self, tiles: int, *, around: bool) -> tuple[int, int]:
        """Words of weights and of inputs that come from DRAM; tiles run within a block of columns, or `around` all."""
        if self.accelerator.dataflow == "ws":
            return self._weight_stationary(tiles, around=around)
        if self.accelerator.dataflow == "os":
            return self._output_stationary()
        return self._input_stationary(tiles, around=around)

    def _weight_stationary(self, tiles: int, *, around: bool) -> tuple[int, int]:
        inputs = self.image_words
        weights = self._weights_again(self.product.filters if around else self.accelerator.columns, tiles)
        if inputs > self.rooms.activations:
            tile = self.tile_words(-(-self.product.pixels // tiles))
            if tiles > 1 and tile <= self.rooms.activations:
                inputs = tile * tiles * (1 if around else self.mapping.column_folds)
            else:
                inputs = self._folds_words() * self.mapping.column_folds
        return weights, inputs

    def _output_stationary(self) -> tuple[int, int]:
        inputs = self.image_words
        if inputs > self.rooms.activations:
            inputs = self._pass_words(self.accelerator.rows) * self.mapping.column_folds
        return self._weights_again(self.accelerator.columns, self.mapping.row_folds), inputs

    def _input_stationary(self, tiles: int, *, around: bool) -> tuple[int, int]:
        weights, inputs = self.weights, self.image_words
        if weights > self.rooms.weights:
            tile = self.product.reduction * -(-self.product.filters // tiles)
            weights *= 1 if around and tile <= self.rooms.weights else self.mapping.column_folds
        if inputs > self.rooms.activations:
            inputs = self._pass_words(self.accelerator.columns)
            block = self.tile_words(min(self.accelerator.columns, self.product.pixels))
            if tiles > 1 and (around or block > self.rooms.activations):
                inputs *= tiles
        return weights, inputs

    def _weights_again(self, block: int, times: int) -> int:
        """Words of weights that are worked through in blocks of filters, each block `times` times.

        Blocks that fit are fetched once.
        """
        full, rest = divmod(self.product.filters, block)
        return self.product.reduction * sum(
            count * filters * (1 if self.product.reduction * filters <= self.rooms.weights else times)
            for count, filters in ((full, block), (1, rest))
        )

    def tile_words(self, pixels: int) -> int:
        """Different words that `pixels` neighbouring windows read, at most."""
        window = self.product.window
        return self.product.reduction * pixels if window is None else window.tile_words(pixels)

    def _folds_words(self) -> int:
        """Words that the folds of one block of columns fetch, where not all of the image fits.

        What as many neighbouring folds read together as find room (1, 2, 4, ...) is fetched once for all of them.
        """
        window, room, together = self.product.window, self.rooms.activations / self.images, self.accelerator.rows
        if window is None:
            return self.elements
        words = sum(window.fold_words(together, rows_apart=window.live_words > room))
        while together < self.product.reduction:
            together *= 2
            folds = window.fold_words(together)
            if max(folds) > room:
                break
            words = sum(folds)
        return self.images * words

    def _pass_words(self, block: int) -> int:
        """Words that one pass over all pixels fetches, in blocks of `block` pixels and with all of the filters.

        A block that fits leaves the next one what both read, but for every new filling of half a buffer, which starts
        afresh. Of a block that does not fit, but of which one kernel row does, each word is fetched once; of others
        for every element of the filters.
        """
        window, blocks = self.product.window, -(-self.product.pixels // block)
        if window is None:
            return self.elements
        of_block = window.tile_words(min(block, self.product.pixels))
        if of_block <= self.rooms.activations:
            fillings = math.ceil(self.image_words / self.rooms.activations) - 1
            return self.image_words + (fillings * window.live_words if self.rooms.halves else 0)
        one_row = replace(window, kernel=(1, *window.kernel[1:]))
        if one_row.tile_words(min(block, self.product.pixels)) <= self.rooms.activations:
            return min(blocks * of_block, self.elements)
        return self.elements
