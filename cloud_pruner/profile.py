"""A profile: everything that personalising a base model needs, measured once, kept in a folder.

`manifest.json` names the base file, classes, preprocessing, the prunable layers and each array with its dtype, shape
and sha256; the arrays are `.npy` files that are memory-mapped. Opening a profile checks every digest, so a damaged one
is never searched with. `profiling` makes profiles; this module reads them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from cloud_pruner.errors import ProfileError
from cloud_pruner.firing_rates import unpack
from cloud_pruner.groups import prunable_groups
from cloud_pruner.taylor import TaylorMoments
from edge_runtime.digests import digest_of, digest_of_file
from edge_runtime.errors import EdgeError
from edge_runtime.flatmodel import BaseModel, Part
from edge_runtime.preprocessing import Preprocessing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from cloud_pruner.groups import PrunableGroup

__all__ = ["BASE_FILE", "MANIFEST_FILE", "PROFILE_VERSION", "SPLITS", "LayerProfile", "Profile", "Split"]

PROFILE_VERSION: Final = 4
MANIFEST_FILE: Final = "manifest.json"
BASE_FILE: Final = "base.tflite"
SPLITS: Final = ("profile", "select", "certify", "report")


@dataclass(frozen=True, slots=True, eq=False)
class LayerProfile:
    """What was measured of one prunable channel group, per class on the *profile* images.

    Attributes
    ----------
    name
        For people (`PrunableGroup.name`).
    group, tensor
        The group's number in the base's channels, and an activation that carries it.
    units
        How many it has.
    firing_rates
        `(units, classes) float32`: fraction of post-activation values that are not zero (CAP'NN, section III); where
        several activations carry the units, the largest.
    mean_activations
        `(units, classes) float32`: mean post-activation value; the largest likewise.
    sensitivities
        `(shares, classes) float32`: by how much the logits change per error in what reads the group (`sensitivity`).
    clusters
        `(classes,) int16`: the cluster of each class, of those with like firing rates (`clusters`).
    inertia
        `(most,) float64`: of the firing rates in 1, 2, ... clusters, the curve that their number was chosen by.
    """

    name: str
    group: int
    tensor: int
    units: int
    firing_rates: NDArray[np.float32]
    mean_activations: NDArray[np.float32]
    sensitivities: NDArray[np.float32]
    clusters: NDArray[np.int16]
    inertia: NDArray[np.float64]

    @property
    def cluster_count(self) -> int:
        """How many clusters there are."""
        return int(self.clusters.max()) + 1


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
        Activation, taken of all images, from which alone everything after it is computed; nothing before it is pruned.
    layers
        The prunable channel groups, in order of computation.
    splits
        "profile", "select", "certify" and "report": disjoint images to measure on, to search with, to certify with and
        to report on; the last two may have none.
    taylor
        Activation (tensor index) that prunable units are read from -> its Taylor moments; empty where the profile was
        made without the Keras network.
    certify_digest
        Names the certify images: sha256 over their activations' and labels' own.
    confusion
        `(classes, classes) int64`: images of the row's class (of the select split) that the base takes for the
        column's.
    temperature
        What the logarithms of the base's probabilities are to be divided by, to be right as such (`calibration`).
    """

    folder: Path
    digest: str
    base: BaseModel
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    boundary: int
    layers: tuple[LayerProfile, ...]
    splits: Mapping[str, Split]
    taylor: Mapping[int, TaylorMoments]
    certify_digest: str
    confusion: NDArray[np.int64]
    temperature: float

    @cached_property
    def suffix(self) -> Part:
        """What the splits' activations go through: the base from `boundary` to its output."""
        return Part(self.base, self.boundary, self.base.graph.outputs)

    @cached_property
    def groups(self) -> dict[int, PrunableGroup]:
        """Group number -> its members and readers in the base, for each of `layers`."""
        wanted = {layer.group for layer in self.layers}
        return {group.group: group for group in prunable_groups(self.base, None) if group.group in wanted}

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
            group=entry["group"],
            tensor=entry["tensor"],
            units=entry["units"],
            firing_rates=_rates(arrays[f"firing_rates_{number}"], (entry["units"], len(manifest["classes"]))),
            mean_activations=arrays[f"mean_activations_{number}"],
            sensitivities=arrays[f"sensitivities_{number}"],
            clusters=arrays[f"clusters_{number}"],
            inertia=arrays[f"inertia_{number}"],
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
        taylor={
            int(name.removeprefix("taylor_")): TaylorMoments.from_array(array)
            for name, array in arrays.items()
            if name.startswith("taylor_")
        },
        certify_digest=digest_of(
            "".join(manifest["arrays"][f"certify_{part}"]["sha256"] for part in ("activations", "labels")).encode()
        ),
        confusion=arrays["confusion"],
        temperature=float(manifest["temperature"]),
    )


def _rates(stored: NDArray[Any], shape: tuple[int, int]) -> NDArray[np.float32]:
    return unpack(stored, shape) if stored.dtype == np.uint8 else stored


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
