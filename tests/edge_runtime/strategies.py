"""Random sequential networks and random cuts of them."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from edge_runtime.flatmodel import BaseModel, LayerCut, normalize
from tests.support.random_cuts import random_cuts
from tests.support.tflite_builder import SAME, VALID, SequentialBuilder


@st.composite
def sequential_networks(draw) -> bytes:
    """A convolutional classifier: convolutions and pools, then flatten or global mean, then dense layers."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    side = draw(st.integers(6, 12))
    builder = SequentialBuilder((side, side, draw(st.integers(1, 4))), rng, draw(st.booleans()))
    bias = st.sampled_from([True, False, "zero"])
    for _ in range(draw(st.integers(1, 3))):
        filters, kernel = draw(st.integers(2, 12)), draw(st.sampled_from([1, 3]))
        fused = draw(st.booleans())
        builder.conv(
            filters,
            kernel,
            stride=draw(st.integers(1, 2)),
            padding=draw(st.sampled_from([SAME, VALID])) if builder._shape()[1] > 4 else SAME,
            activation=1 if fused else 0,
            bias=draw(st.sampled_from([True, "zero"])),
        )
        if not fused:
            builder.relu()
        if draw(st.booleans()):
            builder.scale("MUL", per_channel=draw(st.booleans())).scale("ADD", per_channel=draw(st.booleans()))
        if builder._shape()[1] >= 4 and draw(st.booleans()):
            builder.pool(2, average=draw(st.booleans()))
    builder.flatten() if draw(st.booleans()) else builder.mean()
    for _ in range(draw(st.integers(0, 2))):
        builder.dense(draw(st.integers(2, 12)), bias=draw(bias))
    builder.dense(draw(st.integers(2, 6)), activation=0, bias=draw(bias))
    return builder.softmax().build() if draw(st.booleans()) else builder.build()


@st.composite
def networks_with_cuts(draw) -> tuple[BaseModel, list[LayerCut]]:
    """A normalised network with cuts of some of its prunable groups, with and without folds."""
    base = BaseModel(normalize(draw(sequential_networks())))
    return base, random_cuts(base, np.random.default_rng(draw(st.integers(0, 2**32 - 1))))
