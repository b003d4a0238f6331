"""Runs a .tflite file: the one place that knows which interpreter is installed.

ai-edge-litert is tried first, then tflite-runtime (32-bit ARM, older systems); both offer the same class. Callers deal
in real values: what an integer model stores is quantised and dequantised here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_runtime.errors import InputError, ModelFileError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["AffineQuantization", "LoadedModel", "interpreter_class"]

_QUANTIZED_DTYPES = (np.dtype(np.int8), np.dtype(np.uint8), np.dtype(np.int16))


def interpreter_class() -> Any:
    """Import the interpreter and return its class.

    Raises
    ------
    ModelFileError
        None is installed.
    """
    try:
        from ai_edge_litert.interpreter import Interpreter  # noqa: PLC0415 - takes a second, and may not be there
    except ImportError:
        try:
            from tflite_runtime.interpreter import Interpreter  # noqa: PLC0415 - likewise
        except ImportError:
            message = "no TFLite interpreter is installed: pip install ai-edge-litert (or tflite-runtime)"
            raise ModelFileError(message) from None
    return Interpreter


@dataclass(frozen=True, slots=True)
class AffineQuantization:
    """How a whole tensor stores real values as integers: `real = scale * (stored - zero_point)`.

    Attributes
    ----------
    scale, zero_point
        Of the tensor; there is one of each.
    dtype
        int8, uint8 or int16.
    """

    scale: float
    zero_point: int
    dtype: np.dtype[Any]

    def quantize(self, values: NDArray[np.float32]) -> NDArray[Any]:
        """Return float32 `values` as stored integers, out of range ones as the nearest that there is.

        Bit for bit what LiteRT's QUANTIZE gives: times the reciprocal, in float32, and halves to the even neighbour
        (its reference kernel divides instead, and rounds halves away from zero).
        """
        whole = values * (np.float32(1) / np.float32(self.scale))
        np.rint(whole, out=whole)
        whole += np.float32(self.zero_point)
        limits = np.iinfo(self.dtype)
        return np.clip(whole, limits.min, limits.max, out=whole).astype(self.dtype)

    def dequantize(self, stored: NDArray[Any]) -> NDArray[np.float32]:
        """Return the real values of stored integers, float32, bit for bit as LiteRT's DEQUANTIZE."""
        return (stored.astype(np.int32) - np.int32(self.zero_point)).astype(np.float32) * np.float32(self.scale)


class LoadedModel:
    """A .tflite model in memory, ready to run; one input, one or more outputs. Not safe for use by two threads at once.

    A model whose input or outputs are quantised takes and gives real values, as a float32 model does.

    Attributes
    ----------
    input_shape, input_dtype
        Of one sample, as the file has it.
    input_quantization
        How the input stores real values; None where it is not quantised.
    output_shapes
        Of one sample's outputs.

    Parameters
    ----------
    content
        The file's bytes.
    batch
        How many samples one invocation takes at most. Above 1 the input is resized, which needs a model whose reshapes
        leave the batch open (as `flatmodel.extract` makes them).
    threads
        Threads of the interpreter.
    name
        What error messages call the model: usually its path.

    Raises
    ------
    ModelFileError
        The interpreter refuses the file, or the model has more than one input.
    """

    def __init__(self, content: bytes | memoryview, *, batch: int = 1, threads: int = 1, name: str = "model") -> None:
        self.name = name
        self.batch = batch
        try:
            self._interpreter = interpreter_class()(model_content=bytes(content), num_threads=threads)
            inputs = self._interpreter.get_input_details()
            if len(inputs) != 1:
                raise ModelFileError(f"{name}: has {len(inputs)} inputs: a classifier has one")
            self._input = inputs[0]["index"]
            self._count = int(inputs[0]["shape"][0])
            self._resize(batch, inputs[0]["shape"][1:])
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
        self.input_quantization: AffineQuantization | None = _quantization(details)
        outputs = self._interpreter.get_output_details()
        self._outputs = [(output["index"], _quantization(output)) for output in outputs]
        self.output_shapes: list[tuple[int, ...]] = [tuple(int(side) for side in o["shape"][1:]) for o in outputs]

    def _resize(self, count: int, shape: Sequence[int]) -> None:
        """Make ready for `count` samples of `shape` at once: microseconds, but for the first time."""
        if count != self._count:
            self._interpreter.resize_tensor_input(self._input, [count, *(int(side) for side in shape)])
            self._count = count
        self._interpreter.allocate_tensors()

    def run(self, samples: NDArray[Any]) -> list[NDArray[Any]]:
        """Run `samples` `(n, *input_shape)` and return each output as `(n, *output_shape)`.

        A model with a quantised input takes float32 samples, which are quantised here, and samples of its own dtype as
        they are. Quantised outputs come back dequantised, as float32; others as they are.

        Samples go through in chunks of `batch`; the last chunk has what is left.

        Raises
        ------
        InputError
            The samples have another shape or dtype than the model takes, or NaN where integers cannot stand for it.
        ModelFileError
            The interpreter fails while it runs.
        """
        if samples.shape[1:] != self.input_shape:
            raise InputError(f"{self.name}: takes samples of shape {self.input_shape}, got {samples.shape[1:]}")
        quantization = self.input_quantization
        if samples.dtype != self.input_dtype and (quantization is None or samples.dtype != np.float32):
            takes = self.input_dtype if quantization is None else f"float32 (or quantised {self.input_dtype})"
            raise InputError(f"{self.name}: takes {takes} samples, got {samples.dtype}")
        samples = np.ascontiguousarray(samples)
        chunks = [self._run_chunk(samples[start : start + self.batch]) for start in range(0, len(samples), self.batch)]
        if not chunks:
            return [np.empty((0, *shape), dtype=np.float32) for shape in self.output_shapes]
        return chunks[0] if len(chunks) == 1 else [np.concatenate(parts) for parts in zip(*chunks, strict=True)]

    def _run_chunk(self, chunk: NDArray[Any]) -> list[NDArray[Any]]:
        if self.input_quantization is not None and chunk.dtype != self.input_dtype:
            if np.isnan(chunk).any():
                raise InputError(f"{self.name}: samples have NaN, which {self.input_dtype} cannot hold: check them")
            chunk = self.input_quantization.quantize(chunk)
        try:
            if len(chunk) != self._count:
                self._resize(len(chunk), self.input_shape)
            self._interpreter.set_tensor(self._input, chunk)
            self._interpreter.invoke()
        except (ValueError, RuntimeError) as error:
            raise ModelFileError(f"{self.name}: the interpreter failed while running it: {error}") from error
        return [self._output(index, quantization) for index, quantization in self._outputs]

    def _output(self, index: int, quantization: AffineQuantization | None) -> NDArray[Any]:
        stored: NDArray[Any] = self._interpreter.get_tensor(index)
        return stored if quantization is None else quantization.dequantize(stored)


def _quantization(details: Any) -> AffineQuantization | None:
    """Return how the tensor with these details is quantised; None where it holds its values as they are."""
    dtype, parameters = np.dtype(details["dtype"]), details["quantization_parameters"]
    if dtype not in _QUANTIZED_DTYPES or len(parameters["scales"]) != 1:
        return None
    return AffineQuantization(float(parameters["scales"][0]), int(parameters["zero_points"][0]), dtype)
