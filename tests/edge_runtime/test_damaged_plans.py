"""Damaged and hostile pruning plans: a clear error, within bounds of memory, whatever they say."""

from __future__ import annotations

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.errors import PlanError
from edge_runtime.flatmodel import BaseModel, Fold, LayerCut, PruningPlan, normalize
from tests.fuzz.memory import MIB, memory_below
from tests.fuzz.seeds import quantized
from tests.support.tflite_builder import SequentialBuilder


def builder():
    return SequentialBuilder((6, 6, 2), np.random.default_rng(1))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_garbage_is_no_plan(content):
    with pytest.raises(PlanError):
        PruningPlan.from_bytes(content)


NONE_OF_A_PLAN = {
    "plan": (True, 1.0, 2, "1"),
    "base": (b"a", "a\nb", None),
    "cuts": ({}, 7, None, [7]),
    "tensor": (-1, 1 << 63, 1.0),
    "units": (-1, 0, 9, 1 << 40, "4", float("inf")),
    "kept": (b"", b"\0", b"\xe0\0", "x", [1]),
    "folds": ({}, 7, [7]),
    "weight": (-1, None),
    "columns": (-1, 1, 1 << 40),
    "coefficients": (b"\0", b"\0\0", None),
    "coefficient_exponent": (10**9, -(10**9), None),
    "offsets": (b"\0" * 10, b"\0", 7),
    "offset_exponent": (1 << 63, float("nan")),
}


class TestPlans:
    def encoded(self, **changes):
        fold = {"weight": 1, "columns": 0, "coefficients": b"", "coefficient_exponent": 0}
        fold |= {"offsets": b"\0\0", "offset_exponent": 0}
        cut = {"tensor": 3, "units": 4, "kept": b"\xe0", "folds": [fold]}
        fields = {"plan": 1, "base": "a" * 64, "cuts": [cut]}
        for name, value in changes.items():
            next(part for part in (fields, cut, fold) if name in part)[name] = value
        return msgpack.packb(fields)

    def test_a_good_one(self):
        (cut,) = PruningPlan.from_bytes(self.encoded()).cuts
        assert (cut.tensor, cut.kept.tolist(), cut.folds[0].weight) == (3, [0, 1, 2], 1)

    @pytest.mark.parametrize(
        ("field", "value"), [(field, value) for field, values in NONE_OF_A_PLAN.items() for value in values]
    )
    def test_numbers_that_no_plan_has(self, field, value):
        with pytest.raises(PlanError) as caught:
            PruningPlan.from_bytes(self.encoded(**{field: value}))
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        "content",
        [
            b"\xdc\xff\xff" * 500 + bytes(70_000),  # lists of 65535 inside one another
            b"\xdd\x00\x0f\xff\xff" * 500 + bytes(1 << 20),
            b"\x91" * 100_000,
            b"\xdb\xff\xff\xff\xff",  # a text of 4 GiB
            b"\x81\xa4plan" * 5000,
        ],
    )
    def test_lists_that_claim_to_be_longer_than_the_plan(self, content):
        with memory_below(16 * MIB + 200 * len(content)), pytest.raises(PlanError):
            PruningPlan.from_bytes(content)

    def test_a_layer_that_reads_some_of_the_units_takes_up_a_fold_over_the_wire(self):
        fold = Fold.of(9, np.ones((1, 2)), np.ones(1))
        cut = LayerCut(3, 6, np.array([0, 1, 2]), (fold,))
        (decoded,) = PruningPlan.from_bytes(PruningPlan("a" * 64, (cut,)).to_bytes()).cuts
        assert decoded.folds[0].coefficients.shape == (1, 2)


class TestFolds:
    """Folds whose numbers leave the range of what takes them up."""

    def cut(self, base, exponent, *, columns):
        group = base.channels.groups[0]
        kept = np.arange(group.units - 1)
        whole, offsets = np.full((1, len(kept) if columns else 0), 30_000, np.int16), np.full(1, 30_000, np.int16)
        fold = Fold(group.consumers[0].weight, whole, exponent, offsets, exponent)
        return [LayerCut(group.tensors[0], group.units, kept, (fold,))]

    @pytest.mark.parametrize("columns", [True, False])
    @pytest.mark.parametrize("exponent", [120, 1024])
    @pytest.mark.filterwarnings("error")
    def test_of_a_layer_of_floats(self, exponent, columns):
        network = builder().conv(6).pool().conv(4).flatten().dense(3, activation=0)
        base = BaseModel(normalize(network.build()))
        with pytest.raises(PlanError, match="out of the range"):
            base.emit(self.cut(base, exponent, columns=columns))

    @pytest.mark.parametrize("columns", [True, False])
    @pytest.mark.filterwarnings("error")
    def test_of_a_layer_of_integers(self, columns):
        network = quantized(builder().conv(6).conv(4).flatten().dense(3, activation=0))
        base = BaseModel(normalize(network))
        with pytest.raises(PlanError, match="range"):
            base.emit(self.cut(base, 1024, columns=columns))

    @pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
    @pytest.mark.filterwarnings("error")
    def test_of_a_layer_with_scales_that_are_none(self, scale):
        network = builder().conv(6).conv(4).flatten().dense(3, activation=0)
        quantized(network)
        network.graph.tensors[network.graph.operators[0].outputs[0]].quantization.scale[0] = scale
        base = BaseModel(normalize(network.build()))
        with pytest.raises(PlanError, match="scales that are not positive numbers"):
            base.emit(self.cut(base, 0, columns=True))
