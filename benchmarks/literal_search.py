"""CAP'NN's variant W as one would write it from the paper with Keras alone: mask, predict everything, lower T, repeat.

Section III.B, Algorithm 2, for each prunable layer in order: from T = 0.4 down in steps of 0.025, flag the units whose
weighted firing rate is at most T, prune them together with what earlier layers lost, and measure every class of the
user with the whole network; the first T is accepted at which no class loses more than epsilon. A unit is pruned by
setting the weights of the next layer that read it to 0. In the end a smaller network is built from the units that stay.

Nothing here is made quick, and nothing of it is used by the product: it is what `benchmarks.search` compares with.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from cloud_pruner.variants import Usage

__all__ = ["LiteralResult", "count_right", "literal_search", "rebuild"]

_STEP = 0.025
_STEPS = 16  # from T = 0.4
_BATCH = 32  # predict's own


@dataclass(frozen=True, slots=True, eq=False)
class LiteralResult:
    """What the search found.

    Attributes
    ----------
    masks
        For each prunable layer `(units,) bool`: the units that stay.
    thresholds
        For each prunable layer the accepted T; None where none was and all units stay.
    evaluations
        How many times the network was run on the user's images.
    """

    masks: tuple[NDArray[np.bool_], ...]
    thresholds: tuple[float | None, ...]
    evaluations: int


def count_right(
    model: Any, images: NDArray[np.float32], labels: NDArray[np.int64], usage: Usage, batch: int = _BATCH
) -> NDArray[np.int64]:
    """Return `(k,)`: of how many images of each of the user's classes the largest output is the right one.

    Parameters
    ----------
    model
        A Keras classifier.
    images, labels
        `(n, height, width, channels)` as the network takes them, and the class of each.
    batch
        Images that `predict` takes at once.
    """
    predictions = model.predict(images, batch_size=batch, verbose=0).argmax(axis=1)
    return np.array([np.sum(predictions[labels == label] == label) for label in usage.labels])


def literal_search(
    model: Any,
    images: NDArray[np.float32],
    labels: NDArray[np.int64],
    firing_rates: Sequence[NDArray[np.float32]],
    usage: Usage,
    epsilon: float,
    base_right: NDArray[np.int64],
    batch: int = _BATCH,
) -> LiteralResult:
    """Search what the user can do without. `model` is masked on the way and stays so.

    Parameters
    ----------
    model
        A `keras.Sequential` classifier.
    images, labels
        The user's images to judge by.
    firing_rates
        For each prunable layer `(units, classes)`. These are the last weight layers before the output layer.
    epsilon
        The accuracy that each class may lose: at most so much (Algorithm 2 says "less than", the text "at most").
    base_right
        What `count_right` says of the model as it is.
    batch
        Images that `predict` takes at once.

    Raises
    ------
    TypeError
        The network is no sequence of convolutions, dense layers, batch normalisation and layers without weights.
    """
    allowed = epsilon * np.array([np.sum(labels == label) for label in usage.labels]) + 1e-9
    masks: list[NDArray[np.bool_]] = []
    thresholds: list[float | None] = []
    evaluations = 0
    for rates, reader in zip(firing_rates, _weight_layers(model)[-len(firing_rates) :], strict=True):
        effective = rates[:, usage.labels].astype(np.float64) @ usage.weights
        kernel = reader.kernel.numpy()
        mask, accepted = np.ones(len(rates), dtype=bool), None
        for step in range(_STEPS, -1, -1):
            stays = effective > step * _STEP
            if not stays.any():
                continue  # a network cannot have a layer without units
            reader.kernel.assign(kernel * _inputs_of(kernel, stays)[:, np.newaxis])
            evaluations += 1
            if np.all(base_right - count_right(model, images, labels, usage, batch) <= allowed):
                mask, accepted = stays, step * _STEP
                break
        else:
            reader.kernel.assign(kernel)
        masks.append(mask)
        thresholds.append(accepted)
    return LiteralResult(tuple(masks), tuple(thresholds), evaluations)


def rebuild(model: Any, masks: Sequence[NDArray[np.bool_]]) -> Any:
    """Build the smaller Keras network: that of the units that stay in the last layers before the output layer.

    Raises
    ------
    TypeError
        As `literal_search`.
    """
    pruned = dict(zip((layer.name for layer in _weight_layers(model)[-len(masks) - 1 : -1]), masks, strict=True))
    smaller = keras.Sequential([keras.Input(model.input_shape[1:])], name=model.name)
    stays = np.ones(model.input_shape[-1], dtype=bool)
    for layer in model.layers:
        config, weights = layer.get_config(), layer.get_weights()
        if _has_kernel(layer):
            weights[0] = weights[0][..., _inputs_of(weights[0], stays), :]
            stays = pruned.get(layer.name, np.ones(weights[0].shape[-1], dtype=bool))
            config["units" if isinstance(layer, keras.layers.Dense) else "filters"] = int(stays.sum())
        smaller.add(type(layer).from_config(config))
        # Kernels, biases and what batch normalisation has: the last axis is the unit's.
        smaller.layers[-1].set_weights([values[..., stays] for values in weights])
    return smaller


def _weight_layers(model: Any) -> list[Any]:
    """Return the convolutions and dense layers in order."""
    if not isinstance(model, keras.Sequential):
        raise TypeError(f"{model.name}: is a {type(model).__name__}: only a keras.Sequential is searched")
    for layer in model.layers:
        if layer.weights and not _has_kernel(layer) and not isinstance(layer, keras.layers.BatchNormalization):
            raise TypeError(
                f"{model.name}: layer {layer.name} is a {type(layer).__name__}: "
                "expected Conv2D, Dense, BatchNormalization or one without weights"
            )
    return [layer for layer in model.layers if _has_kernel(layer)]


def _has_kernel(layer: Any) -> bool:
    return isinstance(layer, keras.layers.Conv2D | keras.layers.Dense)


def _inputs_of(kernel: NDArray[np.float32], stays: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which inputs of `kernel` come from units that stay: each unit has several after flattening."""
    return np.tile(stays, kernel.shape[-2] // len(stays))
