"""A model that is said to take any batch gives each image the answer that it gets alone."""

from __future__ import annotations

import numpy as np
import pytest

from edge_runtime.flatmodel import extract, normalize, read_graph, takes_any_batch
from edge_runtime.interpreter import LoadedModel
from tests.support.random_graphs import random_graph

SEEDS = range(24)


def opened(kind, seed):
    """The whole network as the profiler takes it: a part from the input to the output, its reshapes open."""
    content = normalize(random_graph(kind, seed).content)
    graph = read_graph(content)
    return extract(content, list(graph.inputs), list(graph.outputs))


@pytest.mark.parametrize("kind", ["float32", "float16", "int8"])
def test_images_together_get_what_they_get_alone(kind):
    taken = 0
    for seed in SEEDS:
        content = opened(kind, seed)
        if not takes_any_batch(read_graph(content)):
            continue
        taken += 1
        alone = LoadedModel(content)
        images = np.random.default_rng(seed).normal(size=(7, *alone.input_shape)).astype(np.float32)
        expected = alone.run(images)[0]
        together = LoadedModel(content, batch=7).run(images)[0]
        # Another batch may run another kernel: int8 values may then differ by a step.
        step = 1.5 / 255 if kind == "int8" else 1e-4
        np.testing.assert_allclose(together, expected, atol=step * max(np.ptp(expected), 1e-3), err_msg=f"seed {seed}")
    assert taken >= 6
