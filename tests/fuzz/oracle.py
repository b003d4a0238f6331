"""What must hold for any bytes: a documented error, or a result that is right.

A result is judged by reading it again and comparing it, tensor by tensor, with what the base and the kept channels say
that it must be. Nothing here shares code with the slicer but the channel analysis.
"""

from __future__ import annotations

import contextlib
import struct

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edge_runtime.errors import ModelFileError, PlanError
from edge_runtime.flatmodel import BaseModel, LayerCut, PruningPlan, normalize, read_graph
from tests.support.random_cuts import random_cuts
from tests.support.reference import kept_units

# What a cut changes; `_check_tensor` says to what.
_TENSOR = "model.subgraphs.tensors"
_RESIZED = {
    *("model.buffers.data", f"{_TENSOR}.shape", f"{_TENSOR}.shapeSignature"),
    *(f"{_TENSOR}.quantization.scale", f"{_TENSOR}.quantization.zeroPoint"),
}


class WrongResultError(Exception):
    """A result that is not what it must be."""


def check_normalised(content: bytes, rng: np.random.Generator) -> str:
    """Read a (damaged) normalised file, cut it, and check what comes out; return how far it got."""
    try:
        read_graph(content)
    except ModelFileError as error:
        return _refused("reading", error)
    try:
        base = BaseModel(content)
    except ModelFileError as error:
        return _refused("slicing", error)
    _expect(base.emit([]) == base.content, "without cuts, the base does not come out unchanged")
    if not base.channels.prunable:
        return "nothing to cut"
    with contextlib.suppress(PlanError):
        if rng.random() < 0.2:
            check_cut(base, _wild_cuts(base, rng))
    cuts = random_cuts(base, rng, folds=("none",) if rng.random() < 0.5 else ("mean", "linear"))
    try:
        check_cut(base, cuts)
    except PlanError as error:
        return _refused("cutting", error)
    if rng.random() < 0.1:
        _check_same_but_for_sizes(
            schema.ModelT.InitFromPackedBuf(content), schema.ModelT.InitFromPackedBuf(base.emit(cuts))
        )
    return "cut"


def check_plain(content: bytes, rng: np.random.Generator) -> str:
    """Read a (damaged) file as it came from a converter and normalise it; then as `check_normalised`."""
    try:
        normalised = normalize(content)
    except ModelFileError as error:
        return _refused("normalising", error)
    _expect(normalize(normalised) == normalised, "normalising twice is not normalising once")
    before, after = read_graph(content), read_graph(normalised)
    _expect((before.inputs, before.outputs) == (after.inputs, after.outputs), "normalising changed inputs or outputs")
    return f"normalised, {check_normalised(normalised, rng)}"


def check_plan(content: bytes, base: BaseModel) -> str:
    """Decode a (damaged) plan and apply it; a plan that is taken must survive encoding, and its cut must be right."""
    try:
        plan = PruningPlan.from_bytes(content)
    except PlanError as error:
        return _refused("decoding", error)
    _expect(PruningPlan.from_bytes(plan.to_bytes()).to_bytes() == plan.to_bytes(), "encoding changes the plan")
    try:
        emitted = base.apply(plan)
    except PlanError as error:
        return _refused("applying", error)
    check_cut(base, plan.cuts)
    _expect(base.emit(plan.cuts) == emitted, "a plan and its cuts give different files")
    return "applied"


def check_cut(base: BaseModel, cuts) -> None:
    """Check that `cuts` are refused, or give a file that says what the base says of the channels that are kept."""
    emitted = base.emit(cuts)
    _expect(base.emit(cuts) == emitted, "the same cut gives different bytes")
    try:
        cut = BaseModel(emitted).graph
    except ModelFileError as error:
        raise WrongResultError(f"the cut file cannot be read: {error}") from error
    graph, keeps = base.graph, kept_units(base, cuts)
    same = ("operators", "inputs", "outputs", "subgraphs")
    _expect(all(getattr(graph, name) == getattr(cut, name) for name in same), "a cut changed the operators")
    _expect(graph.metadata == cut.metadata, "a cut changed the metadata")
    folded = _folded_tensors(base, cuts)
    for before, after in zip(graph.tensors, cut.tensors, strict=True):
        _check_tensor(base, emitted, before, after, keeps, is_folded=before.index in folded)


def _check_tensor(base, emitted, before, after, keeps, *, is_folded):
    what = f"tensor {before.index}"
    kept = {axis: keeps[labels] for axis, labels in base.channels.axes.get(before.index, {}).items()}
    shape = tuple(int(kept[axis].sum()) if axis in kept else side for axis, side in enumerate(before.shape))
    _expect(after.shape == shape, f"{what} has the shape {after.shape}, not {shape}")
    same = ("name", "dtype", "buffer")
    _expect(all(getattr(before, name) == getattr(after, name) for name in same), f"{what} changed in kind")
    _check_signature(base.content, emitted, before, after, what)
    _check_scales(before.quantization, after.quantization, kept, what, is_folded=is_folded)
    if before.data is None or after.data is None:
        stored = None if before.stored is None else bytes(before.stored)
        _expect((None if after.stored is None else bytes(after.stored)) == stored, f"{what} has other bytes")
    elif is_folded:
        # What the numbers must be, `tests.edge_runtime.test_folding` says.
        _expect(np.isfinite(after.data).all() or not np.isfinite(before.data).all(), f"{what} is not finite any more")
    else:
        expected = before.data.copy()
        for element, labels in base.channels.counts.get(before.index, {}).items():
            expected.flat[element] = keeps[labels].sum()
        for axis, flags in kept.items():
            expected = np.compress(flags, expected, axis=axis)
        _expect(expected.tobytes() == after.data.tobytes(), f"{what} has other values")


def _check_signature(content, emitted, before, after, what):
    if before.signature_at is None:
        return
    old, new = (
        struct.unpack_from(f"<{len(tensor.shape)}i", data, tensor.signature_at)
        for data, tensor in ((content, before), (emitted, after))
    )
    resized = [a if a < 0 or s == t else t for a, s, t in zip(old, before.shape, after.shape, strict=True)]
    _expect(list(new) == resized, f"{what} has the shape signature {new}, not {resized}")


def _check_scales(before, after, kept, what, *, is_folded):
    _expect((before is None) == (after is None), f"{what} is no longer quantised")
    if before is None:
        return
    _expect(before.axis == after.axis, f"{what} is quantised along another axis")
    for name, dtype in (("scales", "<f4"), ("zero_points", "<i8")):
        old, new = (getattr(quantization, name) for quantization in (before, after))
        if old is None:
            _expect(new is None, f"{what} has zero points")
            continue
        old, new = old.view(np.dtype(dtype)), new.view(np.dtype(dtype))
        if len(old) > 1 and before.count > 1 and before.axis in kept:
            old = old[kept[before.axis]]
        _expect(len(old) == len(new), f"{what} has {len(new)} {name}, not {len(old)}")
        _expect(is_folded or old.tobytes() == new.tobytes(), f"{what} has other {name}")


def _check_same_but_for_sizes(before, after, where="model"):
    """Check that a cut left alone what only the schema's own reader sees: names, signatures, texts, options."""
    if where in _RESIZED:
        return
    same = type(before) is type(after)
    if isinstance(before, np.ndarray) and same:
        same = before.shape == after.shape and before.tobytes() == after.tobytes()
    elif isinstance(before, list) and same:
        same = len(before) == len(after)
        for item, other in zip(before, after, strict=False):
            _check_same_but_for_sizes(item, other, where)
    elif hasattr(before, "__dict__") and same:
        for name, value in vars(before).items():
            _check_same_but_for_sizes(value, getattr(after, name), f"{where}.{name}")
    elif same:
        same = before == after or before != before  # noqa: PLR0124 - NaN
    _expect(same, f"a cut changed {where}")


def _folded_tensors(base, cuts):
    weights = {fold.weight for cut in cuts for fold in cut.folds}
    consumers = [consumer for group in base.channels.groups for consumer in group.consumers]
    return weights | {consumer.bias for consumer in consumers if consumer.weight in weights}


def _wild_cuts(base, rng):
    """One cut of anything: any tensor, any number of units, any of them kept."""
    units = int(rng.choice([group.units for group in base.channels.groups])) if base.channels.groups else 1
    kept = np.flatnonzero(rng.random(min(units, 1 << 16)) < 0.7)
    return [LayerCut(int(rng.integers(-1, len(base.graph.tensors) + 1)), units, kept)]


def _refused(where: str, error: Exception) -> str:
    message = str(error)
    _expect("\n" not in message and 0 < len(message) < 1000, f"the message of {where} is no line: {message[:2000]!r}")
    return f"refused while {where}"


def _expect(holds, otherwise: str) -> None:
    if not holds:
        raise WrongResultError(otherwise)
