"""The pruning plan: what a cut keeps of its base model, small enough to send instead of the model.

The same base file and the same plan give the same bytes on every machine (`folding`).

Decoding trusts nothing: every number has its range, every list a limit. It takes at most 200 times the memory of the
plan's bytes, and 16 MiB more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgpack
import numpy as np

from edge_runtime.errors import PlanError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

__all__ = ["Fold", "LayerCut", "PruningPlan"]

_PLAN_VERSION: Final = 1

# What a plan may hold at most; a network has far fewer tensors, layers and channels.
_INDEX_MAX: Final = (1 << 31) - 1
_UNITS_MAX: Final = 1 << 24
_LIST_MAX: Final = 1 << 12
_FIELDS_MAX: Final = 8
_TEXT_MAX: Final = 256
# float64 has no larger powers of two.
_EXPONENT_MAX: Final = 1024
# Coefficients below this vanish beside any float32.
_LEAST: Final = 2.0**-300


@dataclass(frozen=True, slots=True, eq=False)
class Fold:
    """How a layer that read pruned units makes up for them: `a_P ~ offsets + coefficients @ a_S`.

    Its rows are the pruned units that the layer reads; or all units that it reads, and then those of kept ones are
    added to the identity: `a_S ~ a_S + offsets_S + coefficients_S @ a_S`.

    Stored as 16-bit integers with a common power of two, which is what makes folding exact (`folding.exact_product`).

    Attributes
    ----------
    weight
        Tensor index of the weights that take up the correction.
    coefficients
        `(rows, kept) int16`, of the units that the layer reads: B times `2**-coefficient_exponent`; no column where
        only means are folded.
    offsets
        `(rows,) int16`: what is added besides (mu_P - B mu_S), times `2**-offset_exponent`.
    """

    weight: int
    coefficients: NDArray[np.int16]
    coefficient_exponent: int
    offsets: NDArray[np.int16]
    offset_exponent: int

    @classmethod
    def of(cls, weight: int, coefficients: NDArray[np.floating[Any]], offsets: NDArray[np.floating[Any]]) -> Fold:
        """Round `coefficients` `(rows, kept or 0)` and `offsets` `(rows,)` to 16 bits each."""
        whole_b, exponent_b = _to_int16(coefficients)
        whole_v, exponent_v = _to_int16(offsets)
        return cls(weight, whole_b, exponent_b, whole_v, exponent_v)

    @property
    def is_linear(self) -> bool:
        """Whether pruned units are predicted from kept ones; otherwise only their means are folded."""
        return bool(self.coefficients.size)


@dataclass(frozen=True, slots=True, eq=False)
class LayerCut:
    """What is kept of one channel group.

    Attributes
    ----------
    tensor
        Any activation (tensor index in the base) that carries the group's channels.
    units
        How many units the group has.
    kept
        `(kept,) int64`, ascending.
    folds
        Corrections, at most one for each layer that reads the group.
    """

    tensor: int
    units: int
    kept: NDArray[np.int64]
    folds: tuple[Fold, ...] = ()

    def __post_init__(self) -> None:
        kept = self.kept
        if kept.ndim != 1 or len(kept) == 0:
            raise PlanError(f"layer of tensor {self.tensor}: a cut keeps at least one unit")
        if kept[0] < 0 or kept[-1] >= self.units or np.any(np.diff(kept) <= 0):
            raise PlanError(
                f"layer of tensor {self.tensor}: kept units must be ascending and within 0..{self.units - 1}"
            )

    @property
    def pruned(self) -> NDArray[np.int64]:
        """The units that go, `(pruned,) int64`, ascending."""
        mask = np.ones(self.units, dtype=bool)
        mask[self.kept] = False
        return np.flatnonzero(mask)


@dataclass(frozen=True, slots=True, eq=False)
class PruningPlan:
    """A cut of the base model whose file has the digest `base`."""

    base: str
    cuts: tuple[LayerCut, ...]

    def to_bytes(self) -> bytes:
        """Encode as msgpack: kept units as packed bits, folds as int16."""
        fields = {
            "plan": _PLAN_VERSION,
            "base": self.base,
            "cuts": [
                {
                    "tensor": cut.tensor,
                    "units": cut.units,
                    "kept": np.packbits(np.isin(np.arange(cut.units), cut.kept)).tobytes(),
                    "folds": [
                        {
                            "weight": fold.weight,
                            "columns": fold.coefficients.shape[1],
                            "coefficients": fold.coefficients.astype("<i2").tobytes(),
                            "coefficient_exponent": fold.coefficient_exponent,
                            "offsets": fold.offsets.astype("<i2").tobytes(),
                            "offset_exponent": fold.offset_exponent,
                        }
                        for fold in cut.folds
                    ],
                }
                for cut in self.cuts
            ],
        }
        return bytes(msgpack.packb(fields, use_bin_type=True))

    @classmethod
    def from_bytes(cls, content: bytes) -> PruningPlan:
        """Decode a plan.

        Raises
        ------
        PlanError
            The bytes are no plan of this version, or its parts contradict each other.
        """
        try:
            fields = msgpack.unpackb(
                content,
                raw=False,
                max_array_len=_LIST_MAX,
                max_map_len=_FIELDS_MAX,
                max_str_len=_TEXT_MAX,
                max_ext_len=0,
            )
            return _plan_from(fields)
        except PlanError:
            raise
        except (ValueError, TypeError, KeyError, msgpack.UnpackException) as error:
            raise PlanError(f"not a pruning plan: {type(error).__name__}: {error}") from error


def _plan_from(fields: dict[str, Any]) -> PruningPlan:
    version = _number(fields, "plan", 0, _INDEX_MAX)
    if version != _PLAN_VERSION:
        raise PlanError(f"plan version {version} is not understood here (this is version {_PLAN_VERSION})")
    base = fields["base"]
    if not isinstance(base, str) or not base.isalnum():
        raise PlanError("not a pruning plan: its base is no digest")
    return PruningPlan(base, tuple(_cut_from(cut) for cut in _list(fields, "cuts")))


def _number(fields: dict[str, Any], name: str, least: int, most: int) -> int:
    value = fields[name]
    if type(value) is not int or not least <= value <= most:
        raise PlanError(f"not a pruning plan: {name} is no whole number in {least}..{most}")
    return value


def _list(fields: dict[str, Any], name: str) -> list[dict[str, Any]]:
    value = fields[name]
    if not isinstance(value, list):
        raise PlanError(f"not a pruning plan: {name} is no list")
    return value


def _cut_from(fields: dict[str, Any]) -> LayerCut:
    tensor, units = _number(fields, "tensor", 0, _INDEX_MAX), _number(fields, "units", 1, _UNITS_MAX)
    bits = np.frombuffer(fields["kept"], dtype=np.uint8)
    if len(bits) != (units + 7) // 8:
        raise PlanError(f"layer of tensor {tensor}: {len(bits)} bytes of kept bits for {units} units")
    kept = np.flatnonzero(np.unpackbits(bits, count=units)).astype(np.int64)
    return LayerCut(tensor, units, kept, tuple(_folds_from(_list(fields, "folds"), len(kept), units - len(kept))))


def _folds_from(folds: list[dict[str, Any]], kept: int, pruned: int) -> Iterable[Fold]:
    for fields in folds:
        weight, columns = _number(fields, "weight", 0, _INDEX_MAX), _number(fields, "columns", 0, _UNITS_MAX)
        coefficients = np.frombuffer(fields["coefficients"], dtype="<i2")
        offsets = np.frombuffer(fields["offsets"], dtype="<i2")
        # A layer may read only some of the units.
        if columns > kept or len(offsets) > pruned + kept or len(coefficients) != len(offsets) * columns:
            raise PlanError(
                f"fold of weight {weight}: {len(coefficients)} coefficients in {columns} columns and {len(offsets)} "
                f"offsets for {pruned} pruned and {kept} kept units"
            )
        yield Fold(
            weight,
            coefficients.reshape(len(offsets), columns),
            _number(fields, "coefficient_exponent", -_EXPONENT_MAX, _EXPONENT_MAX),
            offsets,
            _number(fields, "offset_exponent", -_EXPONENT_MAX, _EXPONENT_MAX),
        )


def _to_int16(values: NDArray[np.floating[Any]]) -> tuple[NDArray[np.int16], int]:
    """Return integers and an exponent with `values ~ integers * 2**exponent`; the largest one uses all 15 bits."""
    largest = float(np.max(np.abs(values), initial=0.0))
    if not np.isfinite(largest):
        raise PlanError("a fold's coefficients are not finite")
    if largest < _LEAST:
        return np.zeros(values.shape, dtype=np.int16), 0
    exponent = int(np.ceil(np.log2(largest / 32767.0)))
    return np.rint(np.ldexp(values.astype(np.float64), -exponent)).astype(np.int16), exponent
