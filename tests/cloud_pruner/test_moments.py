"""Firing rates and moments of every channel, on networks of any structure and any kind of numbers."""

from __future__ import annotations

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from cloud_pruner.moments import MomentSums, exposed
from edge_runtime.flatmodel import BaseModel, extract, normalize, read_graph
from edge_runtime.interpreter import LoadedModel
from tests.support.random_graphs import random_graph

CLASSES = 3


def read_one_by_one(content, images, tensor):
    """Read the activation from an interpreter that keeps all of them and has no faster kernels, image by image."""
    interpreter = Interpreter(
        model_content=bytes(content),
        experimental_preserve_all_tensors=True,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    interpreter.allocate_tensors()
    values = []
    for image in images:
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image[np.newaxis])
        interpreter.invoke()
        values.append(interpreter.get_tensor(tensor)[0].astype(np.float64))
    return np.array(values)


def extracted_one_by_one(content, images, tensor):
    """Run the part that ends at the activation: for quantised values, where another kernel rounds differently."""
    part = LoadedModel(extract(bytes(content), [read_graph(content).inputs[0]], [tensor]))
    return part.run(images)[0].astype(np.float64)


@pytest.mark.parametrize("kind", ["float32", "float16", "int8"])
@pytest.mark.parametrize("seed", range(8))
def test_moments_of_every_group_are_those_of_the_activations(kind, seed):
    base = BaseModel(normalize(random_graph(kind, seed).content))
    rng = np.random.default_rng(seed)
    images = rng.normal(size=(12, *base.graph.tensors[base.graph.inputs[0]].shape[1:])).astype(np.float32)
    labels = np.repeat(np.arange(CLASSES), 4).astype(np.int32)
    tensors = [group.tensors[-1] for number, group in enumerate(base.channels.groups) if group.prunable]
    tensors = [t for t in tensors if max(base.channels.axes[t]) == len(base.graph.tensors[t].shape) - 1]
    assert tensors
    sums = MomentSums({tensor: base.graph.tensors[tensor].shape[-1] for tensor in tensors}, CLASSES)
    model = exposed(base, tensors, batch=3)
    for start in range(0, len(images), 3):
        chunk = slice(start, start + 3)
        sums.add(dict(zip(tensors, model.run(images[chunk]), strict=True)), labels[chunk])
    for tensor in tensors:
        values = (extracted_one_by_one if kind == "int8" else read_one_by_one)(base.content, images, tensor)
        by_class = values.reshape(CLASSES, -1, values.shape[-1])
        largest, moments = np.abs(values).max(), sums.of(tensor)
        np.testing.assert_allclose(moments.firing_rates, (by_class != 0).mean(axis=1).T, atol=1e-3)
        np.testing.assert_allclose(moments.means, by_class.mean(axis=1).T, atol=1e-4 * largest)


def test_a_class_without_images_has_no_moments():
    sums = MomentSums({7: 2}, 2)
    sums.add({7: np.array([[1.0, 0.0]], np.float32)}, np.array([0], np.int32))
    moments = sums.of(7)
    np.testing.assert_array_equal(moments.firing_rates, [[1, np.nan], [0, np.nan]])
