"""Makes a profile: runs the base model in LiteRT over labelled images, with activations as extra outputs.

The only pass over images there is; every cut is searched and judged from what this leaves behind.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from cloud_pruner.calibration import IMAGES_MAX, logits_of, temperature
from cloud_pruner.clusters import cluster_classes
from cloud_pruner.errors import ImageDataError, ProfileError
from cloud_pruner.firing_rates import pack, unpack
from cloud_pruner.gradients import taylor_moments
from cloud_pruner.groups import prunable_groups
from cloud_pruner.images import split_per_class
from cloud_pruner.moments import MomentSums, exposed
from cloud_pruner.profile import BASE_FILE, MANIFEST_FILE, PROFILE_VERSION, Profile
from cloud_pruner.progress import no_progress
from cloud_pruner.sensitivity import sensitivities
from edge_runtime.digests import digest_of_file
from edge_runtime.durable import replaced_folder
from edge_runtime.flatmodel import BaseModel, normalize, separators
from edge_runtime.serving import ends_in_softmax

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from cloud_pruner.groups import PrunableGroup
    from cloud_pruner.images import ImageSet
    from cloud_pruner.progress import Progress
    from edge_runtime.preprocessing import Preprocessing

__all__ = ["DEFAULT_DEPTH", "ProfileSettings", "build_profile"]

DEFAULT_DEPTH: Final = 6
_BATCH: Final = 32


@dataclass(frozen=True, slots=True)
class ProfileSettings:
    """How a profile is made.

    Attributes
    ----------
    depth
        How many of the last weight layers are looked at; the output layer is one of them and is never pruned (CAP'NN
        prunes the "last 6 layers" of VGG-16: three convolutions and two dense layers). None: all of them.
    images
        Images a class for each split, or None: of the smallest class, without `unseen` images 50, 25 and 25 % to
        profile, select and certify; with them up to 100 to profile, and of the unseen ones half to select and half to
        certify. None to report on unless they are asked for: of what select and certify leave.
    three_bit_rates
        Store firing rates in 3 bits (CAP'NN, section V.C).
    keras
        The Keras network that the base was converted from: its gradients order units better (`gradients`). Needs
        TensorFlow, here and not for using the profile.
    """

    depth: int | None = DEFAULT_DEPTH
    images: dict[str, int | None] | None = None
    three_bit_rates: bool = False
    keras: Path | None = None


def build_profile(
    content: bytes,
    images: ImageSet,
    preprocessing: Preprocessing,
    folder: Path,
    *,
    unseen: ImageSet | None = None,
    settings: ProfileSettings = ProfileSettings(),
    progress: Progress = no_progress,
    name: str = "model",
) -> Profile:
    """Measure the base model `content` and write a profile to `folder`, whole or not at all.

    Parameters
    ----------
    images, unseen
        `images` may be the network's own training images and then serve the profile split alone; *select* and
        *certify* come from `unseen`, which the network was not trained on. Without `unseen` all three come from
        `images`. Which image goes where is random, and always the same.
    progress
        Called with what is being done, images done and images in all.
    name
        What error messages call the model.

    Raises
    ------
    ModelFileError
        The model cannot be read or run.
    ImageDataError
        Too few images of a class, or images that do not fit the model.
    ProfileError
        Nothing of the model can be pruned, or `folder` holds something else.
    """
    base = BaseModel(normalize(content, name), name=name)
    groups = prunable_groups(base, settings.depth)
    _check_weights(base, name)
    _check_images(base, images, unseen, preprocessing, name)
    parts = _split(images, unseen, settings.images or {})
    if folder.exists() and not (folder / MANIFEST_FILE).exists() and any(folder.iterdir()):
        raise ProfileError(f"{folder}: exists and is no profile: give another folder")
    with replaced_folder(folder) as scratch:
        measurement = _Measurement(base, groups, images.classes, preprocessing, scratch, progress)
        if settings.keras is not None:
            measurement.save_gradients(settings.keras, *parts["profile"])
        measurement.write(parts, three_bit_rates=settings.three_bit_rates)
    return Profile.open(folder)


def _boundary(base: BaseModel, groups: Sequence[PrunableGroup]) -> int:
    """Return the last activation that separates the graph and lies before all that makes or reads the groups."""
    graph = base.graph
    of_groups = [base.channels.groups[group.group] for group in groups]
    first = min(
        index
        for group in of_groups
        for index in (*group.producers, *(consumer.operator for consumer in group.consumers))
    )
    before = {tensor for operator in graph.operators[:first] for tensor in operator.outputs}
    # What carries pruned units itself is cut: the activations are those of the whole.
    carried = {tensor for group in of_groups for tensor in group.tensors}
    return [tensor for tensor in separators(graph) if tensor in (before | {graph.inputs[0]}) - carried][-1]


def _check_weights(base: BaseModel, name: str) -> None:
    for tensor in base.graph.tensors:
        data = tensor.data
        if data is not None and data.dtype.kind == "f" and not np.isfinite(data).all():
            raise ProfileError(f"{name}: tensor {tensor.index} has weights that are NaN or infinite: train it again")


def _check_images(
    base: BaseModel, images: ImageSet, unseen: ImageSet | None, preprocessing: Preprocessing, name: str
) -> None:
    shape = base.graph.tensors[base.graph.inputs[0]].shape
    if tuple(shape[1:]) != preprocessing.shape:
        raise ImageDataError(
            f"{name}: takes inputs of {tuple(shape[1:])}, the preprocessing makes {preprocessing.shape}"
        )
    outputs = base.graph.tensors[base.graph.outputs[0]].shape
    if len(outputs) != 2 or outputs[1] != len(images.classes):
        raise ImageDataError(f"{name}: has outputs of shape {outputs}, the images have {len(images.classes)} classes")
    if unseen is not None and unseen.classes != images.classes:
        raise ImageDataError(
            "the unseen images have other classes than the profile images: both need the same names in the same order"
        )


def _split(
    images: ImageSet, unseen: ImageSet | None, wanted: dict[str, int | None]
) -> dict[str, tuple[ImageSet, NDArray[np.int64]]]:
    """Return split -> (image set, indices sorted by class)."""
    smallest = int(np.bincount(images.labels, minlength=len(images.classes)).min())
    reported = wanted.get("report") or 0
    asked = {split: count for split, count in wanted.items() if count is not None} | {"report": reported}
    if unseen is None:
        rest = smallest - reported
        usual = {"profile": max(rest // 2, 1), "select": max(rest // 4, 1), "certify": max(rest // 4, 1)}
        counts = usual | asked
        return {split: (images, rows) for split, rows in split_per_class(images.labels, counts, images.classes).items()}
    rest = int(np.bincount(unseen.labels, minlength=len(unseen.classes)).min()) - reported
    usual = {"select": max(rest // 2, 1), "certify": max(rest // 2, 1)}
    profile = {"profile": asked.pop("profile", min(smallest, 100))}
    counts = usual | asked
    return {
        **{split: (images, rows) for split, rows in split_per_class(images.labels, profile, images.classes).items()},
        **{split: (unseen, rows) for split, rows in split_per_class(unseen.labels, counts, unseen.classes).items()},
    }


class _Measurement:
    """One run of profiling into a scratch folder."""

    def __init__(
        self,
        base: BaseModel,
        groups: Sequence[PrunableGroup],
        classes: tuple[str, ...],
        preprocessing: Preprocessing,
        folder: Path,
        progress: Progress,
    ) -> None:
        self._base, self._groups, self._classes = base, groups, classes
        self._preprocessing, self._folder, self._progress = preprocessing, folder, progress
        self._boundary = _boundary(base, groups)
        self._arrays: dict[str, dict[str, Any]] = {}
        self._temperature = 1.0

    def write(self, parts: dict[str, tuple[ImageSet, NDArray[np.int64]]], *, three_bit_rates: bool) -> None:
        self._total = sum(len(rows) for _, rows in parts.values())
        self._done = 0
        for split, (images, rows) in parts.items():
            self._measure_split(split, images, rows, three_bit_rates=three_bit_rates)
        (self._folder / BASE_FILE).write_bytes(self._base.content)
        profiled = np.load(self._folder / "profile_activations.npy", mmap_mode="r")
        labels = np.load(self._folder / "profile_labels.npy")
        for number, values in enumerate(
            sensitivities(self._base, self._boundary, self._groups, profiled, labels, len(self._classes))
        ):
            self._save(f"sensitivities_{number}", values)
        manifest = {
            "version": PROFILE_VERSION,
            "base": {"file": BASE_FILE, "digest": self._base.digest, "parameters": self._base.graph.parameters},
            "classes": list(self._classes),
            "preprocessing": self._preprocessing.to_dict(),
            "boundary": self._boundary,
            "temperature": self._temperature,
            "layers": [
                {"name": group.name, "group": group.group, "tensor": group.tensor, "units": group.units}
                for group in self._groups
            ],
            "arrays": self._arrays,
        }
        (self._folder / MANIFEST_FILE).write_text(json.dumps(manifest, indent=1) + "\n")

    def save_gradients(self, keras: Path, images: ImageSet, rows: NDArray[np.int64]) -> None:
        """Save Taylor moments of all that prunable units are read from."""
        tensors = sorted({reader.tensor for group in self._groups for reader in group.readers})
        inputs, labels = self._preprocessing.apply(images.pixels[rows]), images.labels[rows]
        for tensor, moments in taylor_moments(keras, self._base, tensors, inputs, labels, self._progress).items():
            self._save(f"taylor_{tensor}", moments.to_array())

    def _measure_split(self, split: str, images: ImageSet, rows: NDArray[np.int64], *, three_bit_rates: bool) -> None:
        graph = self._base.graph
        is_profile = split == "profile"
        wanted = [graph.outputs[0]]
        if self._boundary != graph.inputs[0]:
            wanted.append(self._boundary)
        members = {member for group in self._groups for member in group.members} if is_profile else set()
        wanted += [tensor for tensor in sorted(members) if tensor not in wanted]
        moments = MomentSums({tensor: graph.tensors[tensor].shape[-1] for tensor in members}, len(self._classes))
        model = exposed(self._base, wanted, batch=_BATCH)
        labels = images.labels[rows].astype(np.int32)
        shape = tuple(graph.tensors[self._boundary].shape[1:])
        activations = np.lib.format.open_memmap(
            self._folder / f"{split}_activations.npy", mode="w+", dtype=np.float32, shape=(len(rows), *shape)
        )
        predictions = np.empty(len(rows), dtype=np.int32)
        calibrated_on = np.arange(0, len(rows), -(-len(rows) // IMAGES_MAX)) if split == "select" else np.empty(0, int)
        outputs = np.empty((len(calibrated_on), len(self._classes)), dtype=np.float32)
        for start in range(0, len(rows), _BATCH):
            chunk = slice(start, min(start + _BATCH, len(rows)))
            inputs = self._preprocessing.apply(images.pixels[rows[chunk]])
            values = dict(zip(wanted, model.run(inputs), strict=True))
            if not np.isfinite(values[graph.outputs[0]]).all():
                raise ProfileError(
                    "the model answers with NaN or infinity on these images: check weights and preprocessing"
                )
            values[graph.inputs[0]] = inputs
            activations[chunk] = values[self._boundary]
            predictions[chunk] = values[graph.outputs[0]].argmax(axis=1)
            here = (calibrated_on >= chunk.start) & (calibrated_on < chunk.stop)
            outputs[here] = values[graph.outputs[0]][calibrated_on[here] - chunk.start]
            moments.add(values, labels[chunk])
            self._done += chunk.stop - chunk.start
            self._progress(f"{split} images", self._done, self._total)
        activations.flush()
        self._note(f"{split}_activations", activations)
        self._save(f"{split}_labels", labels)
        self._save(f"{split}_predictions", predictions)
        for number, group in enumerate(self._groups if is_profile else ()):
            self._progress("class clusters", number, len(self._groups))
            self._save_firing(number, group, moments, three_bit=three_bit_rates)
        if split == "select":
            confusion = np.zeros((len(self._classes), len(self._classes)), dtype=np.int64)
            np.add.at(confusion, (labels, predictions), 1)
            self._save("confusion", confusion)
            logits = logits_of(outputs, are_probabilities=ends_in_softmax(graph))
            self._temperature = temperature(logits, labels[calibrated_on])

    def _save_firing(self, number: int, group: PrunableGroup, moments: MomentSums, *, three_bit: bool) -> None:
        """Save the largest firing rate, and mean, that any of a group's members has of each unit; cluster by rates."""
        first = self._base.channels.groups[group.group].first
        rates = np.zeros((group.units, len(self._classes)), np.float32)
        means = np.full_like(rates, -np.inf)
        for member in group.members:
            measured = moments.of(member)
            ((_, labels),) = self._base.channels.axes[member].items()
            np.maximum.at(rates, labels - first, measured.firing_rates)
            np.maximum.at(means, labels - first, measured.means)
        if three_bit:
            packed, shape = pack(rates)
            self._save(f"firing_rates_{number}", packed)
            rates = unpack(packed, shape)  # clusters are of the rates as they will be read
        else:
            self._save(f"firing_rates_{number}", rates)
        self._save(f"mean_activations_{number}", np.where(np.isfinite(means), means, 0.0).astype(np.float32))
        clusters = cluster_classes(rates)
        self._save(f"clusters_{number}", clusters.labels)
        self._save(f"inertia_{number}", clusters.inertia)

    def _save(self, name: str, array: NDArray[Any]) -> None:
        np.save(self._folder / f"{name}.npy", array, allow_pickle=False)
        self._note(name, array)

    def _note(self, name: str, array: NDArray[Any]) -> None:
        path = self._folder / f"{name}.npy"
        self._arrays[name] = {
            "file": path.name,
            "dtype": array.dtype.name,
            "shape": list(array.shape),
            "sha256": digest_of_file(path),
        }
