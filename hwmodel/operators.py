"""How each operator of a .tflite becomes a layer of the workload.

An operator that has no reader here is listed as uncosted, never guessed and never dropped.
"""

from __future__ import annotations

from collections.abc import Callable  # noqa: TC003 - the table of readers is annotated at run time
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from edge_runtime.errors import ModelFileError
from edge_runtime.flatmodel.schema import ACTIVATIONS
from hwmodel.workload import Layer, MatrixProduct, Uncosted, Workload

if TYPE_CHECKING:
    from edge_runtime.flatmodel import Graph, Operator, Tensor

__all__ = ["read_workload"]

_RECTIFIERS: Final = ("RELU", "RELU_N1_TO_1", "RELU6")
_DATA_MOVEMENT: Final = (
    "CAST",
    "CONCATENATION",
    "DEPTH_TO_SPACE",
    "DEQUANTIZE",
    "EXPAND_DIMS",
    "MIRROR_PAD",
    "PACK",
    "PAD",
    "PADV2",
    "QUANTIZE",
    "RESHAPE",
    "SHAPE",
    "SLICE",
    "SPACE_TO_DEPTH",
    "SPLIT",
    "SQUEEZE",
    "STRIDED_SLICE",
    "TRANSPOSE",
    "UNPACK",
)


def read_workload(graph: Graph) -> Workload:
    """Turn the operators of a graph into layers.

    Raises
    ------
    edge_runtime.errors.ModelFileError
        An operator lacks a tensor that it needs, or has one of a shape that it cannot have.
    """
    layers: list[Layer] = []
    uncosted: list[Uncosted] = []
    for operator in graph.operators:
        name = graph.tensors[operator.outputs[0]].name
        reader = _READERS.get(operator.kind)
        if reader is None:
            uncosted.append(Uncosted(name, operator.kind))
            continue
        if operator.kind in _WEIGHTED and not _is_stored(graph, _operand(graph, operator, 1).index):
            uncosted.append(Uncosted(name, f"{operator.kind} with computed weights"))
            continue
        layer = reader(graph, operator, _moved(graph, operator))
        fused = _fused_activation(operator)
        if fused in _RECTIFIERS:
            layer = replace(layer, rectified=layer.outputs)
        elif fused != "NONE":
            uncosted.append(Uncosted(name, f"{fused} fused into {operator.kind}"))
        layers.append(layer)
    return Workload(tuple(layers), tuple(uncosted))


def _moved(graph: Graph, operator: Operator) -> Layer:
    """Return the operator as a layer that takes in and gives out, and does not compute."""
    activations, constants = 0, 0
    for index in operator.inputs:
        if index >= 0 and _is_stored(graph, index):
            constants += graph.tensors[index].size
        elif index >= 0:
            activations += graph.tensors[index].size
    return Layer(
        name=graph.tensors[operator.outputs[0]].name,
        operator=operator.kind,
        kind="no cost",
        inputs=activations,
        outputs=sum(graph.tensors[index].size for index in operator.outputs),
        weights=constants,
    )


def _is_stored(graph: Graph, index: int) -> bool:
    """Whether a tensor's values come from the file: a constant, or what DEQUANTIZE makes of one (float16 weights).

    Constants of types that numpy has no view for (4-bit weights) show by having neither a producer nor a caller to
    feed them.
    """
    producer = graph.producer.get(index)
    if producer is not None and producer.kind == "DEQUANTIZE":
        index = producer.input(0)
        producer = graph.producer.get(index)
    return producer is None and index not in graph.inputs


def _fused_activation(operator: Operator) -> str:
    number = operator.options.get("activation", 0)
    return ACTIVATIONS[number] if number < len(ACTIVATIONS) else f"activation {number}"


def _operand(graph: Graph, operator: Operator, position: int, rank: int | None = None) -> Tensor:
    """Return the tensor at an input position, with `rank` sides if that is given, none of them empty."""
    index = operator.input(position)
    if index < 0:
        raise ModelFileError(f"damaged .tflite: {_where(operator)} has no input {position}")
    tensor = graph.tensors[index]
    if (rank is not None and len(tensor.shape) != rank) or tensor.size == 0:
        wanted = "no empty side" if rank is None else f"{rank} sides, none empty"
        raise ModelFileError(f"{_where(operator)} needs {wanted}, in input {position}; its shape is {tensor.shape}")
    return tensor


def _where(operator: Operator) -> str:
    return f"operator {operator.index} ({operator.kind})"


def _with_product(operator: Operator, moved: Layer, reduction: int, filters: int, groups: int = 1) -> Layer:
    """Return the layer with the product that its outputs and `filters`, those of all groups, make."""
    if groups < 1 or filters % groups or moved.outputs % filters:
        raise ModelFileError(
            f"damaged .tflite: {_where(operator)} cannot make {moved.outputs} outputs "
            f"with {filters} filters in {groups} groups"
        )
    return replace(moved, product=MatrixProduct(reduction, filters // groups, moved.outputs // filters, groups))


def _convolution(graph: Graph, operator: Operator, moved: Layer) -> Layer:
    image, kernel = _operand(graph, operator, 0, 4), _operand(graph, operator, 1, 4)
    filters, height, width, channels = kernel.shape
    if image.shape[3] % channels:
        raise ModelFileError(
            f"damaged .tflite: {_where(operator)} has filters of {channels} channels for {image.shape[3]} of its input"
        )
    layer = _with_product(operator, moved, height * width * channels, filters, image.shape[3] // channels)
    return replace(layer, kind="convolution")


def _depthwise(graph: Graph, operator: Operator, moved: Layer) -> Layer:
    image, kernel = _operand(graph, operator, 0, 4), _operand(graph, operator, 1, 4)
    _, height, width, filters = kernel.shape
    return replace(_with_product(operator, moved, height * width, filters, image.shape[3]), kind="depthwise")


def _dense(graph: Graph, operator: Operator, moved: Layer) -> Layer:
    filters, reduction = _operand(graph, operator, 1, 2).shape
    return replace(_with_product(operator, moved, reduction, filters), kind="dense")


def _pooling(_: Graph, operator: Operator, moved: Layer) -> Layer:
    window = operator.options["filter_height"] * operator.options["filter_width"]
    if window < 1:
        raise ModelFileError(f"damaged .tflite: {_where(operator)} has a window of {window} elements")
    rest = (window - 1) * moved.outputs
    if operator.kind == "MAX_POOL_2D":
        return replace(moved, kind="pooling", comparisons=rest)
    return replace(moved, kind="pooling", additions=rest, multiplications=moved.outputs)


def _mean(graph: Graph, operator: Operator, moved: Layer) -> Layer:
    additions = _operand(graph, operator, 0).size - moved.outputs
    # The constant is the list of axes, which is configuration and no weight.
    return replace(moved, kind="mean", weights=0, additions=additions, multiplications=moved.outputs)


def _softmax(graph: Graph, operator: Operator, moved: Layer) -> Layer:
    # exp(x - max(x)) / sum(...): in each row a maximum (whose comparisons are subtractions), differences, a sum, and
    # multiplications by its reciprocal. Table I has no price for an exponential or a reciprocal: they count nothing.
    classes = (1, *_operand(graph, operator, 0).shape)[-1]
    rest = moved.outputs - moved.outputs // classes
    return replace(moved, kind="softmax", additions=moved.outputs + 2 * rest, multiplications=moved.outputs)


def _rectifier(_: Graph, operator: Operator, moved: Layer) -> Layer:
    # A leaky or parametric ReLU also multiplies by its slope.
    slopes = 0 if operator.kind in _RECTIFIERS else moved.outputs
    return replace(moved, kind="activation", rectified=moved.outputs, multiplications=slopes)


def _elementwise(_: Graph, operator: Operator, moved: Layer) -> Layer:
    if operator.kind == "MUL":
        return replace(moved, kind="elementwise", multiplications=moved.outputs)
    return replace(moved, kind="elementwise", additions=moved.outputs)


def _data_movement(_: Graph, __: Operator, moved: Layer) -> Layer:
    # Constants here are shapes and paddings, or float16 weights, which the layer behind the DEQUANTIZE accounts for.
    return replace(moved, weights=0)


_WEIGHTED: Final = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
_READERS: Final[dict[str, Callable[[Graph, Operator, Layer], Layer]]] = {
    "CONV_2D": _convolution,
    "DEPTHWISE_CONV_2D": _depthwise,
    "FULLY_CONNECTED": _dense,
    "MAX_POOL_2D": _pooling,
    "AVERAGE_POOL_2D": _pooling,
    "MEAN": _mean,
    "SOFTMAX": _softmax,
    **dict.fromkeys((*_RECTIFIERS, "LEAKY_RELU", "PRELU"), _rectifier),
    **dict.fromkeys(("ADD", "SUB", "MUL"), _elementwise),
    **dict.fromkeys(_DATA_MOVEMENT, _data_movement),
}
