"""Well-known networks by their shapes, with random weights: what converts, slices and runs, and how large it is.

Their predictions mean nothing. Freshly initialised networks would hide mistakes (zero biases, normalisations that do
nothing, constant outputs), so every parameter is random here: kernels by He et al. (2015), biases, and batch
normalisation, whose statistics are those of its inputs for photographs, disturbed. All give logits.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from benchmarks.networks.architectures import alexnet
from benchmarks.networks.photographs import photograph_crops
from edge_runtime.preprocessing import Preprocessing

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["NAMES", "build", "preprocessing"]

NAMES: Final = (
    "alexnet", "alexnet_grouped", "densenet121", "efficientnet_b0", "mobilenet_v2", "resnet152", "vgg16",
)  # fmt: skip

_CLASSES = 1000
_MEASURED_PIXELS = 16 * 224 * 224
_MEASURED_IMAGES_MAX = 256


def build(name: str, seed: int = 0, side: int | None = None) -> Any:
    """Build a network; the same seed gives the same weights.

    Parameters
    ----------
    name
        One of `NAMES`: those of `keras.applications`, and AlexNet (Krizhevsky et al. 2012, without local response
        normalisation) with the two groups of its second, fourth and fifth convolution, or without.
    seed
        Of the weights.
    side
        Height and width of the input in pixels; its authors' without it. At least 67 for AlexNet, 32 for the others.

    Returns
    -------
    keras.Model
        `(batch, side, side, 3)` float32, as `preprocessing` makes it -> logits `(batch, 1000)` float32.

    Raises
    ------
    ValueError
        There is no such network, or it cannot be that small.
    """
    expected = preprocessing(name, side)
    model = _builders()[name](expected.shape)
    random = np.random.default_rng(seed)
    for layer in model.layers:
        for weight in layer.weights:
            values = _random_values(random, weight.path.rsplit("/", 1)[-1], tuple(weight.shape))
            if values is not None:
                weight.assign(values)
    # Small images leave only a position or so to the last layers: more of them make up for it.
    images = min(_MEASURED_PIXELS // expected.height**2, _MEASURED_IMAGES_MAX)
    _measure_normalisation(model, expected.apply(photograph_crops(images, expected.height)), random)
    return model


def preprocessing(name: str, side: int | None = None) -> Preprocessing:
    """Return what the network `name` takes: pixels from -1 to 1, but for EfficientNet, which scales them itself.

    Raises
    ------
    ValueError
        There is no such network.
    """
    if name not in NAMES:
        raise ValueError(f"there is no network '{name}': choose one of {', '.join(NAMES)}")
    side = side or (227 if name.startswith("alexnet") else 224)
    if name == "efficientnet_b0":
        return Preprocessing(side, side, scale=1.0)
    return Preprocessing(side, side, scale=1 / 127.5, mean=(1.0,))


def _builders() -> dict[str, Callable[[tuple[int, int, int]], Any]]:
    from keras import applications  # noqa: PLC0415 - seconds to import, and this module is imported for its names too

    def application(make: Any, shape: tuple[int, int, int]) -> Any:
        return make(weights=None, input_shape=shape, classes=_CLASSES, classifier_activation=None)

    return {
        "alexnet": lambda shape: alexnet(_CLASSES, side=shape[0]),
        "alexnet_grouped": lambda shape: alexnet(_CLASSES, side=shape[0], groups=2),
        "densenet121": partial(application, applications.DenseNet121),
        "efficientnet_b0": partial(application, applications.EfficientNetB0),
        "mobilenet_v2": partial(application, applications.MobileNetV2),
        "resnet152": partial(application, applications.ResNet152),
        "vgg16": partial(application, applications.VGG16),
    }


def _random_values(random: np.random.Generator, name: str, shape: tuple[int, ...]) -> Any:
    """Return values for the parameter `name` of a layer; None where they are not ours to choose."""
    if name == "kernel":
        # A depthwise kernel (height, width, channels, 1) reads one channel only.
        depthwise = len(shape) == 4 and shape[3] == 1
        inputs = np.prod(shape[:2] if depthwise else shape[:-1])
        return random.normal(0, np.sqrt(2 / inputs), shape)
    if name == "gamma":
        return random.uniform(0.5, 1.5, shape)
    if name in {"bias", "beta"}:
        return random.normal(0, 0.2, shape)
    return None


def _measure_normalisation(model: Any, inputs: Any, random: np.random.Generator) -> None:
    """Set the statistics of batch normalisation to those of its inputs, then disturb them.

    Plain random statistics would let activations grow or die out by a factor per layer.
    """
    from keras import layers  # noqa: PLC0415 - as above

    for layer in model.layers:
        if isinstance(layer, layers.Dropout):
            layer.rate = 0.0  # chance of its own; it does nothing in inference
    normalisations = [layer for layer in model.layers if isinstance(layer, layers.BatchNormalization)]
    momenta = [layer.momentum for layer in normalisations]
    for layer in normalisations:
        layer.momentum = 0.0
    model(inputs, training=True)
    for layer, momentum in zip(normalisations, momenta, strict=True):
        layer.momentum = momentum
        mean, variance = layer.moving_mean.numpy(), layer.moving_variance.numpy()
        layer.moving_mean.assign(mean + random.normal(0, 0.2, mean.shape) * np.sqrt(variance))
        layer.moving_variance.assign(variance * random.uniform(0.7, 1.4, variance.shape))
