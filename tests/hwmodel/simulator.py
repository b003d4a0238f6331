"""A systolic array that is run one cycle at a time: what the closed forms of `hwmodel.dataflow` are held against.

Units stand in `rows` x `columns`. In every cycle each unit takes what its neighbours held in the cycle before, works
and holds the result; words enter at the edges, one for each row and each column. Nothing here knows how long a fold
takes: it ends when everything that went in has come out. Idle units pass on what they are given, as hardware does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

NOBODY = -1  # the tag of a register that holds nothing yet


@dataclass
class Run:
    """The product, `(pixels, filters)`, and what it took: cycles, and elements read and written at the edges."""

    outputs: np.ndarray
    cycles: int = 0
    weight_reads: int = 0
    input_reads: int = 0
    output_writes: int = 0


def simulate(inputs, weights, *, rows, columns, dataflow, tiles=1) -> Run:
    """Multiply `inputs` (pixels, reduction) by `weights` (reduction, filters) on the array, fold after fold.

    With `tiles`, what streams is cut into as many parts, which pass through all folds one after another.
    """
    run = Run(np.zeros((inputs.shape[0], weights.shape[1]), dtype=inputs.dtype))
    if dataflow == "os":
        _output_stationary(run, inputs, weights, rows, columns)
    elif dataflow == "ws":
        run.input_reads, run.weight_reads = _operand_stationary(run, run.outputs, inputs, weights, rows, columns, tiles)
    else:
        # The same machine: inputs are held, and filters stream past them.
        streamed, held, outputs = weights.T, inputs.T, run.outputs.T
        run.weight_reads, run.input_reads = _operand_stationary(run, outputs, streamed, held, rows, columns, tiles)
    return run


def _operand_stationary(run, outputs, streamed, held, rows, columns, tiles):
    """Hold blocks of `held` (reduction, M) in the array, stream `streamed` (S, reduction) past; sum up (S, M)."""
    stream_reads = held_reads = 0
    parts = np.array_split(np.arange(streamed.shape[0]), tiles)
    for part in parts:
        for left in range(0, held.shape[1], columns):
            for top in range(0, held.shape[0], rows):
                block = held[top : top + rows, left : left + columns]
                fold = _StationaryFold(block, streamed[part, top : top + rows], rows, columns)
                while not fold.is_done:
                    fold.step()
                run.cycles += fold.cycle
                run.output_writes += fold.sums.size
                held_reads += fold.held_reads
                stream_reads += fold.stream_reads
                outputs[np.ix_(part, range(left, left + block.shape[1]))] += fold.sums
    return stream_reads, held_reads


class _StationaryFold:
    """One block of operands held by the array while a stream passes."""

    def __init__(self, block, stream, rows, columns):
        self.block, self.stream = block, stream
        self.rows, self.columns = rows, columns
        self.cycle = self.held_reads = self.stream_reads = 0
        self.held = np.zeros((rows, columns), dtype=block.dtype)
        self.moving = np.zeros_like(self.held)  # goes right
        self.sums_down = np.zeros_like(self.held)  # goes down
        self.moving_tag = np.full((rows, columns), NOBODY)
        self.sum_tag = np.full((rows, columns), NOBODY)
        self.sums = np.zeros((len(stream), block.shape[1]), dtype=block.dtype)
        self.left = np.zeros(columns, dtype=int)  # sums that have left each column, idle ones too

    @property
    def is_done(self):
        return bool((self.left == len(self.stream)).all())

    def step(self):
        if self.cycle < self.rows:
            self._load()
        else:
            self._stream()
        self.cycle += 1

    def _load(self):
        # The block goes in from the top, its last row first; all rows of the array move down by one.
        row = self.rows - 1 - self.cycle
        entering = np.zeros(self.columns, dtype=self.held.dtype)
        if row < self.block.shape[0]:
            entering[: self.block.shape[1]] = self.block[row]
            self.held_reads += self.block.shape[1]
        self.held = np.vstack([entering, self.held[:-1]])

    def _stream(self):
        words, tags = np.zeros(self.rows, dtype=self.held.dtype), np.full(self.rows, NOBODY)
        for row in range(self.rows):
            step = self.cycle - self.rows - row  # each row starts one cycle after the one above it
            if 0 <= step < len(self.stream):
                tags[row] = step
                if row < self.block.shape[0]:
                    words[row] = self.stream[step, row]
                    self.stream_reads += 1
        self.moving = np.column_stack([words, self.moving[:, :-1]])
        self.moving_tag = np.column_stack([tags, self.moving_tag[:, :-1]])
        above = np.vstack([np.zeros(self.columns, dtype=self.held.dtype), self.sums_down[:-1]])
        above_tag = np.vstack([self.moving_tag[0], self.sum_tag[:-1]])
        meeting = self.moving_tag != NOBODY
        assert (above_tag[meeting] == self.moving_tag[meeting]).all()  # a sum meets the words of its own step
        self.sums_down = above + self.moving * self.held
        self.sum_tag = np.where(meeting, self.moving_tag, NOBODY)
        for column in np.flatnonzero(self.sum_tag[-1] != NOBODY):
            self.left[column] += 1
            if column < self.block.shape[1]:
                self.sums[self.sum_tag[-1, column], column] = self.sums_down[-1, column]


def _output_stationary(run, inputs, weights, rows, columns):
    for left in range(0, weights.shape[1], columns):
        for top in range(0, inputs.shape[0], rows):
            fold = _OutputFold(inputs[top : top + rows], weights[:, left : left + columns], rows, columns)
            while not fold.is_done:
                fold.step()
            run.cycles += fold.cycle
            run.input_reads += fold.input_reads
            run.weight_reads += fold.weight_reads
            run.output_writes += fold.output_writes
            height, width = len(inputs[top : top + rows]), weights[:, left : left + columns].shape[1]
            run.outputs[top : top + height, left : left + width] = fold.sums[:height, :width]


class _OutputFold:
    """Every unit sums up one output: a row of inputs comes from the left, a filter from above."""

    def __init__(self, inputs, weights, rows, columns):
        self.inputs, self.weights = inputs, weights
        self.rows, self.columns = rows, columns
        self.cycle = self.input_reads = self.weight_reads = self.output_writes = 0
        self.right = np.zeros((rows, columns), dtype=inputs.dtype)
        self.down = np.zeros_like(self.right)
        self.sums = np.zeros_like(self.right)
        self.right_tag = np.full((rows, columns), NOBODY)
        self.down_tag = np.full((rows, columns), NOBODY)
        self.taken = np.zeros((rows, columns), dtype=int)

    @property
    def is_done(self):
        return bool((self.taken == self.weights.shape[0]).all())

    def step(self):
        from_left, left_tag, read = self._entering(self.rows, self.inputs.T)
        self.input_reads += read
        from_above, above_tag, read = self._entering(self.columns, self.weights)
        self.weight_reads += read
        self.right = np.column_stack([from_left, self.right[:, :-1]])
        self.right_tag = np.column_stack([left_tag, self.right_tag[:, :-1]])
        self.down = np.vstack([from_above, self.down[:-1]])
        self.down_tag = np.vstack([above_tag, self.down_tag[:-1]])
        assert (self.right_tag == self.down_tag).all()  # the two operands of a product meet
        self.sums += self.right * self.down
        self.taken += self.right_tag != NOBODY
        finished = (self.right_tag == self.weights.shape[0] - 1) & (self.taken == self.weights.shape[0])
        assert (finished.sum(axis=0) <= 1).all()  # one way out for each column: no two sums leave it in one cycle
        self.output_writes += int(finished[: self.inputs.shape[0], : self.weights.shape[1]].sum())
        self.cycle += 1

    def _entering(self, lanes, operand):
        """Return the words of `operand` (steps, lanes in use) that enter now, a cycle later for each lane."""
        words, tags, read = np.zeros(lanes, dtype=operand.dtype), np.full(lanes, NOBODY), 0
        for lane in range(lanes):
            step = self.cycle - lane
            if 0 <= step < operand.shape[0]:
                tags[lane] = step
                if lane < operand.shape[1]:
                    words[lane] = operand[step, lane]
                    read += 1
        return words, tags, read
