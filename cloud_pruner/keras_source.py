"""Reads trained networks: Keras files and SavedModels, each as one Keras model that takes images and gives classes.

Loading runs what the file contains: read models that you trust (`Lambda` layers, which carry code, are refused).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from cloud_pruner.errors import ConversionError, MissingExtraError
from edge_runtime.preprocessing import Preprocessing

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["first_line", "import_tensorflow", "load_network", "network_interface", "run_network"]

_REFERENCE_BATCH = 16


def import_tensorflow() -> tuple[Any, Any]:
    """Return the modules (tensorflow, keras).

    Raises
    ------
    MissingExtraError
        They are not installed.
    """
    try:
        import keras  # noqa: PLC0415 - seconds to import, and an extra
        import tensorflow as tf  # noqa: PLC0415 - likewise
    except ImportError as error:
        raise MissingExtraError("converting needs capnn[cloud]: pip install 'capnn[cloud]'") from error
    return tf, keras


def load_network(source: Path) -> Any:
    """Return the source as a Keras model; a SavedModel becomes the one layer of such a model.

    Raises
    ------
    ConversionError
        It is missing, of no known kind, damaged, or brings code of its own.
    MissingExtraError
        TensorFlow is not installed.
    """
    if not source.exists():
        raise ConversionError(
            f"{source}: no such file or folder: give a .keras or .h5 file, or the folder of a SavedModel"
        )
    is_saved_model = (source / "saved_model.pb").is_file()
    if not is_saved_model and (source.is_dir() or source.suffix not in {".keras", ".h5", ".hdf5"}):
        raise ConversionError(f"{source}: is no .keras or .h5 file and no folder of a SavedModel (with saved_model.pb)")
    tf, keras = import_tensorflow()
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
            f"{source}: cannot be loaded ({first_line(error)}): save it again, whole, with Keras 3"
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


def network_interface(source: Path, model: Any, stated: Preprocessing | None) -> tuple[Preprocessing, int]:
    """Return the preprocessing (`stated`, or the plainest one that fits the input) and the number of classes.

    Raises
    ------
    ConversionError
        The model is no image classifier, or `stated` does not fit it.
    """
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


def run_network(source: Path, model: Any, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the model's own outputs `(n, classes)` for inputs `(n, height, width, channels)`.

    Raises
    ------
    ConversionError
        It fails, or gives outputs that are not finite.
    """
    _, keras = import_tensorflow()
    step = model.inputs[0].shape[0] or _REFERENCE_BATCH
    try:
        outputs = [
            np.asarray(keras.tree.flatten(model(inputs[start : start + step], training=False))[0])
            for start in range(0, len(inputs), step)
        ]
    except Exception as error:  # a network can fail in any layer's own way
        raise ConversionError(f"{source}: fails when it is run ({first_line(error)})") from error
    reference = np.concatenate(outputs)
    if not np.isfinite(reference).all():
        raise ConversionError(
            f"{source}: gives NaN or infinite outputs itself: check its weights and the preprocessing"
        )
    return reference


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or its type's name."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__
