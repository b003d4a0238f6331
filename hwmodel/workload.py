"""What a network asks of an accelerator: layers as values that say how much there is to compute and to move.

Counts are of one run at the model's own batch size, or of several such runs together (`Workload.batched`). Padding
counts as work: a window at the border has as many elements as any other.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from hwmodel.window import Window

__all__ = ["Kind", "Layer", "MatrixProduct", "Uncosted", "Workload"]

Kind = Literal[
    "convolution",
    "depthwise",
    "transposed",
    "dense",
    "matmul",
    "recurrent",
    "pooling",
    "activation",
    "elementwise",
    "reduction",
    "softmax",
    "copy",
    "no cost",
]
"""What a layer is. "copy" moves words from one place of the chip to another; `operators` says why "no cost"."""


@dataclass(frozen=True, slots=True)
class MatrixProduct:
    """A product that runs on the array: in each group, (pixels, reduction) x (reduction, filters).

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
    window
        How the rows of the left matrix overlap in the image; None where they do not.
    stored
        Whether the filters are weights of the model; not so where two activations are multiplied.
    """

    reduction: int
    filters: int
    pixels: int
    groups: int = 1
    window: Window | None = None
    stored: bool = True

    @property
    def macs(self) -> int:
        """Multiply-accumulate operations. A bias is the value that a sum starts from and adds none."""
        return self.groups * self.reduction * self.filters * self.pixels

    @property
    def weights(self) -> int:
        """Elements of all filters."""
        return self.groups * self.reduction * self.filters

    def batched(self, batch: int) -> MatrixProduct:
        """Return the product for `batch` times as many inputs: filters of the model are shared, others are not."""
        if self.stored:
            return replace(self, pixels=self.pixels * batch)
        return replace(self, groups=self.groups * batch)


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
    products
        What runs on the array of multiply-accumulate units; none in layers that do not use it.
    additions, multiplications
        Operations outside the array: average pooling, element-wise operators, softmax, slopes of a leaky ReLU.
    comparisons
        Comparisons: of max pooling, one less per output than the window has elements.
    functions
        Values of exp, tanh, a square root, a reciprocal, ...: each is looked up in a table and interpolated.
    rectified
        Elements through a ReLU, fused or not.
    sources
        Positions, in the workload, of the layers whose outputs it reads; a network's input has none. None: it reads
        what the layer before it makes.
    """

    name: str
    operator: str
    kind: Kind
    inputs: int
    outputs: int
    weights: int = 0
    products: tuple[MatrixProduct, ...] = ()
    additions: int = 0
    multiplications: int = 0
    comparisons: int = 0
    functions: int = 0
    rectified: int = 0
    sources: tuple[int, ...] | None = None

    @property
    def macs(self) -> int:
        """Multiply-accumulate operations on the array."""
        return sum(product.macs for product in self.products)

    @property
    def filter_weights(self) -> int:
        """Those of the weights that the array multiplies with."""
        return sum(product.weights for product in self.products if product.stored)

    @property
    def vector_operations(self) -> int:
        """Operations of a layer that the units behind the array carry out for themselves.

        None for a fused activation: it works on outputs as they leave the array.
        """
        if self.kind == "no cost":
            return 0
        work = self.additions + self.multiplications + self.comparisons + self.functions
        if self.kind == "activation":
            work += self.rectified
        return self.outputs if self.kind == "copy" else work

    def batched(self, batch: int) -> Layer:
        """Return the layer for `batch` times as many inputs; its weights stay as many."""
        return replace(
            self,
            inputs=self.inputs * batch,
            outputs=self.outputs * batch,
            products=tuple(product.batched(batch) for product in self.products),
            additions=self.additions * batch,
            multiplications=self.multiplications * batch,
            comparisons=self.comparisons * batch,
            functions=self.functions * batch,
            rectified=self.rectified * batch,
        )


@dataclass(frozen=True, slots=True)
class Uncosted:
    """Work in a model that no layer accounts for.

    `name` is the output tensor's, `operator` says what it is, `reason` why it is not costed.
    """

    name: str
    operator: str
    reason: str


@dataclass(frozen=True, slots=True)
class Workload:
    """The layers of a model in the order of the file, and what of the file is not among them."""

    layers: tuple[Layer, ...]
    uncosted: tuple[Uncosted, ...] = ()

    def batched(self, batch: int) -> Workload:
        """Return the workload of `batch` runs of the model together."""
        if batch == 1:
            return self
        return replace(self, layers=tuple(layer.batched(batch) for layer in self.layers))
