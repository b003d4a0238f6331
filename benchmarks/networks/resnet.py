"""The CIFAR ResNets of He et al. (2016, section 4.2), rebuilt in Keras from PyTorch's weights.

Three stages of n blocks (6n + 2 layers) with 16, 32 and 64 channels; a block is convolution, batch normalisation, ReLU,
convolution, batch normalisation, to which its input is added before the last ReLU. Where a stage halves the size and
doubles the channels, that input is every other pixel of every other row, and zeros for the new channels, half of them
on each side (their "option A": a shortcut without parameters).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["build_resnet"]

_STAGES = (16, 32, 64)
_EPSILON = 1e-5  # PyTorch's; Keras' own default is 1e-3


def build_resnet(weights: Path, *, side: int = 32, name: str) -> Any:
    """Build the network and load its weights, which also say how many blocks and classes it has.

    Parameters
    ----------
    weights
        The `.npz` file with the keys of a PyTorch `state_dict`: `conv1`, `bn1`, `layerS.B.{conv1,bn1,conv2,bn2}` and
        `linear`; convolutions `(out, in, 3, 3)`.
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

    def convolution(x: Any, conv: str, bn: str, stride: int = 1) -> Any:
        kernel = tensors[f"{conv}.weight"].transpose(2, 3, 1, 0)
        if stride > 1:
            # PyTorch pads every side by 1; "same" would pad right and bottom only.
            x = layers.ZeroPadding2D(1)(x)
        layer = layers.Conv2D(
            kernel.shape[3], 3, strides=stride, padding="same" if stride == 1 else "valid", use_bias=False
        )
        x = layer(x)
        layer.set_weights([kernel])
        normalisation = layers.BatchNormalization(epsilon=_EPSILON)
        x = normalisation(x)
        normalisation.set_weights([tensors[f"{bn}.{key}"] for key in ("weight", "bias", "running_mean", "running_var")])
        return x

    image = keras.Input((side, side, 3))
    x = layers.ReLU()(convolution(image, "conv1", "bn1"))
    for stage, channels in enumerate(_STAGES, 1):
        blocks = len({key.split(".")[1] for key in tensors if key.startswith(f"layer{stage}.")})
        for block in range(blocks):
            stride = 2 if block == 0 and stage > 1 else 1
            prefix = f"layer{stage}.{block}"
            shortcut = x
            if stride > 1:
                each = (channels - x.shape[-1]) // 2
                # A pooling of single pixels is a subsampling, and an operator that every accelerator has.
                shortcut = layers.MaxPooling2D(pool_size=1, strides=stride)(x)
                shortcut = keras.ops.pad(shortcut, ((0, 0), (0, 0), (0, 0), (each, each)))
            x = layers.ReLU()(convolution(x, f"{prefix}.conv1", f"{prefix}.bn1", stride))
            x = layers.Add()([convolution(x, f"{prefix}.conv2", f"{prefix}.bn2"), shortcut])
            x = layers.ReLU()(x)
    x = layers.GlobalAveragePooling2D()(x)
    head = layers.Dense(len(tensors["linear.weight"]))
    network = keras.Model(image, head(x), name=name)
    head.set_weights([tensors["linear.weight"].T, tensors["linear.bias"]])
    return network
