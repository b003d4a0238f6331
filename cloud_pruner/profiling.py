"""Makes a profile: runs the base model in LiteRT over labelled images, with activations as extra outputs.

The only pass over images there is; every cut is searched and judged from what this leaves behind.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from cloud_pruner.errors import ImageDataError, ProfileError
from cloud_pruner.images import split_per_class
from cloud_pruner.moments import MomentSums, exposed
from cloud_pruner.profile import BASE_FILE, MANIFEST_FILE, PROFILE_VERSION, SPLITS, Profile
from cloud_pruner.progress import no_progress
from edge_runtime.digests import digest_of_file
from edge_runtime.durable import replace_folder
from edge_runtime.flatmodel import BaseModel, normalize, real_values
from edge_runtime.flatmodel.channels import ELEMENTWISE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from cloud_pruner.images import ImageSet
    from cloud_pruner.progress import Progress
    from edge_runtime.preprocessing import Preprocessing

__all__ = ["DEFAULT_DEPTH", "LayerTensors", "ProfileSettings", "build_profile", "prunable_layers"]

DEFAULT_DEPTH: Final = 6
_BATCH: Final = 32


@dataclass(frozen=True, slots=True)
class LayerTensors:
    """Where a prunable layer shows in the base model: tensor indices, as in `LayerProfile`."""

    name: str
    output: int
    boundary: int
    units: int
    input: int


@dataclass(frozen=True, slots=True)
class ProfileSettings:
    """How a profile is made.

    Attributes
    ----------
    depth
        How many of the last weight layers are looked at; the output layer is one of them and is never pruned (CAP'NN
        prunes the "last 6 layers" of VGG-16: three convolutions and two dense layers). None: all of them.
    images
        Images a class for each split, or None: of the smallest class, without `unseen` images 50, 25 and 25 %; with
        them up to 100 to profile, and half of the unseen ones each to select and to certify.
    """

    depth: int | None = DEFAULT_DEPTH
    images: dict[str, int | None] | None = None


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
        `images`, in archive order.
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
    layers = prunable_layers(base, settings.depth)
    _check_images(base, images, unseen, preprocessing, name)
    parts = _split(images, unseen, settings.images or {})
    if folder.exists() and not (folder / MANIFEST_FILE).exists() and any(folder.iterdir()):
        raise ProfileError(f"{folder}: exists and is no profile: give another folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        _Measurement(base, layers, images.classes, preprocessing, scratch, progress).write(parts)
        replace_folder(folder, scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return Profile.open(folder)


def prunable_layers(base: BaseModel, depth: int | None) -> list[LayerTensors]:
    """Return the layers that may be pruned among the last `depth` weight layers, in order of computation.

    Raises
    ------
    ProfileError
        There are none; the message says what stands in the way.
    """
    graph, channels = base.graph, base.channels
    weighted = [
        operator.index
        for operator in graph.operators
        if operator.kind in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
    ]
    looked_at = weighted if depth is None else weighted[-depth:]
    layers: list[LayerTensors] = []
    beside: list[str] = []
    for number in channels.prunable:
        group = channels.groups[number]
        if len(group.producers) != 1 or group.producers[0] not in looked_at or len(group.consumers) != 1:
            continue
        producer = graph.operators[group.producers[0]]
        output = producer.outputs[0]
        for tensor in group.tensors[1:]:
            if graph.producer[tensor].kind in ELEMENTWISE and graph.producer[tensor].inputs[0] == output:
                output = tensor
        reader = group.consumers[0].tensor
        flattened = any(len(labels) > group.units for labels in channels.axes[reader].values())
        boundary = graph.producer[reader].inputs[0] if flattened else reader
        if not _separates(base, boundary):
            where = f"{producer.kind} (operator {producer.index})"
            beside.append(f"{where} lies beside a shortcut, and only sequences of layers are searched")
            continue
        layers.append(
            LayerTensors(
                name=f"{producer.kind.lower()}_{weighted.index(producer.index) + 1}",
                output=output,
                boundary=boundary,
                units=group.units,
                input=_channel_input(base, producer.inputs[0]),
            )
        )
    if not layers:
        reasons = sorted(
            {barrier for group in channels.groups for barrier in group.barriers} - {"network input", "network output"}
        )
        reasons += beside
        detail = f": {'; '.join(reasons)}" if reasons else ""
        raise ProfileError(f"nothing can be pruned among the last {depth or len(weighted)} weight layers{detail}")
    return layers


def _separates(base: BaseModel, boundary: int) -> bool:
    """Whether everything that follows is computed from `boundary` alone, as the search needs it."""
    graph = base.graph
    seen: set[int] = set()
    pending = [graph.outputs[0]]
    while pending:
        tensor = pending.pop()
        if tensor in seen or tensor == boundary:
            continue
        seen.add(tensor)
        if tensor in graph.inputs:
            return False
        if tensor in graph.producer:
            pending.extend(index for index in graph.producer[tensor].inputs if index >= 0)
    return True


def _channel_input(base: BaseModel, tensor: int) -> int:
    """Return `tensor`, or what it is the flattening of."""
    producer = base.graph.producer.get(tensor)
    return producer.inputs[0] if producer is not None and producer.kind == "RESHAPE" else tensor


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
    if unseen is None:
        usual = {"profile": max(smallest // 2, 1), "select": max(smallest // 4, 1), "certify": max(smallest // 4, 1)}
        counts = {split: wanted.get(split) or usual[split] for split in SPLITS}
        return {split: (images, rows) for split, rows in split_per_class(images.labels, counts, images.classes).items()}
    fewest = int(np.bincount(unseen.labels, minlength=len(unseen.classes)).min())
    profile = {"profile": wanted.get("profile") or min(smallest, 100)}
    others = {split: wanted.get(split) or max(fewest // 2, 1) for split in SPLITS[1:]}
    return {
        **{split: (images, rows) for split, rows in split_per_class(images.labels, profile, images.classes).items()},
        **{split: (unseen, rows) for split, rows in split_per_class(unseen.labels, others, unseen.classes).items()},
    }


class _Measurement:
    """One run of profiling into a scratch folder."""

    def __init__(
        self,
        base: BaseModel,
        layers: Sequence[LayerTensors],
        classes: tuple[str, ...],
        preprocessing: Preprocessing,
        folder: Path,
        progress: Progress,
    ) -> None:
        self._base, self._layers, self._classes = base, layers, classes
        self._preprocessing, self._folder, self._progress = preprocessing, folder, progress
        self._boundary = layers[0].input
        self._arrays: dict[str, dict[str, Any]] = {}

    def write(self, parts: dict[str, tuple[ImageSet, NDArray[np.int64]]]) -> None:
        self._total = sum(len(rows) for _, rows in parts.values())
        self._done = 0
        for split, (images, rows) in parts.items():
            self._measure_split(split, images, rows)
        (self._folder / BASE_FILE).write_bytes(self._base.content)
        manifest = {
            "version": PROFILE_VERSION,
            "base": {"file": BASE_FILE, "digest": self._base.digest, "parameters": self._base.graph.parameters},
            "classes": list(self._classes),
            "preprocessing": self._preprocessing.to_dict(),
            "boundary": self._boundary,
            "layers": [
                {"name": layer.name, "output": layer.output, "boundary": layer.boundary, "units": layer.units}
                for layer in self._layers
            ],
            "arrays": self._arrays,
        }
        (self._folder / MANIFEST_FILE).write_text(json.dumps(manifest, indent=1) + "\n")

    def _measure_split(self, split: str, images: ImageSet, rows: NDArray[np.int64]) -> None:
        graph = self._base.graph
        is_profile = split == "profile"
        wanted = [graph.outputs[0]]
        if self._boundary != graph.inputs[0]:
            wanted.append(self._boundary)
        channels = {tensor: layer.units for layer in self._layers for tensor in (layer.output, layer.boundary)}
        moments = MomentSums(channels, len(self._classes)) if is_profile else None
        wanted += [tensor for tensor in channels if is_profile and tensor not in wanted]
        model = exposed(self._base, wanted, batch=_BATCH)
        labels = images.labels[rows].astype(np.int32)
        shape = tuple(graph.tensors[self._boundary].shape[1:])
        activations = np.lib.format.open_memmap(
            self._folder / f"{split}_activations.npy", mode="w+", dtype=np.float32, shape=(len(rows), *shape)
        )
        predictions = np.empty(len(rows), dtype=np.int32)
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
            if moments is not None:
                moments.add(values, labels[chunk])
            self._done += chunk.stop - chunk.start
            self._progress(f"{split} images", self._done, self._total)
        activations.flush()
        self._note(f"{split}_activations", activations)
        self._save(f"{split}_labels", labels)
        self._save(f"{split}_predictions", predictions)
        if moments is not None:
            for number, layer in enumerate(self._layers):
                read = moments.of(layer.boundary)
                self._save(f"firing_rates_{number}", moments.of(layer.output).firing_rates)
                self._save(f"means_{number}", read.means)
                self._save(f"second_moments_{number}", read.second_moments)
                self._save(f"weight_norms_{number}", _weight_norms(self._base, layer))
        if split == "select":
            confusion = np.zeros((len(self._classes), len(self._classes)), dtype=np.int64)
            np.add.at(confusion, (labels, predictions), 1)
            self._save("confusion", confusion)

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


def _weight_norms(base: BaseModel, layer: LayerTensors) -> NDArray[np.float32]:
    group = base.channels.groups[base.channels.group_of(layer.output)]
    weights = real_values(base.graph.tensors[group.consumers[0].weight])
    norms: NDArray[np.float64] = np.square(weights).reshape(-1, layer.units).sum(axis=0)
    return norms.astype(np.float32)
