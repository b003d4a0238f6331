"""VGG networks (Simonyan and Zisserman, 2015) with batch normalisation, rebuilt in Keras from PyTorch's weights.

The weights are the `state_dict` of one `Sequential`, so that a tensor's key starts with the position of its module: a
convolution without bias, its batch normalisation and ReLU take three positions, a pooling takes one, then flatten,
dropout and the dense layers with ReLU and dropout between them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["POOL", "build_vgg"]

POOL = 0
"""In a list of channel counts: a 2x2 max pooling."""

_EPSILON = 1e-5  # PyTorch's; Keras' own default is 1e-3


def build_vgg(weights: Path, features: Sequence[int], *, side: int = 32, name: str) -> Any:
    """Build the network and load its weights.

    Parameters
    ----------
    weights
        The `.npz` file; convolutions `(out, in, 3, 3)`, dense layers `(out, in)`.
    features
        Channels of each convolution, or `POOL`, in order.
    side
        Height and width of the input, in pixels.
    name
        What the Keras model is called.

    Returns
    -------
    keras.Model
        `(batch, side, side, 3)` float32 -> logits `(batch, classes)` float32.
    """
    import keras  # noqa: PLC0415 - seconds to import, and the modules that use this are imported for their constants too
    from keras import layers  # noqa: PLC0415 - likewise

    with np.load(weights, allow_pickle=False) as archive:
        tensors: dict[str, NDArray[np.float32]] = {key: archive[key].astype(np.float32) for key in archive.files}

    network = keras.Sequential([keras.Input((side, side, 3))], name=name)
    position = 0
    for channels in features:
        if channels == POOL:
            network.add(layers.MaxPooling2D())
            position += 1
            continue
        network.add(layers.Conv2D(channels, 3, padding="same", use_bias=False))
        network.layers[-1].set_weights([tensors[f"{position}.weight"].transpose(2, 3, 1, 0)])
        network.add(layers.BatchNormalization(epsilon=_EPSILON))
        keys = ("weight", "bias", "running_mean", "running_var")
        network.layers[-1].set_weights([tensors[f"{position + 1}.{key}"] for key in keys])
        network.add(layers.ReLU())
        position += 3
    _, height, width, channels = network.output_shape
    network.add(layers.Flatten())
    dense = sorted({int(key.split(".")[0]) for key in tensors if int(key.split(".")[0]) >= position})
    for position in dense:
        weight = tensors[f"{position}.weight"]
        if position == dense[0]:
            # PyTorch flattens channels first, Keras channels last.
            weight = weight.reshape(-1, channels, height, width).transpose(0, 2, 3, 1).reshape(len(weight), -1)
        network.add(layers.Dense(len(weight), activation="relu" if position != dense[-1] else None))
        network.layers[-1].set_weights([weight.T, tensors[f"{position}.bias"]])
    return network
