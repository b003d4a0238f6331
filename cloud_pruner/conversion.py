"""Turns a trained Keras classifier or a SavedModel into a batch-1 float32 `.tflite`, and checks that both agree.

TensorFlow is needed here and not for using the result. A file is written only after its outputs agreed with the
source's own. Loading runs what the source contains: convert models that you trust (`Lambda` layers, which carry code,
are refused).
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

from cloud_pruner.errors import ConversionError, ImageDataError, MissingExtraError
from cloud_pruner.images import ImageSet
from edge_runtime.digests import digest_of
from edge_runtime.durable import write_durably
from edge_runtime.errors import EdgeError
from edge_runtime.interpreter import LoadedModel
from edge_runtime.preprocessing import Preprocessing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

__all__ = ["DIFFERENCE_MAX", "ConversionReport", "convert"]

DIFFERENCE_MAX = 1e-4
"""Allowed difference of any output, relative to the range of the source's outputs. Rounding alone gives about 1e-6."""

_COMPARED_IMAGES = 64
_REFERENCE_BATCH = 16

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
    max_difference
        Largest difference of an output from the source's, relative to the range of the source's outputs.
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
    max_difference: float
    compared_on: str
    images: int
    seconds: float


def convert(
    source: Path | str,
    target: Path | str,
    *,
    images: ImageSet | NDArray[np.float32] | None = None,
    preprocessing: Preprocessing | None = None,
) -> ConversionReport:
    """Convert `source` and write `target`, once both have given the same outputs.

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
        that went through it. At most 64 of them are used, evenly spaced. Without any, random pixels are.
    preprocessing
        What the network expects; without it, pixels from 0 to 1. It also settles a size that the network leaves open.

    Raises
    ------
    ConversionError
        The source cannot be read, is no image classifier, or has an operator that LiteRT lacks; or the result differs
        from it. Nothing is written then.
    MissingExtraError
        TensorFlow is not installed.
    InputError
        The images do not fit `preprocessing`.
    """
    started = time.monotonic()
    source, target = Path(source), Path(target)
    if target.is_dir() or not target.parent.is_dir():
        raise ConversionError(f"{target}: cannot be written: give the name of a file in a folder that exists")
    with _one_at_a_time, _silence():
        model = _load(source)
        preprocessing, classes = _interface(source, model, preprocessing)
        inputs, compared_on = _comparison_inputs(images, preprocessing)
        reference = _run_source(source, model, inputs)
        content = _convert_model(source, model, preprocessing.shape)
        max_difference = _difference(source, reference, _run_converted(source, content, inputs))
    write_durably(target, content)
    return ConversionReport(
        source=source,
        path=target,
        bytes=len(content),
        digest=digest_of(content),
        parameters=int(model.count_params()),
        input_shape=preprocessing.shape,
        classes=classes,
        max_difference=max_difference,
        compared_on=compared_on,
        images=len(inputs),
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


def _import_tensorflow() -> tuple[Any, Any]:
    """Return the modules (tensorflow, keras)."""
    try:
        import keras  # noqa: PLC0415 - seconds to import, and an extra
        import tensorflow as tf  # noqa: PLC0415 - likewise
    except ImportError as error:
        raise MissingExtraError("converting needs capnn[cloud]: pip install 'capnn[cloud]'") from error
    return tf, keras


def _load(source: Path) -> Any:
    """Return the source as a Keras model; a SavedModel becomes the one layer of such a model."""
    if not source.exists():
        raise ConversionError(
            f"{source}: no such file or folder: give a .keras or .h5 file, or the folder of a SavedModel"
        )
    is_saved_model = (source / "saved_model.pb").is_file()
    if not is_saved_model and (source.is_dir() or source.suffix not in {".keras", ".h5", ".hdf5"}):
        raise ConversionError(f"{source}: is no .keras or .h5 file and no folder of a SavedModel (with saved_model.pb)")
    tf, keras = _import_tensorflow()
    if keras.backend.backend() != "tensorflow":
        raise ConversionError(f"Keras runs on {keras.backend.backend()}: set KERAS_BACKEND=tensorflow")
    try:
        if is_saved_model:
            return _load_saved_model(source, tf, keras)
        return keras.models.load_model(
            source, compile=False, custom_objects=_keras_2_layers(keras) if source.suffix != ".keras" else None
        )
    except ConversionError:
        raise
    except Exception as error:  # a file can fail in any layer's own way
        if "Lambda" in str(error):
            raise ConversionError(
                f"{source}: has a Lambda layer, which runs code: replace it by Keras layers"
            ) from error
        raise ConversionError(
            f"{source}: cannot be loaded ({_reason(error)}): save it again, whole, with Keras 3"
        ) from error


def _keras_2_layers(keras: Any) -> dict[str, Any]:
    """Return the layers whose configuration Keras 3 no longer takes as Keras 2 wrote it into `.h5` files."""

    class DepthwiseConv2D(keras.layers.DepthwiseConv2D):  # type: ignore[misc] # keras ships no types
        def __init__(self, **config: Any) -> None:
            config.pop("groups", None)  # Keras 2 always wrote 1
            super().__init__(**config)

    return {"DepthwiseConv2D": DepthwiseConv2D}


def _load_saved_model(source: Path, tf: Any, keras: Any) -> Any:
    signature = tf.saved_model.load(str(source)).signatures.get("serving_default")
    if signature is None:
        raise ConversionError(
            f"{source}: has no signature 'serving_default': save it with one, as Keras' model.export does"
        )
    inputs = list(signature.structured_input_signature[1].values())
    if len(inputs) != 1:
        raise ConversionError(f"{source}: has {len(inputs)} inputs: a classifier has one")
    image = keras.Input(batch_shape=tuple(inputs[0].shape), dtype=inputs[0].dtype.name, name="saved_model_input")
    layer = keras.layers.TFSMLayer(str(source), call_endpoint="serving_default", name="saved_model")
    return keras.Model(image, layer(image), name="saved_model_classifier")


def _interface(source: Path, model: Any, stated: Preprocessing | None) -> tuple[Preprocessing, int]:
    """Return the preprocessing (`stated`, or the plainest one that fits the input) and the number of classes."""
    inputs, outputs = getattr(model, "inputs", None), getattr(model, "outputs", None)
    if not inputs or not outputs:
        raise ConversionError(
            f"{source}: has no fixed inputs and outputs: build it as a functional or sequential model"
        )
    if len(inputs) != 1 or len(outputs) != 1:
        raise ConversionError(
            f"{source}: has {len(inputs)} inputs and {len(outputs)} outputs: a classifier has one of each"
        )
    shape, result = tuple(inputs[0].shape), tuple(outputs[0].shape)
    if len(shape) != 4 or shape[3] not in {1, 3}:
        raise ConversionError(
            f"{source}: its input is {shape}: expected images (batch, height, width, 1 or 3 channels)"
        )
    if len(result) != 2 or result[1] is None:
        raise ConversionError(f"{source}: its output is {result}: expected (batch, classes)")
    if stated is None:
        if None in shape[1:]:
            raise ConversionError(
                f"{source}: leaves the size of its images open {shape}: state it with the preprocessing"
            )
        stated = Preprocessing(shape[1], shape[2], "grey" if shape[3] == 1 else "rgb")
    if any(side not in {None, made} for side, made in zip(shape[1:], stated.shape, strict=True)):
        raise ConversionError(
            f"{source}: takes images of {shape[1:]}, the preprocessing makes {stated.shape}: correct the preprocessing"
        )
    return stated, int(result[1])


def _comparison_inputs(
    images: ImageSet | NDArray[np.float32] | None, preprocessing: Preprocessing
) -> tuple[NDArray[np.float32], str]:
    """Return at most `_COMPARED_IMAGES` inputs, evenly spaced, and what they are."""
    if images is None:
        pixels = np.random.default_rng(0).integers(0, 256, (_COMPARED_IMAGES, *preprocessing.shape), dtype=np.uint8)
        return preprocessing.apply(pixels), "random"
    candidates = images.pixels if isinstance(images, ImageSet) else images
    if not len(candidates):
        raise ImageDataError("no images to compare on: give at least one, or none at all for random pixels")
    spaced = np.linspace(0, len(candidates) - 1, min(len(candidates), _COMPARED_IMAGES)).astype(int)
    if isinstance(images, ImageSet):
        return preprocessing.apply(images.pixels[spaced]), "images"
    if images.shape[1:] != preprocessing.shape:
        raise ImageDataError(f"inputs have shape {images.shape[1:]}, the model takes {preprocessing.shape}")
    return images[spaced].astype(np.float32), "images"


def _run_source(source: Path, model: Any, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    _, keras = _import_tensorflow()
    step = model.inputs[0].shape[0] or _REFERENCE_BATCH
    try:
        outputs = [
            np.asarray(keras.tree.flatten(model(inputs[start : start + step], training=False))[0])
            for start in range(0, len(inputs), step)
        ]
    except Exception as error:  # a network can fail in any layer's own way
        raise ConversionError(f"{source}: fails when it is run ({_reason(error)})") from error
    reference = np.concatenate(outputs)
    if not np.isfinite(reference).all():
        raise ConversionError(
            f"{source}: gives NaN or infinite outputs itself: check its weights and the preprocessing"
        )
    return reference


def _convert_model(source: Path, model: Any, shape: tuple[int, int, int]) -> bytes:
    """Return the `.tflite` of `model` with its batch fixed to 1: an open batch adds operators and is slower to run.

    The names given here end up in the file: with automatic ones the same model would give other bytes each time.
    """
    tf, keras = _import_tensorflow()
    try:
        image = keras.Input(batch_shape=(1, *shape), name=f"{model.name}_image")
        output = keras.tree.flatten(model(image, training=False))[0]
        fixed = keras.Model(image, output, name=f"{model.name}_batch_1")
        return bytes(tf.lite.TFLiteConverter.from_keras_model(fixed).convert())
    except Exception as error:  # the converter raises exceptions of many kinds
        raise ConversionError(f"{source}: has no .tflite equivalent with batch 1 ({_reason(error)})") from error


def _run_converted(source: Path, content: bytes, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    try:
        converted = LoadedModel(content, name=f"{source}: its conversion")
        if converted.input_dtype != np.float32:
            raise ConversionError(f"{source}: its conversion takes {converted.input_dtype}: expected float32")
        return converted.run(inputs)[0]
    except EdgeError as error:
        raise ConversionError(str(error)) from error


def _difference(source: Path, reference: NDArray[np.float32], outputs: NDArray[np.float32]) -> float:
    """Return the largest difference relative to the range of `reference`; refuse one that is too large or NaN."""
    if outputs.shape != reference.shape:
        raise ConversionError(f"{source}: its conversion gives outputs of shape {outputs.shape}, not {reference.shape}")
    # A network that gives one constant has no range: its conversion must then give the very same.
    spread = max(float(np.ptp(reference)), float(np.finfo(np.float32).tiny))
    difference = float(np.abs(outputs - reference).max()) / spread
    if not difference <= DIFFERENCE_MAX:
        raise ConversionError(
            f"{source}: its conversion differs by {difference:.2g} of its outputs' range, {DIFFERENCE_MAX:g} is "
            f"allowed: look for layers that are random"
        )
    return difference


def _reason(error: Exception) -> str:
    """Return the first line of an error's message, or its type's name."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__
