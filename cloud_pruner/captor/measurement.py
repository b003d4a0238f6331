"""The two measures of which classes a filter works for, by gradients of the Keras network.

- *Gradient analysis*: by how much the output of class c changes with the filter's activation, at all positions at once,
  on an image of c; the mean of its absolute value over images of c (ours; the abstract says "gradient analysis").
- *Feature interest visualisation*: the picture that the filter reacts to most, by gradient ascent on the mean of its
  activation from faint noise, with steps of one size and pixels kept to the range of the images; then the
  probabilities that the network gives that picture (activation maximisation as by Erhan et al. 2009 and Yosinski et al.
  2015, known to us from memory, without their regularisers). Of a filter that stays idle it says nothing.

Where several activations carry a channel group, it reacts as the sum of them does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from cloud_pruner.captor.preferences import Preferences, filter_preference
from cloud_pruner.gradients import are_probabilities, inner_tensors, opened_network
from cloud_pruner.groups import prunable_groups
from cloud_pruner.keras_source import import_tensorflow
from cloud_pruner.progress import no_progress

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from cloud_pruner.groups import PrunableGroup
    from cloud_pruner.progress import Progress
    from edge_runtime.flatmodel import BaseModel

__all__ = ["measure_preferences"]

_CONVOLUTIONS: Final = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV"})
_BATCH: Final = 64
_COMPARED_IMAGES: Final = 4
_STEPS: Final = 12
_STEP: Final = 0.3  # of the images' standard deviation, as the root mean square over a picture
_NOISE: Final = 0.1  # likewise


def measure_preferences(
    source: Path,
    base: BaseModel,
    inputs: NDArray[np.float32],
    labels: NDArray[np.integer[Any]],
    progress: Progress = no_progress,
) -> Preferences:
    """Measure what the filters of all convolutions of `base` prefer.

    Parameters
    ----------
    source
        The Keras network that `base` was converted from, a `.keras` or `.h5` file.
    inputs
        Preprocessed images `(n, height, width, channels) float32`, some of every class: a dozen each are enough.
    labels
        Their classes `(n,)`, numbers of the outputs.
    progress
        Called with what is being done, filters done and filters in all.

    Raises
    ------
    ConversionError
        The network cannot be read, or is not the one that `base` was converted from.
    MissingExtraError
        TensorFlow is not installed.
    """
    tf, keras = import_tensorflow()
    groups = _filters(base)
    tensors = [member for group in groups for member in group.members]
    network = opened_network(source, base, keras)
    compared = inputs[np.linspace(0, len(inputs) - 1, min(len(inputs), _COMPARED_IMAGES)).astype(int)]
    found, answers = inner_tensors(source, base, tensors, network, compared, keras)
    inner = dict(zip(tensors, found, strict=True))
    answer = keras.Model(network.input, network.output["answer"])
    units = [[tf.constant(_units(base, group, member)) for member in group.members] for group in groups]
    activations = [[inner[member] for member in group.members] for group in groups]
    whole = keras.Model(network.input, {"answer": answer.output, "inner": activations})
    gradients = _gradients(tf, whole, units, inputs, labels)
    total, done, preferences = sum(group.units for group in groups), 0, {}
    for number, group in enumerate(groups):
        progress("pictures of filters", done, total)
        part = keras.Model(network.input, {"inner": activations[number]})
        pictures, moved = _pictures(tf, part, units[number], inputs)
        given = answer.predict(pictures, batch_size=_BATCH, verbose=0).astype(np.float64)
        if not are_probabilities(answers):
            given = np.exp(given - given.max(axis=1, keepdims=True))
            given /= given.sum(axis=1, keepdims=True)
        given[~moved] = 0.0
        preferences[group.group] = filter_preference(gradients[number], given)
        done += group.units
    return Preferences(base.digest, preferences)


def _filters(base: BaseModel) -> list[PrunableGroup]:
    """Return the prunable groups that only convolutions make."""
    operators, groups = base.graph.operators, base.channels.groups
    return [
        group
        for group in prunable_groups(base, None)
        if all(operators[number].kind in _CONVOLUTIONS for number in groups[group.group].producers)
    ]


def _units(base: BaseModel, group: PrunableGroup, member: int) -> NDArray[np.float32]:
    """Return which unit of the group each channel of an activation is, `(channels, units)` of 0 and 1."""
    ((_, labels),) = base.channels.axes[member].items()
    chosen = labels[:, np.newaxis] == base.channels.groups[group.group].first + np.arange(group.units)
    memberships: NDArray[np.float32] = chosen.astype(np.float32)
    return memberships


def _gradients(
    tf: Any, model: Any, units: list[list[Any]], inputs: NDArray[np.float32], labels: NDArray[np.integer[Any]]
) -> list[NDArray[np.float64]]:
    """Return `(filters, classes)` for each group: how much a class's own output reacts to each filter on its images."""
    classes = model.output["answer"].shape[-1]
    members = (labels == np.arange(classes)[:, np.newaxis]).astype(np.float64)
    members /= np.maximum(members.sum(axis=1, keepdims=True), 1.0)
    means = [np.zeros((classes, of_group[0].shape[-1])) for of_group in units]
    for start in range(0, len(inputs), _BATCH):
        rows = slice(start, start + _BATCH)
        images, chosen = tf.constant(inputs[rows]), tf.constant(labels[rows].astype(np.int32))
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(images)
            computed = model(images, training=False)
            own = tf.gather(computed["answer"], chosen, batch_dims=1)
        gradients = tape.gradient(own, computed["inner"], unconnected_gradients=tf.UnconnectedGradients.ZERO)
        for mean, of_group, found in zip(means, units, gradients, strict=True):
            of_positions = [tf.reshape(g, (tf.shape(g)[0], -1, g.shape[-1])) for g in found]
            reactions = tf.add_n([tf.reduce_sum(g, axis=1) @ u for g, u in zip(of_positions, of_group, strict=True)])
            mean += members[:, rows] @ np.abs(reactions.numpy())  # noqa: PLW2901 - adds in place
    return [mean.T for mean in means]


def _pictures(
    tf: Any, model: Any, units: list[Any], inputs: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return each filter's picture, `(filters, height, width, channels)`, and whether the filter reacts to it."""
    low, high = inputs.min(axis=(0, 1, 2)), inputs.max(axis=(0, 1, 2))
    spread = float(inputs.std())

    def step(pictures: Any, chosen: Any) -> Any:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(pictures)
            activations = model(pictures, training=False)["inner"]
            means = [tf.reduce_mean(tf.reshape(a, (tf.shape(a)[0], -1, a.shape[-1])), axis=1) for a in activations]
            reactions = tf.add_n([mean @ u for mean, u in zip(means, units, strict=True)])
            reaction = tf.gather(reactions, chosen, batch_dims=1)
        gradient = tape.gradient(reaction, pictures)
        size = tf.sqrt(tf.reduce_mean(gradient**2, axis=(1, 2, 3), keepdims=True))
        towards = tf.math.divide_no_nan(gradient, size)
        return tf.clip_by_value(pictures + _STEP * spread * towards, low, high), reaction

    noise = np.random.default_rng(0).normal(0.0, _NOISE * spread, inputs.shape[1:])
    first = np.clip(inputs.mean(axis=(0, 1, 2)) + noise, low, high).astype(np.float32)
    filters = np.arange(units[0].shape[-1])
    drawn, moved = [], []
    for start in range(0, len(filters), _BATCH):
        chosen = tf.constant(filters[start : start + _BATCH], tf.int32)
        pictures = tf.constant(np.repeat(first[np.newaxis], len(chosen), axis=0))
        for _ in range(_STEPS):
            pictures, _ = step(pictures, chosen)
        _, reaction = step(pictures, chosen)
        drawn.append(pictures.numpy())
        moved.append(reaction.numpy() > 0.0)
    return np.concatenate(drawn), np.concatenate(moved)
