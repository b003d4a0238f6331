"""What each operator does to channels: one rule for each kind that is understood.

A rule looks at everything it relies on before it notes anything, and raises `Barrier` where that does not hold. Kinds
without a rule are barriers.
"""

from __future__ import annotations

import math
from collections.abc import Callable  # noqa: TC003 - the table of rules is annotated at run time
from typing import TYPE_CHECKING, Final

import numpy as np

from edge_runtime.flatmodel.channel_walk import STAYS, Barrier, Consumer

if TYPE_CHECKING:
    from edge_runtime.flatmodel.channel_walk import ChannelWalk, Labels
    from edge_runtime.flatmodel.graph import Operator

__all__ = ["ELEMENTWISE", "RULES"]

# Element-wise operators of one input: they hand every channel on.
ELEMENTWISE: Final = (
    *("RELU", "RELU6", "RELU_N1_TO_1", "RELU_0_TO_1", "LEAKY_RELU", "ELU", "GELU", "HARD_SWISH", "TANH", "LOGISTIC"),
    *("ABS", "CEIL", "COS", "EXP", "FLOOR", "LOG", "NEG", "ROUND", "RSQRT", "SIGN", "SIN", "SQRT", "SQUARE"),
    *("CAST", "QUANTIZE", "FAKE_QUANT"),
)

_FLOATS: Final = (np.dtype(np.float32), np.dtype(np.float16))
_WEIGHT_DTYPES: Final = (*_FLOATS, np.dtype(np.int8), np.dtype(np.uint8))


def _convolution(walk: ChannelWalk, operator: Operator) -> None:
    """CONV_2D, weights `[O, kh, kw, I]`; with I less than the input's channels it is grouped."""
    source, weight, bias, target = *_three(operator), operator.outputs[0]
    read = walk.channels_last(source)
    filters, inputs = _layer_weights(walk, weight, bias, rank=4)
    channels = walk.shape(source)[-1:]
    if len(walk.shape(source)) != 4 or not inputs or channels[0] % inputs or walk.shape(target)[-1:] != (filters,):
        raise Barrier("has weights that do not fit its input or output")
    groups = channels[0] // inputs
    if not groups or filters % groups:
        raise Barrier("has weights that do not fit its groups")
    if read is not None and groups > 1:
        read = _one_block(walk, read, groups)
    own = _own_channels(walk, operator, weight, bias, filters)
    if groups > 1:
        # Every group must keep equally many channels: those at the same place in each share a fate.
        _one_block(walk, own, groups)
    _reads(walk, operator, source, weight, bias, read)


def _dense(walk: ChannelWalk, operator: Operator) -> None:
    """FULLY_CONNECTED, weights `[O, I]`; it flattens its input to rows of I by itself."""
    source, weight, bias, target = *_three(operator), operator.outputs[0]
    if operator.options.get("weights_format"):
        raise Barrier("has shuffled weights")
    filters, inputs = _layer_weights(walk, weight, bias, rank=2)
    size = math.prod(walk.shape(source))
    if not inputs or size % inputs or walk.shape(target)[-1:] != (filters,):
        raise Barrier("has weights that do not fit its input or output")
    read = walk.reshaped(source, (size // inputs, inputs))
    if read is not None and read.axis != 1:
        raise Barrier("multiplies along another axis than that of the channels")
    _own_channels(walk, operator, weight, bias, filters)
    _reads(walk, operator, source, weight, bias, None if read is None else read.labels)


def _transposed_convolution(walk: ChannelWalk, operator: Operator) -> None:
    """TRANSPOSE_CONV: output shape, weights `[O, kh, kw, I]`, input."""
    shape, weight, source, bias = (operator.input(position) for position in range(4))
    target = operator.outputs[0]
    read = walk.channels_last(source)
    filters, inputs = _layer_weights(walk, weight, bias, rank=4)
    walk.own_constant(shape)
    sides = walk.integers(shape)
    if walk.shape(source)[-1:] != (inputs,) or walk.shape(target)[-1:] != (filters,) or sides.tolist()[3:] != [filters]:
        raise Barrier("has weights that do not fit its input or output")
    own = _own_channels(walk, operator, weight, bias, filters)
    walk.count(shape, 3, own)
    _reads(walk, operator, source, weight, bias, read)


def _depthwise(walk: ChannelWalk, operator: Operator) -> None:
    """DEPTHWISE_CONV_2D, weights `[1, kh, kw, C * m]`: output channel `c * m + k` is made of input channel c alone."""
    source, weight, bias, target = *_three(operator), operator.outputs[0]
    read = walk.channels_last(source)
    if read is None:
        raise Barrier("reads channels that stay")
    constant = walk.own_constant(weight)
    if len(constant.shape) != 4 or constant.shape[0] != 1 or constant.shape[3] % len(read):
        raise Barrier("has weights that do not fit its input")
    channels = constant.shape[3]
    _check_bias(walk, bias, channels)
    if walk.shape(target)[-1:] != (channels,) or constant.dtype not in _WEIGHT_DTYPES:
        raise Barrier("has weights that do not fit its output, or of a kind that is not understood")
    _check_scales(walk, weight, axis=3)
    labels = np.repeat(read, channels // len(read))
    walk.charge(channels)
    walk.slice_constant(weight, 3, labels)
    if bias >= 0:
        walk.slice_constant(bias, 0, labels)
    walk.carry(target, len(walk.shape(target)) - 1, labels)


def _elementwise(walk: ChannelWalk, operator: Operator) -> None:
    source, target = operator.input(0), operator.outputs[0]
    carried = walk.carried.get(source)
    if carried is None:
        return
    if walk.shape(source) != walk.shape(target):
        raise Barrier("changes the shape")
    walk.carry(target, carried.axis, carried.labels)


def _dequantize(walk: ChannelWalk, operator: Operator) -> None:
    # That of a constant belongs to the layer that reads it (`ChannelWalk.own_constant`).
    if not walk.tensor(operator.input(0)).is_constant:
        _elementwise(walk, operator)


def _spatial(walk: ChannelWalk, operator: Operator) -> None:
    """Pooling and resizing: over height and width of `(n, h, w, channels)`."""
    source, target = operator.input(0), operator.outputs[0]
    labels = walk.channels_last(source)
    if len(walk.shape(source)) != 4 or walk.shape(source)[-1:] != walk.shape(target)[-1:]:
        raise Barrier("changes the number of channels")
    walk.carry(target, len(walk.shape(target)) - 1, labels)


def _binary(walk: ChannelWalk, operator: Operator) -> None:
    """ADD, MUL and their like, of two activations or with a constant, with broadcasting (axes count from the right)."""
    target = operator.outputs[0]
    if len(operator.inputs) != 2:
        raise Barrier("does not have two inputs")
    sides = walk.shape(target)
    carried = {tensor: walk.carried[tensor] for tensor in operator.inputs if tensor in walk.carried}
    from_end = {tensor: labelled.axis - len(walk.shape(tensor)) for tensor, labelled in carried.items()}
    if any(-place > len(sides) for place in from_end.values()) or len(set(from_end.values())) > 1:
        raise Barrier("combines channels on different axes")
    # A tensor of one channel that is stretched over all channels of the other has no part in their fate.
    whole = [tensor for tensor in carried if len(carried[tensor].labels) == sides[from_end[tensor]]]
    if not whole:
        return
    labels, place = carried[whole[0]].labels, from_end[whole[0]]
    if len(whole) == 2:
        walk.couple(labels, carried[whole[1]].labels)
    elif operator.inputs[0] != operator.inputs[1]:
        _slice_operand(walk, next(tensor for tensor in operator.inputs if tensor != whole[0]), place, labels)
    walk.carry(target, place + len(sides), labels)


def _slice_operand(walk: ChannelWalk, operand: int, from_end: int, labels: Labels) -> None:
    """Let the other operand, which carries no channels, fit `labels`, on axis `from_end` (-1 is the last)."""
    shape = walk.shape(operand)
    if len(shape) < -from_end or shape[from_end] == 1:
        return
    if shape[from_end] != len(labels):
        raise Barrier("broadcasts over the channels")
    walk.slice_constant(_sliceable(walk, operand, len(shape) + from_end), len(shape) + from_end, labels)


def _prelu(walk: ChannelWalk, operator: Operator) -> None:
    """PRELU: one slope for each channel (alpha `(1, 1, channels)`), or for each value."""
    source, slopes, target = operator.input(0), operator.input(1), operator.outputs[0]
    carried = walk.carried.get(source)
    if carried is None:
        return
    if walk.shape(source) != walk.shape(target):
        raise Barrier("changes the shape")
    _slice_operand(walk, slopes, carried.axis - len(walk.shape(source)), carried.labels)
    walk.carry(target, carried.axis, carried.labels)


def _add_n(walk: ChannelWalk, operator: Operator) -> None:
    """ADD_N: a sum of tensors of one shape."""
    target = operator.outputs[0]
    axes = [walk.carried.get(tensor) for tensor in operator.inputs]
    if all(axis is None for axis in axes):
        return
    first = axes[0]
    if first is None or any(axis is None or axis.axis != first.axis for axis in axes):
        raise Barrier("adds channels that stay")
    if any(walk.shape(tensor) != walk.shape(target) for tensor in operator.inputs):
        raise Barrier("changes the shape")
    for axis in axes[1:]:
        assert axis is not None
        walk.couple(first.labels, axis.labels)
    walk.carry(target, first.axis, first.labels)


def _reshape(walk: ChannelWalk, operator: Operator) -> None:
    """RESHAPE, SQUEEZE, EXPAND_DIMS: the same values in another shape."""
    source, target = operator.input(0), operator.outputs[0]
    after = walk.reshaped(source, walk.shape(target))
    if after is None:
        return
    if operator.kind == "RESHAPE":
        shape = operator.input(1)
        if shape < 0:
            raise Barrier("has its shape among its options")
        walk.own_constant(shape)
        sides = walk.integers(shape)
        if len(sides) != len(walk.shape(target)) or sides[after.axis] not in (-1, len(after.labels)):
            raise Barrier("has a shape that is not its output's")
        if sides[after.axis] >= 0:
            walk.count(shape, after.axis, after.labels)
    walk.carry(target, after.axis, after.labels)


def _transpose(walk: ChannelWalk, operator: Operator) -> None:
    source, target = operator.input(0), operator.outputs[0]
    carried = walk.carried.get(source)
    if carried is None:
        return
    order = walk.integers(operator.input(1)).tolist()
    if sorted(order) != list(range(len(walk.shape(source)))):
        raise Barrier("has axes that are no permutation")
    walk.carry(target, order.index(carried.axis), carried.labels)


def _reduce(walk: ChannelWalk, operator: Operator) -> None:
    """MEAN, SUM and their like, over other axes than that of the channels."""
    source, target = operator.input(0), operator.outputs[0]
    carried = walk.carried.get(source)
    if carried is None:
        return
    rank = len(walk.shape(source))
    axes = {int(axis) % rank for axis in walk.integers(operator.input(1))}
    if carried.axis in axes:
        raise Barrier("runs over the channels")
    keeps_sides = len(walk.shape(target)) == rank
    if not keeps_sides and len(walk.shape(target)) != rank - len(axes):
        raise Barrier("has another rank than its axes give")
    walk.carry(target, carried.axis - (0 if keeps_sides else sum(axis < carried.axis for axis in axes)), carried.labels)


def _concatenation(walk: ChannelWalk, operator: Operator) -> None:
    target = operator.outputs[0]
    rank = len(walk.shape(target))
    axes = {walk.carried[tensor].axis for tensor in operator.inputs if tensor in walk.carried}
    if not axes:
        return
    along = operator.options["axis"] % max(rank, 1)
    if len(axes) > 1 or any(len(walk.shape(tensor)) != rank for tensor in operator.inputs):
        raise Barrier("joins channels on different axes")
    (axis,) = axes
    if axis != along:
        _join_beside_channels(walk, operator, axis)
        return
    sides = [walk.shape(tensor)[axis] for tensor in operator.inputs]
    if sum(sides) != walk.shape(target)[axis]:
        raise Barrier("has inputs that do not fit its output")
    walk.charge(sum(sides))
    parts = []
    for tensor, side in zip(operator.inputs, sides, strict=True):
        carried = walk.carried.get(tensor)
        parts.append(np.full(side, STAYS, dtype=np.int32) if carried is None else carried.labels)
    walk.carry(target, axis, np.concatenate(parts))


def _join_beside_channels(walk: ChannelWalk, operator: Operator, axis: int) -> None:
    """Concatenate along another axis than that of the channels, as along the width: these go together."""
    labels = [walk.carried[tensor].labels if tensor in walk.carried else None for tensor in operator.inputs]
    first = labels[0]
    if first is None or any(other is None or len(other) != len(first) for other in labels):
        raise Barrier("joins channels that stay")
    for other in labels[1:]:
        assert other is not None
        walk.couple(first, other)
    walk.carry(operator.outputs[0], axis, first)


def _split(walk: ChannelWalk, operator: Operator) -> None:
    """SPLIT into equal parts (axis, input), or SPLIT_V (input, sizes, axis)."""
    is_plain = operator.kind == "SPLIT"
    source, axis_at = (operator.input(1), operator.input(0)) if is_plain else (operator.input(0), operator.input(2))
    carried = walk.carried.get(source)
    if carried is None:
        return
    axis = int(walk.integers(axis_at)[:1].sum()) % len(walk.shape(source))
    if axis != carried.axis:
        for target in operator.outputs:
            walk.carry(target, carried.axis, carried.labels)
        return
    sides = [walk.shape(target)[axis] if axis < len(walk.shape(target)) else 0 for target in operator.outputs]
    if sum(sides) != len(carried.labels) or 0 in sides or (is_plain and len(set(sides)) > 1):
        raise Barrier("has outputs that do not fit its input")
    if not is_plain:
        walk.own_constant(operator.input(1))
        if walk.integers(operator.input(1)).tolist() != sides:
            raise Barrier("leaves the size of a part open")
    elif len(sides) > 1:
        _one_block(walk, carried.labels, len(sides))
    start = 0
    for number, (target, side) in enumerate(zip(operator.outputs, sides, strict=True)):
        part = carried.labels[start : start + side]
        if not is_plain:
            walk.count(operator.input(1), number, part)
        walk.carry(target, axis, part)
        start += side


def _slice(walk: ChannelWalk, operator: Operator) -> None:
    """SLICE: begin and size of each axis."""
    source, begin_at, size_at, target = *_three(operator), operator.outputs[0]
    carried = walk.carried.get(source)
    if carried is None:
        return
    walk.own_constant(begin_at)
    walk.own_constant(size_at)
    axis, rank = carried.axis, len(walk.shape(source))
    begins, sizes = walk.integers(begin_at), walk.integers(size_at)
    if len(begins) != rank or len(sizes) != rank or len(walk.shape(target)) != rank:
        raise Barrier("has another rank than its input")
    begin, length = int(begins[axis]), walk.shape(target)[axis]
    labels = carried.labels[begin : begin + length]
    if begin < 0 or len(labels) != length or not length or sizes[axis] not in (-1, length):
        raise Barrier("reaches beyond its input")
    if sizes[axis] == -1 and begin + length != len(carried.labels):
        raise Barrier("reaches beyond its input")
    walk.count(begin_at, axis, carried.labels[:begin])
    if sizes[axis] >= 0:
        walk.count(size_at, axis, labels)
    walk.carry(target, axis, labels)


def _strided_slice(walk: ChannelWalk, operator: Operator) -> None:
    """STRIDED_SLICE: begin, end and step of each axis; a mask says which begins and ends are the axis' own."""
    source, begin_at, end_at, step_at = (operator.input(position) for position in range(4))
    carried, target = walk.carried.get(source), operator.outputs[0]
    if carried is None:
        return
    options, axis, rank = operator.options, carried.axis, len(walk.shape(source))
    if any(options[name] for name in ("ellipsis_mask", "new_axis_mask", "shrink_axis_mask", "offset")):
        raise Barrier("adds or drops axes")
    begins, ends, steps = (walk.integers(constant) for constant in (begin_at, end_at, step_at))
    if not len(begins) == len(ends) == len(steps) == rank == len(walk.shape(target)):
        raise Barrier("has another rank than its input")
    side = len(carried.labels)
    from_start, to_end = (bool(options[name] >> axis & 1) for name in ("begin_mask", "end_mask"))
    # Below zero they count from the end.
    begin = 0 if from_start else int(begins[axis]) + (side if begins[axis] < 0 else 0)
    end = side if to_end else int(ends[axis]) + (side if ends[axis] < 0 else 0)
    if steps[axis] != 1 or not 0 <= begin < end <= side or walk.shape(target)[axis] != end - begin:
        raise Barrier("takes channels with a step, or beyond its input")
    if not from_start:
        walk.own_constant(begin_at)
    if not to_end:
        walk.own_constant(end_at)
        walk.count(end_at, axis, carried.labels[:end])
    if not from_start:
        walk.count(begin_at, axis, carried.labels[:begin])
    walk.carry(target, axis, carried.labels[begin:end])


def _pad(walk: ChannelWalk, operator: Operator) -> None:
    """PAD, PADV2, MIRROR_PAD: amounts `(rank, 2)`; padded channels are units of their own, which hold a constant."""
    source, amounts_at, target = operator.input(0), operator.input(1), operator.outputs[0]
    carried = walk.carried.get(source)
    if carried is None:
        return
    axis, rank = carried.axis, len(walk.shape(source))
    amounts = walk.integers(amounts_at)
    if len(amounts) != 2 * rank or (amounts < 0).any():
        raise Barrier("has amounts that do not fit its input")
    before, after = int(amounts[2 * axis]), int(amounts[2 * axis + 1])
    if before == after == 0:
        walk.carry(target, axis, carried.labels)
        return
    if operator.kind == "MIRROR_PAD":
        raise Barrier("mirrors channels")
    if walk.shape(target)[axis : axis + 1] != (before + len(carried.labels) + after,):
        raise Barrier("has amounts that do not fit its output")
    walk.own_constant(amounts_at)
    first, last = walk.new_units(before), walk.new_units(after)
    walk.count(amounts_at, 2 * axis, first)
    walk.count(amounts_at, 2 * axis + 1, last)
    walk.carry(target, axis, np.concatenate([first, carried.labels, last]))


def _space_to_depth(walk: ChannelWalk, operator: Operator) -> None:
    """SPACE_TO_DEPTH: a block's pixels side by side as channels, `pixel * C + c`."""
    source, target = operator.input(0), operator.outputs[0]
    labels = walk.channels_last(source)
    if labels is None:
        return
    channels = math.prod(walk.shape(target)[-1:])
    if channels % len(labels):
        raise Barrier("has an output that does not fit its input")
    walk.charge(channels)
    walk.carry(target, len(walk.shape(target)) - 1, np.tile(labels, channels // len(labels)))


def _depth_to_space(walk: ChannelWalk, operator: Operator) -> None:
    """DEPTH_TO_SPACE: channels `pixel * C + c` become a block's pixels."""
    source, target = operator.input(0), operator.outputs[0]
    labels = walk.channels_last(source)
    if labels is None:
        return
    channels = math.prod(walk.shape(target)[-1:])
    if not channels or len(labels) % channels:
        raise Barrier("has an output that does not fit its input")
    walk.carry(target, len(walk.shape(target)) - 1, _one_block(walk, labels, len(labels) // channels))


def _mixes(_: ChannelWalk, __: Operator) -> None:
    raise Barrier("mixes the channels")


def _three(operator: Operator) -> tuple[int, int, int]:
    return operator.input(0), operator.input(1), operator.input(2)


def _one_block(walk: ChannelWalk, labels: Labels, blocks: int) -> Labels:
    """Couple the units at the same place of each of `blocks` equal blocks; return the labels of the first."""
    rows = labels.reshape(blocks, -1)
    walk.charge(rows[1:].size)
    walk.couple(np.tile(rows[0], blocks - 1), rows[1:].reshape(-1))
    first: Labels = rows[0]
    return first


def _layer_weights(walk: ChannelWalk, weight: int, bias: int, rank: int) -> tuple[int, int]:
    """Check weights `[O, ..., I]` and bias `[O]` of a layer; return O and I."""
    constant = walk.own_constant(weight)
    if constant.dtype not in _WEIGHT_DTYPES:
        raise Barrier(f"has {constant.dtype} weights")
    if len(constant.shape) != rank:
        raise Barrier(f"has weights of shape {constant.shape}")
    _check_bias(walk, bias, constant.shape[0])
    _check_scales(walk, weight, axis=0)
    return constant.shape[0], constant.shape[-1]


def _check_bias(walk: ChannelWalk, bias: int, channels: int) -> None:
    if bias >= 0 and walk.own_constant(bias).shape != (channels,):
        raise Barrier(f"has a bias of shape {walk.shape(bias)}")


def _check_scales(walk: ChannelWalk, weight: int, axis: int) -> None:
    quantization = walk.own_constant(weight).quantization
    if quantization is not None and quantization.count > 1 and quantization.axis != axis:
        raise Barrier("has scales along another axis than its own channels")


def _sliceable(walk: ChannelWalk, operand: int, axis: int) -> int:
    """Return `operand` if it is a constant that can be sliced along `axis`."""
    quantization = walk.own_constant(operand).quantization
    if quantization is not None and quantization.count > 1 and quantization.axis != axis:
        raise Barrier("has scales along another axis than the channels")
    return operand


def _own_channels(walk: ChannelWalk, operator: Operator, weight: int, bias: int, filters: int) -> Labels:
    """Let a layer's output channels be new units."""
    target = operator.outputs[0]
    own = walk.new_units(filters, operator.index)
    walk.slice_constant(weight, 0, own)
    if bias >= 0:
        walk.slice_constant(bias, 0, own)
    walk.carry(target, len(walk.shape(target)) - 1, own)
    return own


def _reads(walk: ChannelWalk, operator: Operator, source: int, weight: int, bias: int, labels: Labels | None) -> None:
    """Slice a layer's weights along the channels that it reads, and note that it reads them."""
    if labels is None:
        return
    constant, stored_bias = walk.own_constant(weight), walk.own_constant(bias).index if bias >= 0 else -1
    walk.slice_constant(weight, len(constant.shape) - 1, labels)
    walk.consumers.append((labels, Consumer(operator.index, source, constant.index, stored_bias)))


RULES: Final[dict[str, Callable[[ChannelWalk, Operator], None]]] = {
    "CONV_2D": _convolution,
    "FULLY_CONNECTED": _dense,
    "TRANSPOSE_CONV": _transposed_convolution,
    "DEPTHWISE_CONV_2D": _depthwise,
    **dict.fromkeys(ELEMENTWISE, _elementwise),
    "DEQUANTIZE": _dequantize,
    **dict.fromkeys(("MAX_POOL_2D", "AVERAGE_POOL_2D", "L2_POOL_2D"), _spatial),
    **dict.fromkeys(("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"), _spatial),
    **dict.fromkeys(("ADD", "SUB", "MUL", "DIV", "MAXIMUM", "MINIMUM", "SQUARED_DIFFERENCE", "POW"), _binary),
    "PRELU": _prelu,
    "ADD_N": _add_n,
    **dict.fromkeys(("RESHAPE", "SQUEEZE", "EXPAND_DIMS"), _reshape),
    "TRANSPOSE": _transpose,
    **dict.fromkeys(("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD"), _reduce),
    "CONCATENATION": _concatenation,
    **dict.fromkeys(("SPLIT", "SPLIT_V"), _split),
    "SLICE": _slice,
    "STRIDED_SLICE": _strided_slice,
    **dict.fromkeys(("PAD", "PADV2", "MIRROR_PAD"), _pad),
    "SPACE_TO_DEPTH": _space_to_depth,
    "DEPTH_TO_SPACE": _depth_to_space,
    **dict.fromkeys(("SOFTMAX", "LOG_SOFTMAX", "L2_NORMALIZATION", "LOCAL_RESPONSE_NORMALIZATION"), _mixes),
}
