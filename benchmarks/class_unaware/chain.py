"""Surgery on Keras networks that are a chain of layers: fewer channels, the same layers, the weights that stay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from cloud_pruner.errors import ConversionError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = ["chain", "parameters_with", "windows", "with_channels"]

_WITHOUT_WEIGHTS: Final = (
    "Activation", "AveragePooling2D", "Dropout", "Flatten", "GlobalAveragePooling2D", "GlobalMaxPooling2D",
    "MaxPooling2D", "ReLU", "ZeroPadding2D",
)  # fmt: skip


def chain(network: Any) -> list[Any]:
    """Return the layers of a network of one path, in order, without its input.

    Raises
    ------
    ConversionError
        The network is not sequential, or has a layer of a kind that cannot be cut here.
    """
    import keras  # noqa: PLC0415 - seconds to import

    if not isinstance(network, keras.Sequential):
        raise ConversionError(f"{network.name}: is no sequential network: channels are pruned along one path alone")
    for layer in network.layers:
        kind = type(layer).__name__
        if kind not in {*_WITHOUT_WEIGHTS, "Conv2D", "Dense", "BatchNormalization"} or getattr(layer, "groups", 1) != 1:
            raise ConversionError(
                f"{network.name}: layer '{layer.name}' ({kind}) cannot be cut: use plain convolutions"
            )
    return list(network.layers)


def with_channels(network: Any, kept: Mapping[str, NDArray[np.int64]]) -> Any:
    """Return a new network without some channels.

    Parameters
    ----------
    network
        A sequential one.
    kept
        Name of a convolution or dense layer -> the outputs that stay, ascending; the others keep all.

    Returns
    -------
    keras.Sequential
        Its layers have the names of the old ones; weights are copies.
    """
    import keras  # noqa: PLC0415 - seconds to import

    made = keras.Sequential([keras.Input(network.inputs[0].shape[1:])], name=network.name)
    alive = np.arange(network.inputs[0].shape[-1])
    for layer in chain(network):
        config, kind, weights = layer.get_config(), type(layer).__name__, layer.get_weights()
        if kind in {"Conv2D", "Dense"}:
            stays = kept.get(layer.name, np.arange(weights[0].shape[-1]))
            config["filters" if kind == "Conv2D" else "units"] = len(stays)
            weights = [weights[0][..., alive, :][..., stays], *(bias[stays] for bias in weights[1:])]
            alive = stays
        elif kind == "BatchNormalization":
            weights = [values[alive] for values in weights]
        elif kind == "Flatten":
            channels = layer.input.shape[-1]
            positions = np.arange(layer.output.shape[-1] // channels)
            alive = (positions[:, np.newaxis] * channels + alive).ravel()
        made.add(type(layer).from_config(config))
        made.layers[-1].set_weights(weights)
    return made


def parameters_with(network: Any, counts: Mapping[str, int]) -> int:
    """Return how many parameters `with_channels` leaves where so many outputs of the named layers stay."""
    total, before, after = 0, network.inputs[0].shape[-1], network.inputs[0].shape[-1]
    for layer in chain(network):
        kind, weights = type(layer).__name__, layer.get_weights()
        if kind in {"Conv2D", "Dense"}:
            before, after = after, counts.get(layer.name, weights[0].shape[-1])
            taps = int(np.prod(weights[0].shape[:-2]))
            total += taps * before * after + (after if len(weights) > 1 else 0)
        elif kind == "BatchNormalization":
            total += len(weights) * after
        elif kind == "Flatten":
            after *= layer.output.shape[-1] // layer.input.shape[-1]
    return total


def windows(maps: NDArray[np.float32], convolution: Any, places: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return what a convolution reads at some places of its output, `(places, taps, channels)`.

    Parameters
    ----------
    maps
        `(images, height, width, channels)`: its input.
    convolution
        A Keras `Conv2D` without dilation.
    places
        `(places, 3) int64`: image, row and column of the output.
    """
    (tall, wide), (down, right) = convolution.kernel_size, convolution.strides
    if convolution.padding == "same":
        pads = [
            (0, 0),
            *(_padding(*side) for side in ((maps.shape[1], tall, down), (maps.shape[2], wide, right))),
            (0, 0),
        ]
        maps = np.pad(maps, pads)
    rows = places[:, 1, np.newaxis, np.newaxis] * down + np.arange(tall)[:, np.newaxis]
    columns = places[:, 2, np.newaxis, np.newaxis] * right + np.arange(wide)
    read: NDArray[np.float32] = maps[places[:, 0, np.newaxis, np.newaxis], rows, columns]
    return read.reshape(len(places), tall * wide, maps.shape[-1])


def _padding(side: int, kernel: int, stride: int) -> tuple[int, int]:
    total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
    return total // 2, total - total // 2
