"""Random convolutional classifiers as .tflite files, by the converter: any structure, any kind of numbers.

A seed says everything: the same seed and kind give the same file, here and in a run of thousands (`tests.fuzz.graphs`).
The seed's remainder by the number of blocks says which block is there for certain, so that as many seeds as there are
blocks cover all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from edge_runtime.flatmodel import read_graph
from edge_runtime.flatmodel.quantization import affine_of
from edge_runtime.interpreter import LoadedModel
from tests.support.once import made_once
from tests.support.random_blocks import BLOCKS
from tests.support.random_layers import Draw
from tests.support.tflite_kinds import LACKS, convert

INPUT_CHANNELS = 3
# The converter gives a layer that is always 0 the scale 8e-9; those of others are from 1e-5 on.
DEAD_SCALE = 1e-7
_ATTEMPTS = 5


@dataclass(frozen=True)
class RandomGraph:
    """A drawn network: its file, and the blocks that it is made of."""

    content: bytes
    blocks: tuple[str, ...]


def random_graph(kind: str, seed: int) -> RandomGraph:
    """Return the classifier of `seed` as a .tflite of `kind` (`tflite_kinds.KINDS`)."""

    def make(folder):
        graph = draw_graph(kind, seed)
        (folder / "content").write_bytes(graph.content)
        (folder / "blocks").write_text("\n".join(graph.blocks))

    folder = made_once(f"graph-{kind}-{seed}", make)
    return RandomGraph((folder / "content").read_bytes(), tuple((folder / "blocks").read_text().splitlines()))


def draw_graph(kind: str, seed: int) -> RandomGraph:
    """Draw what `random_graph` returns."""
    for attempt in range(_ATTEMPTS):
        graph = _attempted_graph(kind, seed, attempt)
        if _is_alive(graph.content):
            return graph
    raise AssertionError(f"{kind} {seed}: {_ATTEMPTS} networks in a row whose output is the same for every image")


def _attempted_graph(kind, seed, attempt):
    rng = np.random.default_rng([attempt, seed, *kind.encode()])
    side, lacks = int(rng.integers(8, 13)), LACKS.get(kind, frozenset())
    # The converter leaves weights of less than 1024 elements as they are in dynamic range quantisation.
    narrowest, widest = (12, 18) if kind == "dynamic" else (2, 12)
    names = list(BLOCKS)
    chosen = [names[seed % len(names)], *rng.choice(names, rng.integers(0, 3))]
    rng.shuffle(chosen)

    @tf.function(input_signature=[tf.TensorSpec((1, side, side, INPUT_CHANNELS))])
    def classify(x):
        draw = Draw(rng, x, narrowest, widest, lacks)
        y = draw.unit(x, kernel=3)
        for name in chosen:
            y = BLOCKS[name](draw, y)
            if y.shape[1] >= 8 and y.shape[2] >= 8 and draw.chance():
                y = draw.one_of(tf.nn.max_pool2d, tf.nn.avg_pool2d)(y, 2, 2, "VALID")
        scores = _head(draw, y)
        return (scores, tf.reduce_mean(y, [1, 2])) if draw.chance(0.05) else scores

    return RandomGraph(convert(classify.get_concrete_function(), kind, rng), tuple(map(str, chosen)))


def _is_alive(content):
    """Whether the output depends on the input: in so few units all may be dead."""
    activations = (tensor for tensor in read_graph(content).tensors if not tensor.is_constant)
    # LiteRT does not only refuse a file with such a scale: it may abort the process.
    if any(tensor.quantization and affine_of(tensor.quantization).scales.min() < DEAD_SCALE for tensor in activations):
        return False
    model = LoadedModel(content)
    images = np.random.default_rng(0).normal(size=(4, *model.input_shape)).astype(np.float32)
    return bool(np.ptp(model.run(images)[0], axis=0).any())


def _head(draw, x):
    """From a map to class scores: flattened or pooled over the whole map, then dense layers; or a last convolution."""
    classes = draw.whole(3, 6)
    form = draw.one_of("flat", "flat", "mean", "mean", "max", "both", "channels first", "convolution")
    if form == "convolution":
        y = tf.reduce_mean(draw.conv(x, classes, 1), [1, 2])
    else:
        y = _vector(draw, x, form)
        for _ in range(draw.whole(0, 2)):
            y = draw.activated(draw.dense(y, draw.whole(4, 16)))
        y = draw.dense(y, classes)
    return tf.nn.softmax(y) if draw.chance(0.2) else y


def _vector(draw, x, form):
    if form == "flat":
        return tf.reshape(x, [1, -1])
    if form == "channels first":
        return tf.reshape(tf.transpose(x, [0, 3, 1, 2]), [1, -1])
    mean, largest = tf.reduce_mean(x, [1, 2]), tf.reduce_max(x, [1, 2])
    return {"mean": mean, "max": largest, "both": tf.concat([mean, largest], -1)}[form]
