"""What a network asks of an accelerator: layers as values that say how much there is to compute and to move.

Counts are of one inference at the model's own batch size. Padding counts as work: a window at the border has as many
elements as any other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Kind", "Layer", "MatrixProduct", "Uncosted", "Workload"]

Kind = Literal[
    "convolution",
    "depthwise",
    "dense",
    "pooling",
    "activation",
    "elementwise",
    "mean",
    "softmax",
    "no cost",
]
"""What a layer is. "no cost" are operators that only move or relabel data (reshape, pad, quantize, ...)."""


@dataclass(frozen=True, slots=True)
class MatrixProduct:
    """The products that a layer runs on the array: in each group, (pixels, reduction) x (reduction, filters).

    Attributes
    ----------
    reduction
        Elements of one filter, which are summed into one output: kernel height x width x input channels of the group.
    filters
        Filters of one group.
    pixels
        Positions of the output, over the whole batch; 1 in a dense layer at batch 1.
    groups
        Products that share neither inputs nor filters; a depthwise convolution has one for each input channel.
    """

    reduction: int
    filters: int
    pixels: int
    groups: int = 1

    @property
    def macs(self) -> int:
        """Multiply-accumulate operations. A bias is the value that a sum starts from and adds none."""
        return self.groups * self.reduction * self.filters * self.pixels


@dataclass(frozen=True, slots=True)
class Layer:
    """One operator with its fused activation.

    Attributes
    ----------
    name
        The name of the output tensor in the file.
    operator
        The TFLite name of the operator ("CONV_2D").
    inputs, outputs
        Elements of the activations that come in and go out (elements, each once).
    weights
        Constants that the layer computes with, biases included (elements).
    product
        What runs on the array of multiply-accumulate units; None for layers that do not use it.
    additions, multiplications
        Operations outside the array: average pooling, mean, element-wise operators, softmax, slopes of a leaky ReLU.
    comparisons
        Comparisons of max pooling: one less per output than the window has elements.
    rectified
        Elements through a ReLU, fused or not.
    """

    name: str
    operator: str
    kind: Kind
    inputs: int
    outputs: int
    weights: int = 0
    product: MatrixProduct | None = None
    additions: int = 0
    multiplications: int = 0
    comparisons: int = 0
    rectified: int = 0

    @property
    def macs(self) -> int:
        """Multiply-accumulate operations on the array."""
        return 0 if self.product is None else self.product.macs


@dataclass(frozen=True, slots=True)
class Uncosted:
    """Work in a model that no layer accounts for: `name` is the output tensor's, `operator` says what it is."""

    name: str
    operator: str


@dataclass(frozen=True, slots=True)
class Workload:
    """The layers of a model in the order of the file, and what of the file is not among them."""

    layers: tuple[Layer, ...]
    uncosted: tuple[Uncosted, ...] = ()
