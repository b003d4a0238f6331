"""Real .tflite files become layers, with MACs and weights computed by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from edge_runtime.errors import ModelFileError
from edge_runtime.flatmodel import read_graph
from hwmodel import DAC20, MatrixProduct, Uncosted, Window, estimate, read_workload
from tests.hwmodel.networks import small_network, tflite
from tests.hwmodel.one_operator import one_operator

if TYPE_CHECKING:
    from edge_runtime.flatmodel import Graph
    from hwmodel import Layer


def by_operator(content: bytes) -> dict[tuple[str, str], Layer]:
    return {(layer.operator, layer.kind): layer for layer in read_workload(read_graph(content)).layers}


def test_every_layer_of_a_small_network_by_hand(small: bytes) -> None:
    workload = read_workload(read_graph(small))
    assert workload.uncosted == ()
    stem, depthwise, residual, pool, grouped, mean, head, softmax = workload.layers

    assert (stem.kind, stem.inputs, stem.outputs) == ("convolution", 16 * 16 * 3, 16 * 16 * 8)
    assert stem.macs == 16 * 16 * 8 * 3 * 3 * 3
    assert stem.weights == 8 * 3 * 3 * 3 + 8
    assert stem.rectified == 16 * 16 * 8
    assert stem.products[0].window == Window((16, 16), (16, 16), (3, 3), (1, 1), (1, 1), 3, padding=(1, 1))

    assert depthwise.kind == "depthwise"
    (product,) = depthwise.products
    assert (product.reduction, product.filters, product.pixels, product.groups) == (9, 1, 256, 8)
    assert depthwise.macs == 16 * 16 * 8 * 9
    assert depthwise.weights == 9 * 8 + 8
    assert depthwise.rectified == 0

    assert (residual.kind, residual.additions, residual.multiplications) == ("elementwise", 16 * 16 * 8, 0)
    assert (residual.inputs, residual.weights, residual.macs) == (2 * 16 * 16 * 8, 0, 0)
    assert residual.sources == (0, 1)

    assert (pool.kind, pool.comparisons) == ("pooling", 8 * 8 * 8 * 3)

    assert (grouped.kind, grouped.outputs) == ("convolution", 3 * 3 * 12)
    (product,) = grouped.products
    assert (product.reduction, product.filters, product.pixels, product.groups) == (3 * 3 * 2, 3, 9, 4)
    assert product.window.stride == (2, 2)
    assert grouped.weights == 12 * 3 * 3 * 2 + 12

    assert (mean.kind, mean.additions, mean.multiplications, mean.weights) == ("reduction", 9 * 12 - 12, 12, 0)

    assert (head.kind, head.macs, head.weights) == ("dense", 12 * 5, 12 * 5 + 5)
    assert head.products == (MatrixProduct(reduction=12, filters=5, pixels=1),)

    assert (softmax.kind, softmax.comparisons, softmax.functions) == ("softmax", 4, 5 + 1)
    assert (softmax.additions, softmax.multiplications) == (5 + 4, 5)


def test_weights_are_those_that_keras_counts(small: bytes) -> None:
    assert estimate(small).weights == small_network().count_params()


@pytest.mark.parametrize("weights", ["float16", "int8"])
def test_the_type_of_the_weights_changes_nothing(small: bytes, weights: str) -> None:
    plain, other = estimate(small), estimate(tflite(small_network(), weights=weights))
    assert other.uncosted == ()
    assert other.totals == pytest.approx(plain.totals)


def test_pooling_activations_and_constants_of_element_wise_operators() -> None:
    import keras

    layers = keras.layers
    image = keras.Input(batch_shape=(1, 8, 8, 4))
    x = layers.AveragePooling2D(2)(image)
    x = layers.LeakyReLU(negative_slope=0.3)(x)
    x = layers.Rescaling(scale=[2.0, 3.0, 4.0, 5.0])(x)
    x = layers.ZeroPadding2D(1)(x)
    found = by_operator(tflite(keras.Model(image, layers.Flatten()(x))))

    pool = found["AVERAGE_POOL_2D", "pooling"]
    assert (pool.additions, pool.multiplications, pool.comparisons) == (4 * 4 * 4 * 3, 4 * 4 * 4, 0)
    leaky = found["LEAKY_RELU", "activation"]
    assert (leaky.rectified, leaky.multiplications) == (64, 64)
    scale = found["MUL", "elementwise"]
    assert (scale.inputs, scale.weights, scale.multiplications) == (64, 4, 64)
    for free in (found["PAD", "no cost"], found["RESHAPE", "no cost"]):
        assert (free.macs, free.weights, free.additions, free.rectified) == (0, 0, 0, 0)


def test_dilated_and_transposed_convolutions_of_keras() -> None:
    import keras

    layers = keras.layers
    image = keras.Input(batch_shape=(1, 9, 9, 2))
    x = layers.Conv2D(4, 3, dilation_rate=2, bias_initializer="normal")(image)
    x = layers.Conv2DTranspose(3, 3, strides=2, padding="same", bias_initializer="normal")(x)
    found = {layer.kind: layer for layer in read_workload(read_graph(tflite(keras.Model(image, x)))).layers}
    assert found["convolution"].macs == 5 * 5 * 4 * 9 * 2  # whether the converter keeps the dilation or not
    assert found["convolution"].weights == 9 * 2 * 4 + 4
    assert found["transposed"].macs == 5 * 5 * 4 * 9 * 3
    assert found["transposed"].weights == 9 * 4 * 3 + 3


def test_an_operator_without_a_cost_model_is_listed() -> None:
    content = one_operator("CUSTOM", [(1, 8)], [(1, 4)], custom=b"Mine")
    report = estimate(content)
    assert [(work.operator, work.reason) for work in report.uncosted] == [
        ("CUSTOM:Mine", "the file does not say what it computes")
    ]
    assert report.to_dict()["uncosted"][0]["operator"] == "CUSTOM:Mine"


def test_a_product_of_two_activations_has_no_weights_to_fetch() -> None:
    (layer,) = read_workload(_with_kernel_from_the_caller()).layers
    assert layer.macs == 8 * 4
    assert layer.weights == 0
    traffic = estimate(_with_kernel_from_the_caller()).traffic
    assert (traffic.dram_weights, traffic.dram_biases, traffic.dram_inputs) == (0, 0, 0)
    traffic = estimate(_with_kernel_from_the_caller(), replace(DAC20, keep_activations=False)).traffic
    assert (traffic.dram_weights, traffic.dram_biases, traffic.dram_inputs) == (0, 0, 8 + 32)


def test_an_unpriced_fused_activation_is_listed_beside_its_layer(small: bytes) -> None:
    graph = read_graph(small)
    stem = graph.operators[0]
    sign_bit = replace(stem, options={**stem.options, "activation": 5})
    workload = read_workload(replace(graph, operators=(sign_bit, *graph.operators[1:])))
    assert [work.operator for work in workload.uncosted] == ["SIGN_BIT fused into CONV_2D"]
    assert isinstance(workload.uncosted[0], Uncosted)
    assert workload.layers[0].macs == 16 * 16 * 8 * 27
    assert workload.layers[0].rectified == 0


def test_a_fused_tanh_is_looked_up(small: bytes) -> None:
    graph = read_graph(small)
    tanh = replace(graph.operators[0], options={**graph.operators[0].options, "activation": 4})
    assert read_workload(replace(graph, operators=(tanh,))).layers[0].functions == 16 * 16 * 8


def test_a_layer_without_its_filters_is_damaged(small: bytes) -> None:
    graph = read_graph(small)
    broken = replace(graph.operators[0], inputs=graph.operators[0].inputs[:1])
    with pytest.raises(ModelFileError, match=r"^x: damaged .tflite: operator 0 \(CONV_2D\) has no input 1$"):
        estimate(replace(graph, operators=(broken,)), name="x")


def test_filters_that_do_not_fit_the_image_are_damage(small: bytes) -> None:
    graph = read_graph(small)
    stem, grouped = (operator for operator in graph.operators if operator.kind == "CONV_2D")
    broken = replace(stem, inputs=(stem.inputs[0], grouped.inputs[1], grouped.inputs[2]))
    with pytest.raises(ModelFileError, match="filters of 2 channels for 3 of its input"):
        estimate(replace(graph, operators=(broken,)))


def test_outputs_that_the_filters_cannot_make_are_damage(small: bytes) -> None:
    graph = read_graph(small)
    head = next(operator for operator in graph.operators if operator.kind == "FULLY_CONNECTED")
    pooled = replace(head, outputs=graph.operators[-3].outputs)
    with pytest.raises(ModelFileError, match="cannot make 12 outputs with 5 filters"):
        estimate(replace(graph, operators=(pooled,)))


def _with_kernel_from_the_caller() -> Graph:
    import keras

    image = keras.Input(batch_shape=(1, 8))
    graph = read_graph(tflite(keras.Model(image, keras.layers.Dense(4)(image))))
    kernel = graph.operators[0].input(1)
    return replace(graph, inputs=(*graph.inputs, kernel))
