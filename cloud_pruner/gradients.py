"""Centred Taylor scores: what the loss suffers, to first order, when a unit is replaced by its mean (our own).

A user's mean of unit n is `mu_n = sum_k w_k E_k[a_n]`. Putting it in the place of the activations `a_p`, at all
positions p of an image, changes that image's loss by `-s` to first order, `s = sum_p (a_p - mu_n) dLoss/da_p`. The
score of the unit is `sum_k w_k E_k[s^2]`. Positions are summed *before* squaring, as by Molchanov et al., "Importance
estimation for neural network pruning" (CVPR 2019): the unit goes at all positions at once, and what one adds to the
loss another takes back. On CIFAR-100 that orders units more like the mean square of the real change of loss than the
sum of squares over positions does (mean rank correlation, five classes, unseen images: 0.86 against 0.79).

The weights are known only when a user comes. With `G = sum_p dLoss/da_p` of an image, and `s_k` for its s around the
mean of class k alone, `s = s_k + (mu_k - mu) G`. So `E[s_k^2]`, `E[s_k G]` and `E[G^2]` of each class give the score
for every mixture exactly, with what lies between the classes (`TaylorMoments.scores`).

Gradients come from the Keras network that the .tflite was converted from. Which of its tensors an activation of the
.tflite is, is found by comparing values: names do not survive conversion. TensorFlow is needed here, and not for using
the result.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from cloud_pruner.errors import ConversionError, ImageDataError
from cloud_pruner.keras_source import first_line, import_tensorflow, load_network
from cloud_pruner.moments import exposed
from cloud_pruner.progress import no_progress
from cloud_pruner.taylor import TaylorMoments

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from cloud_pruner.progress import Progress
    from edge_runtime.flatmodel import BaseModel

__all__ = ["are_probabilities", "inner_tensors", "opened_network", "taylor_moments"]

_BATCH: Final = 32
_COMPARED_IMAGES: Final = 4
# Largest difference of an activation, relative to its size (both root mean square), from the same one in Keras.
# Measured on CIFAR networks: rounding 1e-6, int8 up to 0.07; from another one it is more than 0.5.
_ROUNDING: Final = 1e-3
_QUANTIZATION: Final = 0.2
# Stands for a probability of 0, whose logarithm would be infinite.
_SMALLEST: Final = 1e-37


def taylor_moments(
    source: Path,
    base: BaseModel,
    tensors: Sequence[int],
    inputs: NDArray[np.float32],
    labels: NDArray[np.integer[Any]],
    progress: Progress = no_progress,
) -> dict[int, TaylorMoments]:
    """Measure `TaylorMoments` of activations of `base`, by the gradients of the Keras network it was converted from.

    The loss is the cross-entropy of an image's own class. Outputs that are probabilities (none negative, summing to 1)
    are taken as such, others as logits.

    Parameters
    ----------
    source
        The network: a `.keras` or `.h5` file, functional or sequential, with other such models inside or not. `base`
        may be its conversion to any kind of numbers.
    tensors
        Activations of `base` (tensor indices), channels last: for a prunable layer its boundary, since pruning puts
        the mean there.
    inputs
        Preprocessed images `(n, height, width, channels) float32`.
    labels
        Their classes `(n,)`, numbers of the outputs.
    progress
        Called with what is being done, images done and images in all.

    Raises
    ------
    ConversionError
        The network cannot be read, is not the one that `base` was converted from, or computes no tensor that equals
        one of `tensors` (as where the converter merged a batch normalisation *behind* an activation into a later
        layer). There are no scores then, of no tensor: the message names the first one without.
    ImageDataError
        Inputs and labels do not fit `base` or each other.
    MissingExtraError
        TensorFlow is not installed.
    """
    classes = _check_images(base, inputs, labels)
    tensors = list(dict.fromkeys(tensors))
    tf, keras = import_tensorflow()
    network = opened_network(source, base, keras)
    compared = inputs[np.linspace(0, len(inputs) - 1, min(len(inputs), _COMPARED_IMAGES)).astype(int)]
    found, answers = inner_tensors(source, base, tensors, network, compared, keras)
    model = keras.Model(network.input, {"answer": network.output["answer"], "inner": found})
    step = _gradient_step(tf, model, are_probabilities=are_probabilities(answers))
    sums = {tensor: np.zeros((4, classes, base.graph.tensors[tensor].shape[-1])) for tensor in tensors}
    for start in range(0, len(inputs), _BATCH):
        rows = slice(start, start + _BATCH)
        memberships = (labels[rows, None] == np.arange(classes)).astype(np.float64).T
        measured = step(tf.constant(inputs[rows]), tf.constant(labels[rows], tf.int32))
        for total, parts in zip(sums.values(), measured, strict=True):
            a, ag, g = (part.numpy().astype(np.float64) for part in parts)
            if not (np.isfinite(ag).all() and np.isfinite(g).all()):
                raise ConversionError(
                    f"{source}: has gradients that are NaN or infinite: check its weights and the preprocessing"
                )
            np.add(total, memberships @ np.stack((a, ag**2, ag * g, g**2)), out=total)
        progress("gradients", min(start + _BATCH, len(inputs)), len(inputs))
    counts = np.bincount(labels, minlength=classes)
    return {tensor: _centred(total, counts) for tensor, total in sums.items()}


def _check_images(base: BaseModel, inputs: NDArray[np.float32], labels: NDArray[np.integer[Any]]) -> int:
    """Return the number of classes."""
    shape = base.graph.tensors[base.graph.inputs[0]].shape[1:]
    classes = base.graph.tensors[base.graph.outputs[0]].shape[-1]
    if inputs.shape[1:] != shape or not len(inputs):
        raise ImageDataError(f"inputs have shape {inputs.shape}: the model takes (at least 1, {str(shape)[1:]}")
    if labels.shape != inputs.shape[:1]:
        raise ImageDataError(f"{len(inputs)} inputs, but labels of shape {labels.shape}: give one label for each input")
    if labels.min() < 0 or labels.max() >= classes:
        raise ImageDataError(
            f"labels go from {labels.min()} to {labels.max()}: the model has classes 0 to {classes - 1}"
        )
    return classes


def opened_network(source: Path, base: BaseModel, keras: Any) -> Any:
    """Return the network with every tensor inside as an output: `{"answer": tensor, "inner": [tensor]}`."""
    network = load_network(source)
    interface = [*(getattr(network, "inputs", None) or ()), *(getattr(network, "outputs", None) or ())]
    shapes = [tuple(x.shape[1:]) for x in interface]
    expected = [base.graph.tensors[index].shape[1:] for index in (base.graph.inputs[0], base.graph.outputs[0])]
    if len(shapes) != 2 or not all(_fits(*pair) for pair in zip(shapes, expected, strict=True)):
        raise ConversionError(
            f"{source}: has inputs and outputs of shapes {shapes}, the .tflite {expected}: give the network that the "
            f".tflite was converted from"
        )
    try:
        # New inputs: the network's own may fix the batch, or leave the size open.
        opened = _with_inner_tensors(network, lambda x: keras.Input(expected[0], dtype=x.dtype), keras)
        (answer,) = keras.tree.flatten(opened.output["answer"])
        return keras.Model(opened.input, {"answer": answer, "inner": opened.output["inner"]})
    except Exception as error:  # a network can fail in any layer's own way
        raise ConversionError(
            f"{source}: its layers cannot be looked into ({first_line(error)}): build it as a functional or sequential "
            f"model"
        ) from error


def _fits(shape: tuple[int | None, ...], expected: tuple[int, ...]) -> bool:
    return len(shape) == len(expected) and all(a in {None, b} for a, b in zip(shape, expected, strict=True))


def _with_inner_tensors(network: Any, new_input: Callable[[Any], Any], keras: Any) -> Any:
    """Return `network` on new inputs, with the outputs of all its layers, and of those inside of layers, as outputs.

    Layers and weights are the network's own. A model inside stays one, so that equal names of layers do not meet.
    """
    inner: list[Any] = []
    opened: dict[int, Any] = {}

    def call(layer: Any, *arguments: Any, **options: Any) -> Any:
        if not _has_layers(layer, keras):
            answer = layer(*arguments, **options)
        else:
            if id(layer) not in opened:
                opened[id(layer)] = _with_inner_tensors(
                    layer, lambda x: keras.Input(batch_shape=x.shape, dtype=x.dtype), keras
                )
            outputs = opened[id(layer)](*arguments, **options)
            answer = outputs["answer"]
            inner.extend(outputs["inner"])
        inner.extend(keras.tree.flatten(answer))
        return answer

    if isinstance(network, keras.Sequential):
        inputs = answer = new_input(network.inputs[0])
        for layer in network.layers:
            answer = call(layer, answer)
    else:
        inputs = keras.tree.map_structure(new_input, network.input)
        twin = keras.models.clone_model(
            network, input_tensors=inputs, clone_function=lambda layer: layer, call_function=call
        )
        answer = twin.output
    return keras.Model(inputs, {"answer": answer, "inner": inner}, name=network.name)


def _has_layers(layer: Any, keras: Any) -> bool:
    """Whether it is a functional or sequential model, whose graph is known."""
    return isinstance(layer, keras.Model) and getattr(layer, "outputs", None) is not None


def inner_tensors(
    source: Path, base: BaseModel, tensors: Sequence[int], network: Any, images: NDArray[np.float32], keras: Any
) -> tuple[list[Any], NDArray[np.float32]]:
    """Return the tensor inside `network` that equals each of `tensors` on `images`, and the network's answers."""
    *wanted, outputs = exposed(base, [*tensors, base.graph.outputs[0]], batch=1).run(images)
    shapes = {(value[0].size, value.shape[-1]) for value in wanted}
    candidates = [x for x in network.output["inner"] if (math.prod(x.shape[1:]), x.shape[-1]) in shapes]
    try:
        model = keras.Model(network.input, {"answer": network.output["answer"], "inner": candidates})
        computed = model(images, training=False)
        answers, values = np.asarray(computed["answer"]), [np.asarray(x) for x in computed["inner"]]
    except Exception as error:  # a network can fail in any layer's own way
        raise ConversionError(f"{source}: fails when it is run ({first_line(error)})") from error
    allowed = _QUANTIZATION if _is_quantized(base) else _ROUNDING
    if not _difference(outputs, answers) <= allowed:
        raise ConversionError(
            f"{source}: its answers differ from the .tflite's by {_difference(outputs, answers):.2g} of their size, "
            f"{allowed:g} is allowed: give the network that the .tflite was converted from"
        )
    found = []
    for tensor, value in zip(tensors, wanted, strict=True):
        differences = [_difference(value, other) for other in values]
        # Of equal ones the first: its gradient counts all that reads it or a copy, and the converter drops copies.
        nearest = int(np.argmin(differences)) if differences else None
        if nearest is None or not differences[nearest] <= allowed:
            name = base.graph.tensors[tensor].name
            raise ConversionError(
                f"{source}: no layer gives tensor {tensor} of the .tflite ('{name}', {value.shape[1:]}): the converter "
                f"merged it with others, so it has no Taylor scores; leave it out"
            )
        found.append(candidates[nearest])
    return found, answers


def _is_quantized(base: BaseModel) -> bool:
    kinds = {tensor.dtype for tensor in base.graph.tensors if tensor.is_constant}
    return bool(kinds & {np.dtype(np.int8), np.dtype(np.uint8), np.dtype(np.float16)})


def _difference(value: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Return the root mean square of the difference, relative to that of `value`; infinite for other shapes."""
    if (value.size, value.shape[-1]) != (other.size, other.shape[-1]):
        return math.inf
    size, difference = (float(np.linalg.norm(x.astype(np.float64))) for x in (value, value.ravel() - other.ravel()))
    return 0.0 if difference == 0.0 else difference / max(size, float(np.finfo(np.float32).tiny))


def are_probabilities(answers: NDArray[np.float32]) -> bool:
    """Whether a network's answers `(images, classes)` are probabilities: none negative, summing to 1."""
    return bool(answers.min() >= 0.0 and np.abs(answers.sum(axis=-1) - 1.0).max() <= 1e-3)


def _gradient_step(tf: Any, model: Any, *, are_probabilities: bool) -> Any:
    """Return a function of images and labels; of each activation of `model` it gives three `(images, channels)`.

    These are the mean over positions of a, and the sums over positions of `a g` and of g.
    """

    def step(images: Any, labels: Any) -> Any:
        # No gradients of weights are wanted, so variables are not watched.
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(images)
            computed = model(images, training=False)
            activations, answer = computed["inner"], computed["answer"]
            logarithms = tf.math.log(tf.maximum(answer, _SMALLEST)) if are_probabilities else tf.nn.log_softmax(answer)
            losses = -tf.gather(logarithms, labels, batch_dims=1)
        gradients = tape.gradient(losses, activations, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        sums = []
        for activation, gradient in zip(activations, gradients, strict=True):
            a, g = (tf.reshape(x, (tf.shape(x)[0], -1, x.shape[-1])) for x in (activation, gradient))
            sums.append((tf.reduce_mean(a, axis=1), tf.reduce_sum(a * g, axis=1), tf.reduce_sum(g, axis=1)))
        return sums

    shape = (None, *model.inputs[0].shape[1:])
    return tf.function(step, input_signature=[tf.TensorSpec(shape, tf.float32), tf.TensorSpec((None,), tf.int32)])


def _centred(sums: NDArray[np.float64], counts: NDArray[np.int64]) -> TaylorMoments:
    """Centre on the classes' means.

    `sums` `(4, classes, channels)` over images: mean of a, `A^2`, `A G` and `G^2`, with `A = sum_p a_p g_p`.
    """
    with np.errstate(invalid="ignore"):
        means, squares, products, gradients = sums / counts[:, None]
    centred = (means, squares - 2.0 * means * products + means**2 * gradients, products - means * gradients, gradients)
    return TaylorMoments(*(np.ascontiguousarray(part.T, dtype=np.float32) for part in centred))
