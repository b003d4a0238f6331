"""Building blocks of convolutional networks, as they are found in the field, drawn at random.

A block takes a map `(1, height, width, channels)` and gives one. `BLOCKS` names them all; `tests.support.random_graphs`
puts them together.
"""

from __future__ import annotations

import tensorflow as tf

from tests.support.random_layers import hard_swish

BLOCKS = {}


def _block(function):
    BLOCKS[function.__name__.removeprefix("_")] = function
    return function


@_block
def _convolution(draw, x):
    return draw.unit(draw.conv(x, stride=draw.one_of(1, 2), padding=draw.one_of("SAME", "VALID"), kernel=2))


@_block
def _residual(draw, x):
    y = draw.conv(draw.unit(x), x.shape[-1])
    if draw.chance():
        return draw.activated(x + draw.normalized(y))
    return x + draw.activated(y)


@_block
def _residual_padded(draw, x):
    """Option A of He et al.: the shortcut skips pixels and gets channels of zeros."""
    before, behind, stride = draw.whole(0, 2), draw.whole(1, 4), draw.halving(x)
    y = draw.conv(draw.unit(x, stride=stride), x.shape[-1] + before + behind)
    shortcut = tf.pad(x[:, ::stride, ::stride, :], [[0, 0], [0, 0], [0, 0], [before, behind]])
    return draw.activated(shortcut + y)


@_block
def _residual_projected(draw, x):
    filters, stride = draw.width(), draw.halving(x)
    y = draw.conv(draw.unit(x, stride=stride), filters)
    return draw.activated(draw.conv(x, filters, 1, stride=stride) + draw.normalized(y))


@_block
def _dense_block(draw, x):
    for _ in range(draw.whole(2, 3)):
        x = tf.concat([x, draw.unit(draw.normalized(x), draw.whole(2, 6))], -1)
    return x


@_block
def _inception(draw, x):
    pooled = tf.nn.max_pool2d(x, 3, 1, "SAME")
    branches = [draw.unit(x, kernel=1), draw.unit(draw.unit(x, kernel=1), kernel=3), draw.unit(pooled, kernel=1)]
    return tf.concat(branches[: draw.whole(2, 3)] + ([x] if draw.chance(0.3) else []), -1)


@_block
def _residual_of_concatenation(draw, x):
    if x.shape[-1] < 2:
        x = draw.conv(x, 4)
    first = draw.whole(1, x.shape[-1] - 1)
    return draw.activated(x + tf.concat([draw.unit(x, first), draw.unit(x, x.shape[-1] - first)], -1))


@_block
def _channels_twice(draw, x):
    """A layer reads the same channels more than once; some of them perhaps once more."""
    parts = [x, draw.activated(x)] if draw.chance() else [x, x[..., : draw.whole(1, x.shape[-1])]]
    return draw.unit(tf.concat(parts, -1))


@_block
def _separable(draw, x):
    return draw.unit(draw.activated(draw.normalized(draw.depthwise(x, stride=draw.one_of(1, 2)))), kernel=1)


@_block
def _inverted_residual(draw, x):
    y = draw.activated(draw.normalized(draw.conv(x, x.shape[-1] * 2, 1)))
    y = draw.activated(draw.normalized(draw.depthwise(y)))
    return x + draw.normalized(draw.conv(y, x.shape[-1], 1))


@_block
def _depth_multiplied(draw, x):
    return draw.unit(draw.activated(draw.depthwise(x, multiplier=2)), kernel=1)


@_block
def _grouped_convolution(draw, x):
    groups = draw.whole(2, 3)
    x = draw.activated(draw.conv(x, groups * draw.whole(2, 5), 1))
    y = draw.activated(draw.conv(x, groups * draw.whole(2, 5), 3, groups=groups))
    return x + draw.conv(y, x.shape[-1], 1) if draw.chance(0.3) else y


@_block
def _squeeze_and_excitation(draw, x):
    channels, squeezed, form = x.shape[-1], draw.whole(2, 6), draw.one_of("maps", "reshaped", "vector")
    mean = tf.reduce_mean(x, [1, 2], keepdims=form == "maps")
    layer = (lambda y, size: draw.conv(y, size, 1)) if form == "maps" else draw.dense
    gate = layer(tf.nn.relu(layer(mean, squeezed) + 0.5), channels)  # 0.5: some of so few must be alive
    if form == "reshaped":
        gate = tf.reshape(gate, [1, 1, 1, channels])
    return x * (tf.sigmoid(gate) if draw.chance() else tf.nn.relu6(gate + 3.0) * (1 / 6))


@_block
def _context(draw, x):
    """A map and its own mean."""
    mean = tf.reduce_mean(x, [1, 2], keepdims=True)
    return draw.unit(draw.one_of(x * mean, x - mean, x * x, x + x, mean + draw.vector(x.shape)))


@_block
def _channel_gate(draw, x):
    """Half of the channels gate the others (GLU)."""
    values, gates = tf.split(draw.conv(x, 2 * draw.width()), 2, -1)
    return values * tf.sigmoid(gates)


@_block
def _split_branches(draw, x):
    """Parts go ways of their own; equal ones (SPLIT, as in ShuffleNet V2) or not (SPLIT_V)."""
    if draw.chance():
        parts = tf.split(draw.unit(x, 3 * draw.whole(2, 4)), 3, -1)
    else:
        x = draw.unit(x, draw.whole(5, 12))
        sizes = [draw.whole(1, 2), draw.whole(1, 2)]
        parts = tf.split(x, [*sizes, x.shape[-1] - sum(sizes)], -1)
    return tf.concat([draw.unit(parts[0]), parts[1], draw.unit(parts[2])], -1)


@_block
def _channel_slices(draw, x):
    x = draw.unit(x, draw.whole(4, 12))
    border = draw.whole(1, x.shape[-1] - 1)
    begin = draw.whole(0, border - 1)
    middle = tf.slice(x, [0, 0, 0, begin], [1, *x.shape[1:3], draw.whole(1, x.shape[-1] - begin)])
    return tf.concat([draw.unit(x[..., :border]), x[..., border - x.shape[-1] :], draw.unit(middle)], -1)


@_block
def _channels_first(draw, x):
    """Channels in the second place for a while, as converters from PyTorch leave them."""
    y = tf.nn.relu(tf.transpose(x, [0, 3, 1, 2]))
    if draw.chance():
        y = y * tf.reshape(draw.vector(y.shape[1], 0.5, 1.5), [1, -1, 1, 1])
    if draw.chance():
        y = tf.concat([y, y + 0.5], draw.one_of(1, 2))
    return tf.transpose(y, [0, 2, 3, 1])


@_block
def _prelu(draw, x):
    y = draw.conv(x)
    shape = draw.one_of([1, 1, y.shape[-1]], y.shape[1:], [1, 1, 1])
    return tf.nn.relu(y) + -draw.vector(shape, 0.05, 0.5) * tf.nn.relu(-y)


@_block
def _hard_swish(draw, x):
    return hard_swish(draw.normalized(draw.conv(x)))


@_block
def _pooling(draw, x):
    pool, size = draw.one_of(tf.nn.max_pool2d, tf.nn.avg_pool2d), draw.whole(1, 2)
    return draw.unit(pool(draw.unit(x), size + 1, draw.whole(1, size), draw.one_of("SAME", "VALID")))


@_block
def _resized(draw, x):
    """Down, up again and joined with what was there before (U-Net, feature pyramids)."""
    y = draw.unit(tf.nn.max_pool2d(x, 2, 2, "SAME"), x.shape[-1])
    y = tf.image.resize(y, x.shape[1:3], draw.one_of("bilinear", "nearest"))
    return tf.concat([x, y], -1) if draw.chance() else x + y


@_block
def _transposed_convolution(draw, x):
    filters, stride, kernel = draw.width(), draw.whole(1, 2), draw.whole(2, 3)
    x = tf.nn.avg_pool2d(draw.unit(x), 2, 2, "SAME")
    weights = draw.weights(kernel, kernel, filters, x.shape[-1], fan_in=kernel * kernel * x.shape[-1])
    shape = [1, x.shape[1] * stride, x.shape[2] * stride, filters]
    return draw.activated(draw.bias(tf.nn.conv2d_transpose(x, weights, shape, stride)))


@_block
def _padded(draw, x):
    amounts = [[0, 0], [1, draw.whole(0, 1)], [1, 1], [0, 0]]
    value = draw.one_of(0.0, 0.0 if "PADV2" in draw.lacks else 0.5)
    x = draw.activated(x)
    x = tf.pad(x, amounts, "REFLECT") if draw.chance(0.3) else tf.pad(x, amounts, constant_values=value)
    return draw.activated(draw.conv(x, kernel=3, padding="VALID" if min(x.shape[1:3]) >= 3 else "SAME"))


@_block
def _unflattened(draw, x):
    side, channels = draw.one_of(1, 1, 2, 4), draw.whole(2, 6)
    x = tf.nn.avg_pool2d(x, 2, 2, "SAME")
    y = draw.activated(draw.dense(tf.reshape(x, [1, -1]), side * side * channels))
    return draw.unit(tf.reshape(y, [1, side, side, channels]))


@_block
def _tokens(draw, x):
    """Dense layers on every pixel, as in transformers."""
    y = tf.reshape(x, [1, -1, x.shape[-1]])
    y = y + draw.dense(draw.activated(draw.dense(y, draw.width())), x.shape[-1])
    return tf.reshape(y, x.shape)


@_block
def _float_island(draw, x):
    """An operator that only floats have a kernel for: integer networks go back and forth for it."""
    return draw.unit(x + tf.sin(draw.conv(x, x.shape[-1])))


@_block
def _shared_weights(draw, x):
    """One layer used twice."""
    kernel, bias = draw.weights(3, 3, x.shape[-1], x.shape[-1]), draw.vector(x.shape[-1])
    y = tf.nn.relu(tf.nn.conv2d(x, kernel, 1, "SAME") + bias)
    return x + tf.nn.relu(tf.nn.conv2d(y, kernel, 1, "SAME") + bias)


@_block
def _shared_input(draw, x):
    """Several layers read one map, and their results are combined in several ways."""
    filters = draw.width()
    first, second, third = (draw.unit(x, filters) for _ in range(3))
    combine = draw.one_of(tf.maximum, tf.minimum, tf.subtract, _divided)
    return tf.add_n([first, second, third]) if draw.chance(0.2) else combine(first, second) + third


def _divided(x, y):
    return x / (1.5 + tf.sigmoid(y))


@_block
def _image_again(draw, x):
    """The network's input, whose channels stay, beside channels that may go; and a constant map (CoordConv)."""
    parts = [x, tf.image.resize(draw.image, x.shape[1:3])]
    if draw.chance():
        parts.append(draw.vector([1, *x.shape[1:3], 2]))
    return draw.unit(tf.concat([parts[i] for i in draw.rng.permutation(len(parts))], -1))


@_block
def _space_to_depth(draw, x):
    x = draw.unit(x)
    x = tf.pad(x, [[0, 0], [0, x.shape[1] % 2], [0, x.shape[2] % 2], [0, 0]])
    return draw.unit(tf.nn.space_to_depth(x, 2))


@_block
def _depth_to_space(draw, x):
    return draw.unit(tf.nn.depth_to_space(tf.nn.avg_pool2d(draw.unit(x, 4 * draw.whole(2, 4)), 2, 2, "SAME"), 2))


@_block
def _spatial_gate(draw, x):
    """One channel multiplies all others."""
    return x * tf.sigmoid(draw.conv(draw.unit(x), 1, 3))


@_block
def _arithmetic(draw, x):
    """With constants: one number, one for each channel, one for each value."""
    x = tf.maximum(x * draw.vector(x.shape[-1], 0.5, 1.5), -1.5) - 0.25
    return draw.unit(tf.minimum(x, draw.vector(x.shape[-1], 0.5, 2.0)) + draw.vector(x.shape))


@_block
def _one_dimensional(draw, x):
    """A convolution along one side alone: RESHAPE, CONV_2D, and back."""
    rows = draw.one_of(tf.reduce_mean, tf.reduce_max, tf.reduce_sum)(draw.unit(x), draw.one_of(1, 2))
    y = tf.nn.conv1d(rows, draw.weights(3, rows.shape[-1], x.shape[-1]), 1, "SAME")
    return x + tf.expand_dims(draw.bias(y), draw.one_of(1, 2)) if x.shape[1] == x.shape[2] else tf.expand_dims(y, 1)


@_block
def _channel_shuffle(draw, x):
    """ShuffleNet's: every group's channels spread over all groups."""
    groups, each = draw.whole(2, 3), draw.whole(2, 4)
    x = draw.activated(draw.conv(x, groups * each, 1))
    y = tf.reshape(x, [*x.shape[:3], groups, each])
    return draw.unit(tf.reshape(tf.transpose(y, [0, 1, 2, 4, 3]), x.shape))


@_block
def _mixing(draw, x):
    """What no channel can leave: operators across the channels, and such as slicing has no rule for."""
    gathered = tf.gather(x, draw.rng.permutation(x.shape[-1]), axis=-1)
    across = draw.one_of(tf.reduce_mean, tf.reduce_max)(x, -1, keepdims=True)
    tiled = tf.tile(x, [1, 1, 1, 2])
    return draw.unit(draw.one_of(gathered, x[..., ::-1], x[..., ::2], x * across, tiled))
