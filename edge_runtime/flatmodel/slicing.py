"""Makes a cut model from its base: the base's metadata, then the slices of its constants that the plan keeps.

`BaseModel` reads the base once. `emit` copies everything up to the first constant that changes, gathers the kept slices
of the others straight into the new file, applies the folds, and corrects in place what depends on the sizes: where each
buffer is, shapes, and the scales of quantised channels. No converter, no object for anything but arrays; what comes out
is an ordinary .tflite.
"""

from __future__ import annotations

import math
import mmap
import struct
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_runtime.digests import digest_of
from edge_runtime.errors import ModelFileError, PlanError
from edge_runtime.flatmodel.channels import Channels, find_channels
from edge_runtime.flatmodel.folding import Layer, PlacedFold, fold_layer
from edge_runtime.flatmodel.gather import fresh_memory, take_kept
from edge_runtime.flatmodel.graph import read_graph
from edge_runtime.flatmodel.kept_channels import KeptChannels
from edge_runtime.flatmodel.layout import Layout, check_apart, constant_span, data_fields, read_layout
from edge_runtime.flatmodel.quantization import affine_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from numpy.typing import NDArray

    from edge_runtime.flatmodel.channels import ChannelGroup, Consumer
    from edge_runtime.flatmodel.flatbuffer import Vector
    from edge_runtime.flatmodel.graph import Graph, Quantization, Tensor
    from edge_runtime.flatmodel.plan import Fold, LayerCut, PruningPlan
    from edge_runtime.flatmodel.quantization import Affine

__all__ = ["BaseModel"]


class BaseModel:
    """A normalised .tflite that can be cut.

    Parameters
    ----------
    content
        The file's bytes (`normalize` makes them).
    channels
        Finds the channels that a cut may take; for a part of a model, those of the whole.
    name
        What error messages call the file.

    Raises
    ------
    ModelFileError
        The bytes are no normalised .tflite file.
    """

    def __init__(
        self,
        content: bytes | memoryview,
        *,
        channels: Callable[[Graph], Channels] = find_channels,
        name: str = "base model",
    ) -> None:
        self.content = content
        self.graph = read_graph(content, name)
        try:
            self._layout: Layout = read_layout(content)
            self._data_fields = data_fields(content)
            self.channels: Channels = channels(self.graph)
            self._constants = self._placed_constants()
            check_apart(self.graph.claims, self._changeable(), self._layout)
        except ModelFileError as error:
            raise ModelFileError(f"{name}: {error}") from error

    @classmethod
    def open(cls, path: Path | str) -> BaseModel:
        """Map the file at `path` into memory, so that only what a cut reads of it is loaded: for a device.

        Raises
        ------
        ModelFileError
            The file cannot be read, or is no normalised .tflite file.
        """
        try:
            with Path(path).open("rb") as file:
                content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        except (OSError, ValueError) as error:  # ValueError: an empty file cannot be mapped
            raise ModelFileError(f"{path}: cannot be read: {error}") from error
        return cls(content, name=str(path))

    @classmethod
    def load(cls, path: Path | str) -> BaseModel:
        """Read the file at `path` into memory: for who cuts it again and again, a seventh faster than `open`.

        Raises
        ------
        ModelFileError
            The file cannot be read, or is no normalised .tflite file.
        """
        try:
            content = np.fromfile(path, np.uint8)  # large arrays of numpy lie in huge pages, bytes do not
        except OSError as error:
            raise ModelFileError(f"{path}: cannot be read: {error}") from error
        return cls(content.data.toreadonly(), name=str(path))

    def _placed_constants(self) -> list[_Constant]:
        if self.graph.subgraphs != 1:
            raise ModelFileError(f"has {self.graph.subgraphs} subgraphs: normalise it first")
        start = np.frombuffer(self.content, np.uint8).__array_interface__["data"][0]
        placed: dict[int, _Constant] = {}
        for tensor in self.graph.tensors:
            if tensor.stored is None:
                continue
            at = np.frombuffer(tensor.stored, np.uint8).__array_interface__["data"][0] - start
            if tensor.buffer in placed or at < self._layout.constants_start:
                raise ModelFileError(
                    f"tensor {tensor.index} shares its constant or lies among the metadata: normalise the file again"
                )
            placed[tensor.buffer] = _Constant(tensor, at, len(tensor.stored), self._data_fields[tensor.buffer])
        constants = sorted(placed.values(), key=lambda constant: constant.at)
        end = self._layout.constants_start
        for constant in constants:
            # Each where `place_constants` puts it: a cut copies what it leaves alone as one piece.
            if constant_span(end, constant.size) != (constant.at, constant.at + constant.size):
                raise ModelFileError(f"tensor {constant.tensor.index} is not where it should be: normalise it again")
            end = constant.at + constant.size
        if end + self._layout.tail != len(self.content):
            raise ModelFileError("its length is not that of its parts: is the file whole?")
        return constants

    def _changeable(self) -> NDArray[np.int64]:
        """Return begin and end of everything in the metadata that a cut may change, `(n, 2) int64`."""
        changed = [(constant.field, constant.field + 4) for constant in self._constants]
        for tensor in self.graph.tensors:
            sides = 4 * len(tensor.shape)
            changed += [(at, at + sides) for at in (tensor.shape_at, tensor.signature_at) if at is not None]
            if tensor.quantization is not None:
                vectors = (tensor.quantization.scales, tensor.quantization.zero_points)
                changed += [(vector.start - 4, vector.end) for vector in vectors if vector is not None]
        return np.array(changed, dtype=np.int64).reshape(-1, 2)

    @cached_property
    def digest(self) -> str:
        """The sha256 of the file."""
        return digest_of(self.content)

    def apply(self, plan: PruningPlan) -> memoryview:
        """Return the cut model's file.

        Raises
        ------
        PlanError
            The plan is for another base, names units that may not go, or does not fit.
        """
        if plan.base != self.digest:
            raise PlanError(
                f"the plan is for base {plan.base[:12]}…, this base is {self.digest[:12]}…: fetch the plan's own base"
            )
        return self.emit(plan.cuts)

    def emit(self, cuts: Iterable[LayerCut]) -> memoryview:
        """Return the file with `cuts` applied (see `apply`, which also checks that the cuts belong to this base)."""
        by_group = self._checked(cuts)
        kept = KeptChannels(self.channels, by_group)
        folded = self._folded(by_group, kept)
        values = self._counted(kept)
        for layer in folded:
            values[layer.consumer.weight], values[layer.consumer.bias] = layer.layer.weights, layer.layer.bias
        content = self._gather(kept, values)
        for index in self.channels.axes:
            axes = kept.axes(index)
            tensor = self.graph.tensors[index]
            if axes:
                _resize(content, tensor, axes)
            if axes and tensor.quantization is not None:
                _slice_scales(content, tensor.quantization, axes)
        for layer in folded:
            _put_scales(content, self.graph.tensors[layer.consumer.weight].quantization, layer.layer.weights_affine)
            _put_scales(content, self.graph.tensors[layer.consumer.bias].quantization, layer.layer.bias_affine)
        return content.toreadonly()

    def _gather(self, kept: KeptChannels, values: Mapping[int, NDArray[Any]]) -> memoryview:
        """Return the new file, with constants and their positions right, and all other metadata as in the base."""
        base = np.frombuffer(self.content, np.uint8)
        spans: list[tuple[_Constant, int, int]] = []
        same = cursor = self._layout.constants_start
        for constant in self._constants:
            index = constant.tensor.index
            axes = kept.axes(index)
            is_same = index not in values and not axes
            if is_same and not spans:
                # Nothing before it has changed its length: it stays where it is.
                same = cursor = constant.at + constant.size
                continue
            size = values[index].nbytes if index in values else _size(constant.tensor, axes) if axes else constant.size
            begin, cursor = constant_span(cursor, size)
            spans.append((constant, begin, cursor))
        array = fresh_memory(cursor + self._layout.tail)
        array[:same] = base[:same]
        content, end_before = array.data, same
        for constant, begin, end in spans:
            index, out = constant.tensor.index, array[begin:end]
            data = constant.tensor.data
            if index in values:
                out[:] = np.ascontiguousarray(values[index]).reshape(-1).view(np.uint8)
            elif data is not None and kept.axes(index):
                take_kept(data, kept.axes(index), out.view(data.dtype))
            else:
                out[:] = base[constant.at : constant.at + constant.size]
            array[end_before:begin] = 0  # what lies between two constants is the same in every file
            end_before = end
            struct.pack_into("<I", content, begin - 4, end - begin)
            struct.pack_into("<I", content, constant.field, begin - 4 - constant.field)
        array[cursor:] = base[len(base) - self._layout.tail :]
        return content

    def _checked(self, cuts: Iterable[LayerCut]) -> dict[int, LayerCut]:
        by_group: dict[int, LayerCut] = {}
        for cut in cuts:
            number = self.channels.group_of(cut.tensor)
            group = self.channels.groups[number]
            where = f"layer of tensor {cut.tensor}"
            if group.units != cut.units:
                raise PlanError(f"{where}: has {group.units} units, the plan says {cut.units}")
            if group.barriers and len(cut.kept) < cut.units:
                raise PlanError(f"{where}: its units must stay: {'; '.join(group.barriers)}")
            if number in by_group:
                raise PlanError(f"{where}: is cut twice")
            by_group[number] = cut
            readers = [fold.weight for fold in cut.folds]
            known = {consumer.weight for consumer in group.consumers}
            for weight in readers:
                if weight not in known or readers.count(weight) > 1:
                    raise PlanError(f"{where}: tensor {weight} is no layer that reads it, or takes up two folds")
        return by_group

    def _counted(self, kept: KeptChannels) -> dict[int, NDArray[Any]]:
        """Return shapes, amounts and the like (tensor index -> values) that say how many channels there are."""
        values = {}
        for index, elements in self.channels.counts.items():
            data = self.graph.tensors[index].data
            assert data is not None
            numbers = {element: kept.count(labels) for element, labels in elements.items()}
            if any(data.flat[element] != number for element, number in numbers.items()):
                values[index] = data.copy()
                for element, number in numbers.items():
                    values[index].flat[element] = number
        return values

    def _folded(self, by_group: Mapping[int, LayerCut], kept: KeptChannels) -> list[_FoldedLayer]:
        """Return the layers that take up folds, as they are in the cut model."""
        folds: dict[int, list[tuple[ChannelGroup, LayerCut, Fold]]] = {}
        consumers: dict[int, Consumer] = {}
        for number, cut in by_group.items():
            group = self.channels.groups[number]
            consumers |= {consumer.weight: consumer for consumer in group.consumers}
            for fold in cut.folds:
                folds.setdefault(fold.weight, []).append((group, cut, fold))
        layers = []
        for weight, of_weight in folds.items():
            consumer, tensor = consumers[weight], self.graph.tensors[weight]
            if self.graph.operators[consumer.operator].kind == "TRANSPOSE_CONV":
                # Its strides decide which kernel positions a pixel meets: no bias is right for all pixels.
                raise PlanError(f"fold of weight {weight}: a transposed convolution takes up none")
            axes, last = kept.axes(weight), len(tensor.shape) - 1
            own = axes.get(0, np.arange(tensor.shape[0]))
            columns = axes.get(last, np.arange(tensor.shape[last]))
            placed = [self._placed(weight, group, cut, fold) for group, cut, fold in of_weight]
            layers.append(_FoldedLayer(consumer, fold_layer(self._layer(consumer, own), placed, columns)))
        return layers

    def _placed(self, weight: int, group: ChannelGroup, cut: LayerCut, fold: Fold) -> PlacedFold:
        """Say where a fold's units lie along the last axis of the weights."""
        where = f"fold of weight {weight}"
        labels = self.channels.axes[weight][len(self.graph.tensors[weight].shape) - 1]
        units, places = group.places(labels)
        if places is None:
            raise PlanError(f"{where}: its layer reads some units more often than others")
        is_kept = np.isin(units, cut.kept)
        pruned, kept = int((~is_kept).sum()), int(is_kept.sum())
        if fold.coefficients.shape not in {(rows, columns) for rows in (pruned, len(units)) for columns in (0, kept)}:
            raise PlanError(
                f"{where}: has {fold.coefficients.shape} coefficients for {pruned} pruned and {kept} kept units"
            )
        return PlacedFold(fold, places[:, is_kept], places if len(fold.offsets) > pruned else places[:, ~is_kept])

    def _layer(self, consumer: Consumer, own: NDArray[np.int64]) -> Layer:
        """Return the layer that reads a group, with the output channels `own` left."""
        weights = self.graph.tensors[consumer.weight]
        bias = self.graph.tensors[consumer.bias] if consumer.bias >= 0 else None
        if weights.data is None or bias is None or bias.data is None:
            raise PlanError(f"weight tensor {consumer.weight}: its layer has no bias that could take up a fold")
        read = self.graph.tensors[consumer.tensor].quantization
        return Layer(
            weights=weights.data[own],
            bias=bias.data[own],
            weights_affine=_affine(weights, own),
            bias_affine=_affine(bias, own),
            input_scale=None if read is None else float(affine_of(read).scales[0]),
        )


@dataclass(frozen=True, slots=True)
class _Constant:
    """A constant in the base: its tensor, position and bytes, and the position of the field that points to it."""

    tensor: Tensor
    at: int
    size: int
    field: int


@dataclass(frozen=True, slots=True)
class _FoldedLayer:
    consumer: Consumer
    layer: Layer


def _size(tensor: Tensor, axes: Mapping[int, NDArray[np.int64]]) -> int:
    assert tensor.dtype is not None
    sides = (len(axes[axis]) if axis in axes else side for axis, side in enumerate(tensor.shape))
    return math.prod(sides) * tensor.dtype.itemsize


def _resize(content: memoryview, tensor: Tensor, axes: Mapping[int, NDArray[np.int64]]) -> None:
    for axis, indices in axes.items():
        if tensor.shape_at is not None:
            struct.pack_into("<i", content, tensor.shape_at + 4 * axis, len(indices))
        at = tensor.signature_at
        if at is not None and struct.unpack_from("<i", content, at + 4 * axis)[0] >= 0:
            struct.pack_into("<i", content, at + 4 * axis, len(indices))


def _affine(tensor: Tensor, own: NDArray[np.int64]) -> Affine | None:
    """Return how a constant is quantised, with the output channels `own` left."""
    return None if tensor.quantization is None else affine_of(tensor.quantization).at(own)


def _slice_scales(content: memoryview, quantization: Quantization, axes: Mapping[int, NDArray[np.int64]]) -> None:
    if quantization.count == 1 or quantization.axis not in axes:
        return
    for vector, dtype in ((quantization.scales, "<f4"), (quantization.zero_points, "<i8")):
        if vector is not None and vector.length > 1:
            _put_vector(content, vector, vector.view(np.dtype(dtype))[axes[quantization.axis]])


def _put_scales(content: memoryview, quantization: Quantization | None, affine: Affine | None) -> None:
    if quantization is None or affine is None:
        return
    _put_vector(content, quantization.scales, affine.scales)
    zero_points = quantization.zero_points
    if zero_points is not None and zero_points.length:
        # One for all slices stays one for all.
        _put_vector(content, zero_points, affine.zero_points if zero_points.length > 1 else affine.zero_points[:1])
    elif affine.zero_points.any():
        raise PlanError("a fold needs a zero point where the file has none")


def _put_vector(content: memoryview, vector: Vector, values: NDArray[Any]) -> None:
    """Write `values` where `vector` is, with its new length; what it no longer needs becomes zero."""
    end = vector.start + vector.length * vector.item_size
    used = vector.start + values.nbytes
    struct.pack_into("<I", content, vector.start - 4, len(values))
    content[vector.start : used] = values.tobytes()
    content[used:end] = bytes(end - used)
