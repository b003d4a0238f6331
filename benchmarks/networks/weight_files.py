"""The weights of a network as one `.npz` file, with how they came about."""

from __future__ import annotations

import json
import zipfile
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from cloud_pruner.errors import PrunerError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["load_weights", "read_about", "save_weights"]

_ABOUT: Final = "about"


def save_weights(path: Path, model: Any, about: Mapping[str, Any]) -> None:
    """Write a Keras model's weights, in its own order: kernels as float16, vectors as float32.

    Vectors are few, and variances of batch normalisation can be too small for float16. `about` is any JSON object.
    """
    arrays: dict[str, Any] = {
        f"{number:04}": values.astype(np.float16 if values.ndim > 1 else np.float32)
        for number, values in enumerate(model.get_weights())
    }
    arrays[_ABOUT] = np.array(json.dumps(dict(about)))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)


def load_weights(path: Path, model: Any) -> None:
    """Give a Keras model the weights of a file.

    Raises
    ------
    PrunerError
        The file cannot be read, or holds another network's weights.
    """
    arrays = _read(path)
    arrays.pop(_ABOUT)
    values = [arrays[key].astype(np.float32) for key in sorted(arrays)]
    if [value.shape for value in values] != [tuple(weight.shape) for weight in model.weights]:
        raise PrunerError(
            f"{path}: holds the weights of another network than {model.name}: build it with its own shape"
        )
    model.set_weights(values)


def read_about(path: Path) -> dict[str, Any]:
    """Return what the file says of how its weights came about.

    Raises
    ------
    PrunerError
        The file cannot be read.
    """
    about: dict[str, Any] = json.loads(str(_read(path)[_ABOUT]))
    return about


def _read(path: Path) -> dict[str, Any]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise PrunerError(f"{path}: cannot be read as weights ({error}): train the network again") from error
    if _ABOUT not in arrays:
        raise PrunerError(f"{path}: does not say how its weights came about: write it with benchmarks.networks.train")
    return arrays
