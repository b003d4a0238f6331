"""The papers' networks, untrained, at any width: VGG-16, AlexNet, ResNet-152 and the ResNets for CIFAR.

All take preprocessed images `(batch, side, side, 3)` float32 and give logits `(batch, classes)` float32. `width`
multiplies the channels of every convolution, so that a reduced network keeps the shape of its model. None has dropout:
regularisation is the trainer's business, and nothing of it is left in a converted network.

Sources: Simonyan and Zisserman, "Very deep convolutional networks for large-scale image recognition", ICLR 2015,
column D; Krizhevsky et al., "ImageNet classification with deep convolutional neural networks", NeurIPS 2012; He et al.,
"Deep residual learning for image recognition", CVPR 2016, table 1 and section 4.2; Ioffe and Szegedy, "Batch
normalization", ICML 2015.
"""

from __future__ import annotations

from typing import Any, Final

__all__ = ["SMALL_IMAGE", "alexnet", "cifar_resnet", "resnet152", "vgg16"]

SMALL_IMAGE: Final = 64
"""Below this side AlexNet and ResNet-152 begin with a 3x3 or 5x5 convolution that reduces less than their own."""

_VGG16 = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
_ALEXNET = (96, 256, 384, 384, 256)
_RESNET152 = ((64, 3), (128, 8), (256, 36), (512, 3))
_CIFAR_RESNET = (16, 32, 64)
_EXPANSION = 4  # of a bottleneck block's outputs over its inner channels
_EPSILON = 1e-5


def vgg16(classes: int, *, width: float = 1.0, head: int = 4096, normalised: bool = True, side: int = 32) -> Any:
    """Build VGG-16: 13 convolutions of 3x3 and five poolings, two hidden dense layers and the outputs.

    Parameters
    ----------
    classes
        Outputs.
    width
        Times 64 to 512 channels.
    head
        Units of each hidden dense layer.
    normalised
        Whether batch normalisation follows each convolution, which then has no bias.
    side
        Height and width of the input in pixels, at least 32.

    Returns
    -------
    keras.Model
        A `Sequential`.
    """
    import keras  # noqa: PLC0415 - seconds to import, and this module is imported for its names too
    from keras import layers  # noqa: PLC0415 - likewise

    network = keras.Sequential([keras.Input((side, side, 3))], name="vgg16" if normalised else "vgg16_plain")
    for channels, convolutions in _VGG16:
        for _ in range(convolutions):
            network.add(
                layers.Conv2D(
                    _scaled(channels, width), 3, padding="same", use_bias=not normalised, kernel_initializer="he_normal"
                )
            )
            if normalised:
                network.add(layers.BatchNormalization(epsilon=_EPSILON))
            network.add(layers.ReLU())
        network.add(layers.MaxPooling2D())
    _add_head(network, head, classes)
    return network


def alexnet(classes: int, *, width: float = 1.0, head: int = 4096, side: int = 227, groups: int = 1) -> Any:
    """Build AlexNet without its local response normalisation.

    Images under `SMALL_IMAGE` pixels would vanish in its first convolution (11x11, stride 4): for them it is 5x5 with
    stride 1, and poolings keep half of the positions, so that 4x4 of a 32x32 image's reach the dense layers.

    Parameters
    ----------
    classes
        Outputs.
    width
        Times 96 to 384 channels.
    head
        Units of each hidden dense layer.
    side
        Height and width of the input in pixels: 227 in the original, at least 67 or under `SMALL_IMAGE`.
    groups
        Of the second, fourth and fifth convolution: 2 in the original.

    Returns
    -------
    keras.Model
        A `Sequential`.
    """
    import keras  # noqa: PLC0415 - as above
    from keras import layers  # noqa: PLC0415 - likewise

    small = side < SMALL_IMAGE

    def convolution(position: int, size: int, stride: int = 1, groups: int = 1) -> Any:
        return layers.Conv2D(
            _scaled(_ALEXNET[position], width),
            size,
            strides=stride,
            padding="same" if stride == 1 else "valid",
            groups=groups,
            activation="relu",
            kernel_initializer="he_normal",
        )

    def pooling() -> Any:
        return layers.MaxPooling2D(3, 2, padding="same" if small else "valid")

    network = keras.Sequential([keras.Input((side, side, 3))], name="alexnet" if groups == 1 else "alexnet_grouped")
    network.add(convolution(0, 5) if small else convolution(0, 11, 4))
    network.add(pooling())
    network.add(convolution(1, 5, groups=groups))
    network.add(pooling())
    network.add(convolution(2, 3))
    network.add(convolution(3, 3, groups=groups))
    network.add(convolution(4, 3, groups=groups))
    network.add(pooling())
    _add_head(network, head, classes)
    return network


def resnet152(classes: int, *, width: float = 1.0, side: int = 224) -> Any:
    """Build ResNet-152: 3, 8, 36 and 3 bottleneck blocks, with projections where the shape changes.

    The stride of a block is in its 3x3 convolution. Images under `SMALL_IMAGE` pixels are reduced by two before the
    first block (3x3, stride 2), larger ones by four (7x7, stride 2, and a pooling).

    Parameters
    ----------
    classes
        Outputs.
    width
        Times 64 to 512 inner channels of the blocks, and four times as many between them.
    side
        Height and width of the input in pixels: 224 in the original.

    Returns
    -------
    keras.Model
        A functional model.
    """
    import keras  # noqa: PLC0415 - as above
    from keras import layers  # noqa: PLC0415 - likewise

    image = keras.Input((side, side, 3))
    if side < SMALL_IMAGE:
        x = layers.ReLU()(_convolution(image, _scaled(64, width), 3, 2))
    else:
        x = layers.ReLU()(_convolution(image, _scaled(64, width), 7, 2))
        x = layers.MaxPooling2D(3, 2, padding="same")(x)
    for stage, (channels, blocks) in enumerate(_RESNET152):
        inner = _scaled(channels, width)
        for block in range(blocks):
            stride = 2 if block == 0 and stage > 0 else 1
            shortcut = x if block > 0 else _convolution(x, _EXPANSION * inner, 1, stride)
            x = layers.ReLU()(_convolution(x, inner, 1))
            x = layers.ReLU()(_convolution(x, inner, 3, stride))
            x = layers.Add()([_convolution(x, _EXPANSION * inner, 1, last=True), shortcut])
            x = layers.ReLU()(x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, layers.Dense(classes)(x), name="resnet152")


def cifar_resnet(classes: int, *, depth: int = 20, width: float = 1.0) -> Any:
    """Build a ResNet for 32x32 images: three stages of (depth - 2) / 6 blocks of two 3x3 convolutions.

    Where a stage halves the size and doubles the channels, the shortcut is a projection (the paper's option B).

    Parameters
    ----------
    classes
        Outputs.
    depth
        Layers with weights, shortcuts left out: 8, 14, 20, ...
    width
        Times 16, 32 and 64 channels.

    Returns
    -------
    keras.Model
        A functional model.

    Raises
    ------
    ValueError
        No network has this depth.
    """
    import keras  # noqa: PLC0415 - as above
    from keras import layers  # noqa: PLC0415 - likewise

    blocks, rest = divmod(depth - 2, 6)
    if rest or blocks < 1:
        raise ValueError(f"there is no CIFAR ResNet of depth {depth}: take 6 n + 2, such as 8, 20 or 56")
    image = keras.Input((32, 32, 3))
    x = layers.ReLU()(_convolution(image, _scaled(_CIFAR_RESNET[0], width), 3))
    for stage, channels in enumerate(_CIFAR_RESNET):
        filters = _scaled(channels, width)
        for block in range(blocks):
            stride = 2 if block == 0 and stage > 0 else 1
            shortcut = x if stride == 1 else _convolution(x, filters, 1, stride)
            x = layers.ReLU()(_convolution(x, filters, 3, stride))
            x = layers.Add()([_convolution(x, filters, 3, last=True), shortcut])
            x = layers.ReLU()(x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, layers.Dense(classes)(x), name=f"cifar_resnet{depth}")


def _scaled(channels: int, width: float) -> int:
    return max(round(channels * width), 1)


def _add_head(network: Any, head: int, classes: int) -> None:
    from keras import layers  # noqa: PLC0415 - as above

    network.add(layers.Flatten())
    for _ in range(2):
        network.add(layers.Dense(head, activation="relu", kernel_initializer="he_normal"))
    network.add(layers.Dense(classes))


def _convolution(x: Any, filters: int, size: int, stride: int = 1, *, last: bool = False) -> Any:
    """Convolve and normalise; the scale of a block's last normalisation begins at 0.

    A block then begins as its shortcut, without which networks this deep hardly begin to learn (Goyal et al. 2017,
    section 5.1).
    """
    from keras import layers  # noqa: PLC0415 - as above

    x = layers.Conv2D(
        filters, size, strides=stride, padding="same", use_bias=False, kernel_initializer="he_normal"
    )(x)  # fmt: skip
    return layers.BatchNormalization(epsilon=_EPSILON, gamma_initializer="zeros" if last else "ones")(x)
