"""Layers by their shapes, for networks of which there is no file: `layer_figures(convolution(...), DAC20).energy`."""

from __future__ import annotations

from hwmodel.errors import HardwareError
from hwmodel.window import Window
from hwmodel.workload import Layer, MatrixProduct

__all__ = ["convolution", "dense", "max_pooling"]


def convolution(
    name: str,
    image: tuple[int, int, int],
    filters: int,
    kernel: tuple[int, int] = (3, 3),
    *,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
    same: bool = True,
    bias: bool = True,
    relu: bool = False,
) -> Layer:
    """Return a convolution at batch 1; with `groups` = channels it is a depthwise one.

    Parameters
    ----------
    image
        Height, width and channels of the input, without the padding that the layer adds.
    filters
        Output channels, of all groups.
    same
        Whether the image is padded so that the output has ceil(side / stride) positions (TensorFlow's "SAME"), or not
        at all ("VALID").

    Raises
    ------
    HardwareError
        Such a layer does not exist: it would have no output, or groups do not divide the channels and filters.
    """
    *sides, channels = image
    if groups < 1 or channels % groups or filters % groups:
        raise HardwareError(f"{name}: {groups} groups do not divide {channels} channels into {filters} filters")
    spread = [(taps - 1) * dilation + 1 for taps in kernel]
    output = tuple(
        -(-side // stride) if same else (side - covered) // stride + 1
        for side, covered in zip(sides, spread, strict=True)
    )
    if min(*output, *kernel, filters, channels, stride, dilation) < 1:
        raise HardwareError(f"{name}: a kernel of {kernel} has no output on an image of {image}")
    taps = kernel[0] * kernel[1]
    window = Window.padded(tuple(sides), output, kernel, (stride, stride), (dilation, dilation), channels // groups)
    product = MatrixProduct(taps * channels // groups, filters // groups, window.pixels, groups, window)
    outputs = window.pixels * filters
    is_depthwise = groups > 1 and groups == channels
    return Layer(
        name,
        "DEPTHWISE_CONV_2D" if is_depthwise else "CONV_2D",
        "depthwise" if is_depthwise else "convolution",
        inputs=image[0] * image[1] * channels,
        outputs=outputs,
        weights=product.weights + (filters if bias else 0),
        products=(product,),
        rectified=outputs if relu else 0,
    )


def dense(name: str, inputs: int, units: int, *, bias: bool = True, relu: bool = False) -> Layer:
    """Return a dense layer at batch 1.

    Raises
    ------
    HardwareError
        It has no inputs or no units.
    """
    if min(inputs, units) < 1:
        raise HardwareError(f"{name}: a dense layer of {units} units on {inputs} inputs does not exist")
    return Layer(
        name,
        "FULLY_CONNECTED",
        "dense",
        inputs=inputs,
        outputs=units,
        weights=inputs * units + (units if bias else 0),
        products=(MatrixProduct(inputs, units, 1),),
        rectified=units if relu else 0,
    )


def max_pooling(name: str, image: tuple[int, int, int], size: int = 2, *, stride: int = 2) -> Layer:
    """Return a max pooling layer at batch 1 without padding.

    Raises
    ------
    HardwareError
        Its window is larger than the image.
    """
    height, width, channels = image
    if min(size, stride, channels) < 1 or size > min(height, width):
        raise HardwareError(f"{name}: a window of {size} x {size} does not fit an image of {image}")
    outputs = ((height - size) // stride + 1) * ((width - size) // stride + 1) * channels
    return Layer(
        name,
        "MAX_POOL_2D",
        "pooling",
        inputs=height * width * channels,
        outputs=outputs,
        comparisons=(size * size - 1) * outputs,
    )
