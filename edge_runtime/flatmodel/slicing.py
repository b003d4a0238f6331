"""Makes a cut model from its base: the base's metadata, then the slices of its constants that the plan keeps.

`BaseModel` reads the base once. `emit` copies the metadata, gathers each constant's kept slices straight into the new
file, applies the folds, and corrects in place what depends on the sizes: where each buffer is, and shapes. No
converter, no object for anything but arrays; what comes out is an ordinary .tflite.
"""

from __future__ import annotations

import struct
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_runtime.digests import digest_of
from edge_runtime.errors import ModelFileError, PlanError
from edge_runtime.flatmodel.channels import Channels, find_channels
from edge_runtime.flatmodel.folding import fold_bias, fold_weights
from edge_runtime.flatmodel.graph import read_graph
from edge_runtime.flatmodel.layout import constant_span, constants_start, data_fields

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    from edge_runtime.flatmodel.graph import Tensor
    from edge_runtime.flatmodel.plan import Fold, LayerCut, PruningPlan

__all__ = ["BaseModel"]


class BaseModel:
    """A normalised .tflite that can be cut.

    Parameters
    ----------
    content
        The file's bytes (`normalize` makes them); they may be memory-mapped.
    inputs_are_cut
        The model is a part (`extract`) whose input is a boundary activation: its channels may be pruned too.
    name
        What error messages call the file.

    Raises
    ------
    ModelFileError
        The bytes are no normalised .tflite file.
    """

    def __init__(self, content: bytes | memoryview, *, inputs_are_cut: bool = False, name: str = "base model") -> None:
        self.content = content
        self.graph = read_graph(content, name)
        try:
            self._metadata_end = constants_start(content)
        except ModelFileError as error:
            raise ModelFileError(f"{name}: {error}") from error
        self.channels: Channels = find_channels(self.graph, inputs_are_cut=inputs_are_cut)
        self._data_fields = data_fields(content)
        self._constants = sorted(
            (t for t in self.graph.tensors if t.data is not None), key=lambda tensor: tensor.buffer
        )
        self._check_layout(name)

    def _check_layout(self, name: str) -> None:
        owners: set[int] = set()
        base = np.frombuffer(self.content, np.uint8).__array_interface__["data"][0]
        for tensor in self._constants:
            assert tensor.data is not None
            position = tensor.data.__array_interface__["data"][0] - base
            if tensor.buffer in owners or position < self._metadata_end:
                raise ModelFileError(
                    f"{name}: tensor {tensor.index} shares its constant or lies among the metadata: "
                    "normalise the file again"
                )
            owners.add(tensor.buffer)

    @cached_property
    def digest(self) -> str:
        """The sha256 of the file."""
        return digest_of(self.content)

    def apply(self, plan: PruningPlan) -> bytes:
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

    def emit(self, cuts: Iterable[LayerCut]) -> bytes:
        """Return the file with `cuts` applied (see `apply`, which also checks that the cuts belong to this base)."""
        by_group, folds = self._checked(cuts)
        content, patches = self._gather(by_group, folds)
        for tensor in self.graph.tensors:
            axes = self._cut_axes(tensor.index, by_group)
            if axes:
                self._resize(content, tensor, axes)
        for at, value in patches:
            struct.pack_into("<I", content, at, value)
        return bytes(content)

    def _checked(self, cuts: Iterable[LayerCut]) -> tuple[dict[int, LayerCut], dict[int, tuple[LayerCut, Fold]]]:
        by_group: dict[int, LayerCut] = {}
        folds: dict[int, tuple[LayerCut, Fold]] = {}
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
            readers = {consumer.weight for consumer in group.consumers}
            for fold in cut.folds:
                if fold.weight not in readers or fold.weight in folds:
                    raise PlanError(f"{where}: tensor {fold.weight} is no layer that reads it, or takes up two folds")
                if fold.coefficients.shape[1] not in (0, len(cut.kept)):
                    raise PlanError(
                        f"{where}: {fold.coefficients.shape[1]} fold columns for {len(cut.kept)} kept units"
                    )
                folds[fold.weight] = (cut, fold)
        return by_group, folds

    def _cut_axes(self, tensor: int, by_group: Mapping[int, LayerCut]) -> dict[int, NDArray[np.int64]]:
        """Return axis -> kept indices along it, for the axes of `tensor` that the cuts touch."""
        uses = self.channels.axes.get(tensor, {})
        return {
            axis: _indices(by_group[use.group], use.positions) for axis, use in uses.items() if use.group in by_group
        }

    def _gather(
        self, by_group: Mapping[int, LayerCut], folds: Mapping[int, tuple[LayerCut, Fold]]
    ) -> tuple[bytearray, list[tuple[int, int]]]:
        """Build the new file's bytes; return them with the (position, uint32) patches that place the buffers."""
        biases: dict[int, NDArray[np.float32]] = {}
        # Weights before biases: a fold changes a bias that may stand earlier in the file.
        for weight, (cut, fold) in folds.items():
            biases.update(self._folded_bias(weight, cut, fold, by_group))
        sliced = [(tensor, self._sliced(tensor, by_group, folds, biases)) for tensor in self._constants]
        cursor, spans = self._metadata_end, []
        for tensor, values in sliced:
            begin, cursor = constant_span(cursor, values.nbytes)
            spans.append((tensor, values, begin))
        content = bytearray(cursor)
        content[: self._metadata_end] = self.content[: self._metadata_end]
        patches = []
        for tensor, values, begin in spans:
            field = self._data_fields[tensor.buffer]
            patches += [(begin - 4, values.nbytes), (field, begin - 4 - field)]
            np.frombuffer(content, values.dtype, values.size, begin)[:] = values.ravel()
        return content, patches

    def _sliced(
        self,
        tensor: Tensor,
        by_group: Mapping[int, LayerCut],
        folds: Mapping[int, tuple[LayerCut, Fold]],
        biases: Mapping[int, NDArray[np.float32]],
    ) -> NDArray[Any]:
        assert tensor.data is not None
        if tensor.index in biases:
            return biases[tensor.index]
        if tensor.index in self.channels.shape_values:
            return self._shape_value(tensor, by_group)
        values = tensor.data
        axes = self._cut_axes(tensor.index, by_group)
        if tensor.index in folds:
            cut, fold = folds[tensor.index]
            if 0 in axes:
                values = values[axes.pop(0)]
            kept, pruned = _split(values, cut)
            rows = fold_weights(kept.reshape(-1, kept.shape[-1]), pruned.reshape(-1, pruned.shape[-1]), fold)
            shape = (*values.shape[:-1], values.shape[-1] // cut.units * len(cut.kept))
            return rows.reshape(shape)
        for axis, indices in axes.items():
            values = np.take(values, indices, axis=axis)
        return values

    def _folded_bias(
        self, weight: int, cut: LayerCut, fold: Fold, by_group: Mapping[int, LayerCut]
    ) -> dict[int, NDArray[np.float32]]:
        group = self.channels.groups[self.channels.group_of(cut.tensor)]
        consumer = next(c for c in group.consumers if c.weight == weight)
        bias = self.graph.tensors[consumer.bias].data if consumer.bias >= 0 else None
        values = self.graph.tensors[weight].data
        if bias is None or values is None or values.dtype != np.float32:
            raise PlanError(f"weight tensor {weight}: only float32 layers with a bias take up a fold")
        own = self._cut_axes(weight, by_group).get(0)
        if own is not None:
            values, bias = values[own], bias[own]
        _, pruned = _split(values, cut)
        return {consumer.bias: fold_bias(bias, pruned.reshape(len(pruned), -1, pruned.shape[-1]), fold)}

    def _shape_value(self, tensor: Tensor, by_group: Mapping[int, LayerCut]) -> NDArray[Any]:
        assert tensor.data is not None
        values: NDArray[Any] = tensor.data.copy()
        for element, use in self.channels.shape_values[tensor.index].items():
            if use.group in by_group and values[element] >= 0:
                values[element] = use.positions * len(by_group[use.group].kept)
        return values

    @staticmethod
    def _resize(content: bytearray, tensor: Tensor, axes: Mapping[int, NDArray[np.int64]]) -> None:
        for axis, indices in axes.items():
            if tensor.shape_at is not None:
                struct.pack_into("<i", content, tensor.shape_at + 4 * axis, len(indices))
            if (
                tensor.signature_at is not None
                and struct.unpack_from("<i", content, tensor.signature_at + 4 * axis)[0] >= 0
            ):
                struct.pack_into("<i", content, tensor.signature_at + 4 * axis, len(indices))


def _indices(cut: LayerCut, positions: int) -> NDArray[np.int64]:
    """Return the kept indices of an axis of `positions * units`."""
    if positions == 1:
        return cut.kept
    return (np.arange(positions)[:, None] * cut.units + cut.kept).ravel()


def _split(weights: NDArray[np.float32], cut: LayerCut) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Split weights `(outputs, ..., positions * units)` by unit.

    `(outputs, ..., positions, kept)` and `(..., pruned)`.
    """
    by_unit = weights.reshape(*weights.shape[:-1], -1, cut.units)
    return by_unit[..., cut.kept], by_unit[..., cut.pruned]
