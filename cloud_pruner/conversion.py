"""Turns a trained Keras classifier or a SavedModel into a batch-1 `.tflite`, and checks that both agree.

TensorFlow is needed here and not for using the result. A file is written only after its outputs agreed with the
source's own, as closely as its kind of quantisation can (`quantization`). Loading runs what the source contains:
convert models that you trust (`Lambda` layers, which carry code, are refused).
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cloud_pruner.errors import ConversionError, ImageDataError
from cloud_pruner.images import ImageSet
from cloud_pruner.keras_source import first_line, import_tensorflow, load_network, network_interface, run_network
from cloud_pruner.quantization import CALIBRATION_IMAGES, QUANTIZE_KINDS, check_agreement, prepare_converter
from edge_runtime.digests import digest_of
from edge_runtime.durable import write_durably
from edge_runtime.errors import EdgeError
from edge_runtime.interpreter import LoadedModel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from cloud_pruner.quantization import QuantizeKind
    from edge_runtime.preprocessing import Preprocessing

__all__ = ["ConversionReport", "convert"]

_COMPARED_IMAGES = 64

# Output is silenced for the whole process, and the converter needs gigabytes for a large network: one at a time.
_one_at_a_time = threading.Lock()


@dataclass(frozen=True, slots=True)
class ConversionReport:
    """What was converted, and how well.

    Attributes
    ----------
    source, path
        The trained network and the `.tflite` file.
    bytes, digest
        Length of the file and its sha256 in hexadecimal.
    parameters
        Weights and biases of the source, those of batch normalisation included (the converter folds these into others).
    input_shape
        (height, width, channels).
    classes
        Number of outputs.
    quantize
        What the file stores: one of `QUANTIZE_KINDS`.
    max_difference
        Largest difference of an output from the source's, relative to the range of the source's outputs.
    top1_agreement
        Share of the compared images for which both give the same top class.
    compared_on, images
        "images" or "random" pixels, and how many.
    seconds
        Time it took, in s.
    """

    source: Path
    path: Path
    bytes: int
    digest: str
    parameters: int
    input_shape: tuple[int, int, int]
    classes: int
    quantize: QuantizeKind
    max_difference: float
    top1_agreement: float
    compared_on: str
    images: int
    seconds: float


def convert(
    source: Path | str,
    target: Path | str,
    *,
    images: ImageSet | NDArray[np.float32] | None = None,
    preprocessing: Preprocessing | None = None,
    quantize: QuantizeKind = "none",
) -> ConversionReport:
    """Convert `source` and write `target`, once both have given the same outputs, or most top classes if quantised.

    While it runs, file descriptors 1 and 2 and `sys.stdout` of the whole process lead nowhere: TensorFlow's chatter
    cannot be stopped otherwise.

    Parameters
    ----------
    source
        A `.keras` or `.h5` file, or the folder of a SavedModel with a `serving_default` signature. One image input, one
        output `(batch, classes)`.
    target
        The `.tflite` file to write; its folder must exist.
    images
        What to compare on: images that `preprocessing` is applied to, or inputs `(n, height, width, channels)` float32
        that went through it. At most 64 of them are used, evenly spaced. Without any, random pixels are. For `int8`
        up to 200, evenly spaced too, give the ranges of activations; the compared ones are others, if there are enough.
    preprocessing
        What the network expects; without it, pixels from 0 to 1. It also settles a size that the network leaves open.
    quantize
        "none" stores float32, "float16" float16 weights, "dynamic" int8 weights, "int8" int8 throughout, input and
        output too; the last needs `images`. `LoadedModel` takes and gives real values for each of them.

    Raises
    ------
    ConversionError
        The source cannot be read, is no image classifier, or has an operator that LiteRT lacks; or the result differs
        from it. Nothing is written then.
    ImageDataError
        There are no images and `int8` needs them; or inputs have another shape than the network's.
    MissingExtraError
        TensorFlow is not installed.
    InputError
        The images do not fit `preprocessing`.
    """
    started = time.monotonic()
    source, target = Path(source), Path(target)
    if target.is_dir() or not target.parent.is_dir():
        raise ConversionError(f"{target}: cannot be written: give the name of a file in a folder that exists")
    if quantize not in QUANTIZE_KINDS:
        raise ConversionError(f"quantize is '{quantize}': expected one of {', '.join(QUANTIZE_KINDS)}")
    if quantize == "int8" and images is None:
        raise ImageDataError(
            f"{source}: int8 needs images, to measure the ranges of activations on: give some like those it will "
            f"meet (--data)"
        )
    with _one_at_a_time, _silence():
        model = load_network(source)
        preprocessing, classes = network_interface(source, model, preprocessing)
        inputs = _choose_inputs(images, preprocessing, calibrate=quantize == "int8")
        reference = run_network(source, model, inputs.compared)
        content = _convert_model(source, model, preprocessing.shape, quantize, inputs.calibration)
        agreement = check_agreement(source, quantize, reference, _run_converted(source, content, inputs.compared))
    write_durably(target, content)
    return ConversionReport(
        source=source,
        path=target,
        bytes=len(content),
        digest=digest_of(content),
        parameters=int(model.count_params()),
        input_shape=preprocessing.shape,
        classes=classes,
        quantize=quantize,
        max_difference=agreement.max_difference,
        top1_agreement=agreement.top1,
        compared_on=inputs.compared_on,
        images=len(inputs.compared),
        seconds=time.monotonic() - started,
    )


class _Nowhere(io.TextIOBase):
    """Takes what is written and forgets it. Never closed: a logging handler made meanwhile may hold on to it."""

    def write(self, text: str) -> int:
        return len(text)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    sys.stdout.flush()
    sys.stderr.flush()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    saved = {descriptor: os.dup(descriptor) for descriptor in (1, 2)}
    try:
        for descriptor in saved:
            os.dup2(nowhere, descriptor)
        with contextlib.redirect_stdout(_Nowhere()):
            yield
    finally:
        sys.stderr.flush()
        for descriptor, original in saved.items():
            os.dup2(original, descriptor)
            os.close(original)
        os.close(nowhere)


@dataclass(frozen=True, slots=True, eq=False)
class _Inputs:
    """Inputs `(n, height, width, channels)` float32: to compare on, and to calibrate on (None: not wanted)."""

    compared: NDArray[np.float32]
    compared_on: str
    calibration: NDArray[np.float32] | None


def _choose_inputs(
    images: ImageSet | NDArray[np.float32] | None, preprocessing: Preprocessing, *, calibrate: bool
) -> _Inputs:
    if images is None:
        pixels = np.random.default_rng(0).integers(0, 256, (_COMPARED_IMAGES, *preprocessing.shape), dtype=np.uint8)
        return _Inputs(preprocessing.apply(pixels), "random", None)
    candidates = images.pixels if isinstance(images, ImageSet) else images
    if not len(candidates):
        raise ImageDataError("no images to compare on: give at least one, or none at all for random pixels")

    def inputs_at(positions: NDArray[np.int64]) -> NDArray[np.float32]:
        if isinstance(images, ImageSet):
            return preprocessing.apply(images.pixels[positions])
        return candidates[positions].astype(np.float32)

    if not isinstance(images, ImageSet) and images.shape[1:] != preprocessing.shape:
        raise ImageDataError(f"inputs have shape {images.shape[1:]}, the model takes {preprocessing.shape}")
    every = np.arange(len(candidates))
    if not calibrate:
        return _Inputs(inputs_at(_spaced(every, _COMPARED_IMAGES)), "images", None)
    calibration = _spaced(every, CALIBRATION_IMAGES)
    others = np.setdiff1d(every, calibration)
    compared = _spaced(others if len(others) >= _COMPARED_IMAGES else every, _COMPARED_IMAGES)
    return _Inputs(inputs_at(compared), "images", inputs_at(calibration))


def _spaced(positions: NDArray[np.int64], at_most: int) -> NDArray[np.int64]:
    """Return up to so many of `positions`, evenly spaced: sets are often sorted by class."""
    chosen: NDArray[np.int64] = positions[np.linspace(0, len(positions) - 1, min(len(positions), at_most)).astype(int)]
    return chosen


def _convert_model(
    source: Path,
    model: Any,
    shape: tuple[int, int, int],
    quantize: QuantizeKind,
    calibration: NDArray[np.float32] | None,
) -> bytes:
    """Return the `.tflite` of `model` with its batch fixed to 1: an open batch adds operators and is slower to run.

    The names given here end up in the file: with automatic ones the same model would give other bytes each time.
    """
    tf, keras = import_tensorflow()
    try:
        image = keras.Input(batch_shape=(1, *shape), name=f"{model.name}_image")
        output = keras.tree.flatten(model(image, training=False))[0]
        fixed = keras.Model(image, output, name=f"{model.name}_batch_1")
        converter = tf.lite.TFLiteConverter.from_keras_model(fixed)
        prepare_converter(converter, quantize, calibration)
        return bytes(converter.convert())
    except Exception as error:  # the converter raises exceptions of many kinds
        raise ConversionError(f"{source}: has no .tflite equivalent with batch 1 ({first_line(error)})") from error


def _run_converted(source: Path, content: bytes, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    try:
        converted = LoadedModel(content, name=f"{source}: its conversion")
        if converted.input_dtype != np.float32 and converted.input_quantization is None:
            raise ConversionError(f"{source}: its conversion takes {converted.input_dtype}: expected float32")
        return converted.run(inputs)[0]
    except EdgeError as error:
        raise ConversionError(str(error)) from error
