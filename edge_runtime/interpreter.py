"""Runs a .tflite file: the one place that knows which interpreter is installed.

ai-edge-litert is tried first, then tflite-runtime (32-bit ARM, older systems); both offer the same class.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edge_runtime.errors import InputError, ModelFileError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["LoadedModel"]


def _interpreter_class() -> Any:
    try:
        from ai_edge_litert.interpreter import Interpreter  # noqa: PLC0415 - takes a second, and may not be there
    except ImportError:
        try:
            from tflite_runtime.interpreter import Interpreter  # noqa: PLC0415 - likewise
        except ImportError:
            message = "no TFLite interpreter is installed: pip install ai-edge-litert (or tflite-runtime)"
            raise ModelFileError(message) from None
    return Interpreter


class LoadedModel:
    """A .tflite model in memory, ready to run; one input, one or more outputs. Not safe for use by two threads at once.

    Parameters
    ----------
    content
        The file's bytes.
    batch
        How many samples one invocation takes. Above 1 the input is resized, which needs a model whose reshapes leave
        the batch open (as `flatmodel.extract` makes them).
    threads
        Threads of the interpreter.
    name
        What error messages call the model: usually its path.

    Raises
    ------
    ModelFileError
        The interpreter refuses the file, or the model has more than one input.
    """

    def __init__(self, content: bytes, *, batch: int = 1, threads: int = 1, name: str = "model") -> None:
        self.name = name
        self.batch = batch
        try:
            self._interpreter = _interpreter_class()(model_content=bytes(content), num_threads=threads)
            inputs = self._interpreter.get_input_details()
            if len(inputs) != 1:
                raise ModelFileError(f"{name}: has {len(inputs)} inputs: a classifier has one")
            self._input = inputs[0]["index"]
            self._resize(batch, inputs[0]["shape"])
        except (ValueError, RuntimeError) as error:
            if isinstance(error, ModelFileError):
                raise
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ModelFileError(
                f"{name}: the interpreter refuses it ({reason}): is it a whole .tflite file?"
            ) from error
        details = self._interpreter.get_input_details()[0]
        self.input_shape: tuple[int, ...] = tuple(int(side) for side in details["shape"][1:])
        self.input_dtype: np.dtype[Any] = np.dtype(details["dtype"])
        outputs = self._interpreter.get_output_details()
        self._outputs = [output["index"] for output in outputs]
        self.output_shapes: list[tuple[int, ...]] = [tuple(int(side) for side in o["shape"][1:]) for o in outputs]

    def _resize(self, batch: int, shape: NDArray[np.int32]) -> None:
        if int(shape[0]) != batch:
            self._interpreter.resize_tensor_input(self._input, [batch, *(int(side) for side in shape[1:])])
        self._interpreter.allocate_tensors()

    def run(self, samples: NDArray[Any]) -> list[NDArray[Any]]:
        """Run `samples` `(n, *input_shape)` and return each output as `(n, *output_shape)`.

        Samples go through in chunks of `batch`; the last chunk is filled up with zeros whose results are dropped.

        Raises
        ------
        InputError
            The samples have another shape or dtype than the model's input.
        ModelFileError
            The interpreter fails while it runs.
        """
        if samples.shape[1:] != self.input_shape:
            raise InputError(f"{self.name}: takes samples of shape {self.input_shape}, got {samples.shape[1:]}")
        if samples.dtype != self.input_dtype:
            raise InputError(f"{self.name}: takes {self.input_dtype} samples, got {samples.dtype}")
        samples = np.ascontiguousarray(samples)
        chunks = [self._run_chunk(samples[start : start + self.batch]) for start in range(0, len(samples), self.batch)]
        if not chunks:
            return [np.empty((0, *shape), dtype=np.float32) for shape in self.output_shapes]
        return [np.concatenate(parts) for parts in zip(*chunks, strict=True)]

    def _run_chunk(self, chunk: NDArray[Any]) -> list[NDArray[Any]]:
        count = len(chunk)
        if count < self.batch:
            chunk = np.concatenate([chunk, np.zeros((self.batch - count, *chunk.shape[1:]), chunk.dtype)])
        self._interpreter.set_tensor(self._input, chunk)
        try:
            self._interpreter.invoke()
        except (ValueError, RuntimeError) as error:
            raise ModelFileError(f"{self.name}: the interpreter failed while running it: {error}") from error
        return [self._interpreter.get_tensor(index)[:count] for index in self._outputs]
