"""A profile: everything that personalising a base model needs, measured once, kept in a folder.

`manifest.json` names the base file, classes, preprocessing, the prunable layers and each array with its dtype, shape
and sha256; the arrays are `.npy` files that are memory-mapped. Opening a profile checks every digest, so a damaged one
is never searched with. `profiling` makes profiles; this module reads them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from cloud_pruner.errors import ProfileError
from edge_runtime.digests import digest_of, digest_of_file
from edge_runtime.errors import EdgeError
from edge_runtime.flatmodel import BaseModel
from edge_runtime.preprocessing import Preprocessing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = ["BASE_FILE", "MANIFEST_FILE", "PROFILE_VERSION", "SPLITS", "LayerProfile", "Profile", "Split"]

PROFILE_VERSION: Final = 1
MANIFEST_FILE: Final = "manifest.json"
BASE_FILE: Final = "base.tflite"
SPLITS: Final = ("profile", "select", "certify")


@dataclass(frozen=True, slots=True, eq=False)
class LayerProfile:
    """What was measured of one prunable layer (a channel group), per class on the *profile* images.

    Attributes
    ----------
    name
        A name for people: the operator's kind and its number among the weight layers.
    output
        Tensor (index in the base) of the layer's activations, after its ReLU.
    boundary
        Tensor that the next layer reads: after pooling, before flattening.
    firing_rates
        `(units, classes) float32`: fraction of values of `output` that are not zero (CAP'NN, section III).
    means, second_moments
        `(units, classes) float32`: of the values of `boundary` and of their squares.
    weight_norms
        `(units,) float32`: sum of squares of the weights by which the next layers multiply the unit.
    """

    name: str
    output: int
    boundary: int
    units: int
    firing_rates: NDArray[np.float32]
    means: NDArray[np.float32]
    second_moments: NDArray[np.float32]
    weight_norms: NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Images of one purpose, as activations at the boundary before the first prunable layer, sorted by class.

    Attributes
    ----------
    activations
        `(n, ...) float32`, memory-mapped.
    labels
        `(n,) int32`, ascending.
    predictions
        `(n,) int32`: what the base model says.
    """

    activations: NDArray[np.float32]
    labels: NDArray[np.int32]
    predictions: NDArray[np.int32]

    def rows(self, label: int) -> slice:
        """Return where the images of class `label` stand."""
        first, last = np.searchsorted(self.labels, [label, label + 1])
        return slice(int(first), int(last))

    def accuracy(self, classes: int) -> NDArray[np.float64]:
        """Return the base's top-1 accuracy per class, `(classes,)`; NaN for a class without images."""
        hits = np.bincount(self.labels[self.predictions == self.labels], minlength=classes)
        counts = np.bincount(self.labels, minlength=classes)
        shares: NDArray[np.float64] = np.divide(hits, counts, out=np.full(classes, np.nan), where=counts > 0)
        return shares


@dataclass(frozen=True, eq=False)
class Profile:
    """An opened profile.

    Attributes
    ----------
    folder, digest
        Where it is, and the sha256 of its manifest, which names everything else by digest.
    base
        The base model, normalised for slicing.
    classes
        Names of the outputs.
    boundary
        Tensor at which the activations of the splits were taken.
    layers
        The prunable layers, in order of computation.
    splits
        "profile", "select" and "certify" (`guarantee.md`: disjoint images).
    confusion
        `(classes, classes) int64`: images of the row's class (of the select split) that the base takes for the
        column's.
    """

    folder: Path
    digest: str
    base: BaseModel
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    boundary: int
    layers: tuple[LayerProfile, ...]
    splits: Mapping[str, Split]
    confusion: NDArray[np.int64]

    @classmethod
    def open(cls, folder: Path | str) -> Profile:
        """Open the profile in `folder` and check all of it against its digests.

        Raises
        ------
        ProfileError
            There is none, it is of another version, or a file is missing or damaged; the message names the file.
        """
        folder = Path(folder)
        path = folder / MANIFEST_FILE
        try:
            text = path.read_bytes()
        except FileNotFoundError:
            raise ProfileError(
                f"{folder}: no profile there ({MANIFEST_FILE} is missing): make one with 'capnn profile'"
            ) from None
        except OSError as error:
            raise ProfileError(f"{path}: cannot be read: {error.strerror}") from error
        try:
            return _open(folder, json.loads(text), digest_of(text))
        except ProfileError:
            raise
        except (ValueError, KeyError, TypeError) as error:
            raise ProfileError(f"{path}: damaged ({type(error).__name__}: {error}): make the profile again") from error

    def check_base(self, digest: str) -> None:
        """Raise ProfileError unless the profile is of the base model with this digest."""
        if digest != self.base.digest:
            raise ProfileError(
                f"{self.folder}: the profile is of model {self.base.digest[:12]}…, not of {digest[:12]}…: "
                "profile that model"
            )


def _open(folder: Path, manifest: dict[str, Any], digest: str) -> Profile:
    if manifest["version"] != PROFILE_VERSION:
        raise ProfileError(
            f"{folder}: profile version {manifest['version']}, this is {PROFILE_VERSION}: make the profile again"
        )
    arrays = {name: _array(folder, name, entry) for name, entry in manifest["arrays"].items()}
    base_path = folder / manifest["base"]["file"]
    _check_file(base_path, manifest["base"]["digest"], "the base model")
    try:
        base = BaseModel.load(base_path)
        preprocessing = Preprocessing.from_dict(manifest["preprocessing"])
    except EdgeError as error:
        raise ProfileError(f"{folder}: {error}") from error
    layers = tuple(
        LayerProfile(
            name=entry["name"],
            output=entry["output"],
            boundary=entry["boundary"],
            units=entry["units"],
            firing_rates=arrays[f"firing_rates_{number}"],
            means=arrays[f"means_{number}"],
            second_moments=arrays[f"second_moments_{number}"],
            weight_norms=arrays[f"weight_norms_{number}"],
        )
        for number, entry in enumerate(manifest["layers"])
    )
    return Profile(
        folder=folder,
        digest=digest,
        base=base,
        classes=tuple(manifest["classes"]),
        preprocessing=preprocessing,
        boundary=manifest["boundary"],
        layers=layers,
        splits={
            name: Split(arrays[f"{name}_activations"], arrays[f"{name}_labels"], arrays[f"{name}_predictions"])
            for name in SPLITS
        },
        confusion=arrays["confusion"],
    )


def _check_file(path: Path, expected: str, what: str) -> None:
    try:
        digest = digest_of_file(path)
    except OSError as error:
        raise ProfileError(f"{path}: cannot be read ({error.strerror}): make the profile again") from error
    if digest != expected:
        raise ProfileError(f"{path}: {what} is damaged (its digest is not the manifest's): make the profile again")


def _array(folder: Path, name: str, entry: Mapping[str, Any]) -> NDArray[Any]:
    path = folder / entry["file"]
    _check_file(path, entry["sha256"], f"array '{name}'")
    array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    if list(array.shape) != entry["shape"] or array.dtype.name != entry["dtype"]:
        raise ProfileError(
            f"{path}: array '{name}' is {array.dtype} {array.shape}, the manifest says otherwise: "
            "make the profile again"
        )
    return array
