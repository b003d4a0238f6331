"""Quantised conversions: smaller files that are still right about real digits, or none at all."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cloud_pruner.cli import main
from cloud_pruner.conversion import convert
from cloud_pruner.errors import ConversionError, ImageDataError
from cloud_pruner.quantization import QUANTIZE_KINDS, TOP1_AGREEMENT_MIN, Agreement, check_agreement
from edge_runtime.flatmodel import read_graph
from edge_runtime.interpreter import LoadedModel
from tests.support.digits import PREPROCESSING

keras = pytest.importorskip("keras")

QUANTIZED = [kind for kind in QUANTIZE_KINDS if kind != "none"]


@pytest.fixture(scope="module")
def converted(digits_network, tmp_path_factory):
    """The trained digits network in every kind: kind -> report."""
    folder = tmp_path_factory.mktemp("kinds")
    return {
        kind: convert(
            digits_network.keras,
            folder / f"{kind}.tflite",
            images=digits_network.trained_on,
            preprocessing=PREPROCESSING,
            quantize=kind,
        )
        for kind in QUANTIZE_KINDS
    }


def accuracy(content: bytes, images) -> float:
    return np.mean(LoadedModel(content).run(PREPROCESSING.apply(images.pixels))[0].argmax(axis=1) == images.labels)


def weights_of(content: bytes, operator: str):
    graph = read_graph(content)
    return [graph.tensors[each.inputs[1]] for each in graph.operators if each.kind == operator]


@pytest.mark.parametrize("kind", QUANTIZED)
def test_a_quantised_network_is_as_good_on_images_it_never_saw(converted, digits_network, kind: str):
    exact, quantised = (converted[each].path.read_bytes() for each in ("none", kind))
    assert accuracy(exact, digits_network.unseen) > 0.95
    assert accuracy(quantised, digits_network.unseen) > accuracy(exact, digits_network.unseen) - 0.01


@pytest.mark.parametrize(("kind", "share"), [("float16", 0.6), ("dynamic", 0.4), ("int8", 0.4)])
def test_it_is_smaller_and_the_report_says_what_it_is(converted, kind: str, share: float):
    report = converted[kind]
    assert report.bytes == report.path.stat().st_size < share * converted["none"].bytes
    assert (report.quantize, report.compared_on, report.images) == (kind, "images", 64)
    assert report.top1_agreement > 0.9
    # It is not the same: a comparison that could not tell would be none.
    assert converted["none"].max_difference < 1e-5 < report.max_difference < 0.1


def test_int8_is_int8_throughout_with_a_scale_per_output_channel(converted):
    graph = read_graph(converted["int8"].path.read_bytes())
    assert {graph.tensors[i].dtype for i in (*graph.inputs, *graph.outputs)} == {np.dtype(np.int8)}
    activations = [graph.tensors[i] for each in graph.operators for i in each.outputs]
    assert {tensor.dtype for tensor in activations} == {np.dtype(np.int8)}
    for kind in ("CONV_2D", "FULLY_CONNECTED"):
        for tensor in weights_of(converted["int8"].path.read_bytes(), kind):
            assert tensor.dtype == np.int8
            assert tensor.quantization.scales.length == tensor.shape[0] > 1


def test_dynamic_files_have_dense_layers_that_older_interpreters_know(converted):
    hidden, last = weights_of(converted["dynamic"].path.read_bytes(), "FULLY_CONNECTED")
    assert (hidden.dtype, hidden.quantization.scales.length) == (np.int8, 1)
    assert last.dtype == np.float32  # the converter leaves what is under 1024 weights as it is


def test_the_same_network_and_images_give_the_same_bytes(converted, digits_network, tmp_path: Path):
    options = {"images": digits_network.trained_on, "preprocessing": PREPROCESSING, "quantize": "int8"}
    assert convert(digits_network.keras, tmp_path / "again.tflite", **options).digest == converted["int8"].digest


def test_a_saved_model_and_prepared_inputs_serve_too(digits_network, tmp_path: Path):
    keras.models.load_model(digits_network.keras).export(tmp_path / "saved", verbose=False)
    inputs = PREPROCESSING.apply(digits_network.trained_on.pixels[:40])
    report = convert(tmp_path / "saved", tmp_path / "base.tflite", images=inputs, quantize="int8")
    assert report.images == 40
    assert accuracy(report.path.read_bytes(), digits_network.unseen) > 0.95


def test_int8_needs_images_and_the_kind_must_be_one(digits_network, tmp_path: Path):
    with pytest.raises(ImageDataError, match=r"digits.keras: int8 needs images.*give some"):
        convert(digits_network.keras, tmp_path / "base.tflite", quantize="int8")
    with pytest.raises(ConversionError, match=r"quantize is 'int4': expected one of none, float16, dynamic, int8"):
        convert(digits_network.keras, tmp_path / "base.tflite", quantize="int4")
    assert not list(tmp_path.iterdir())


def test_a_network_that_int8_ruins_is_refused(digits_network, tmp_path: Path):
    """A channel a thousand times as large as before, with readers as much smaller, changes nothing in float32; in
    int8 its range leaves the others less than one step."""
    model = keras.models.load_model(digits_network.keras)
    first, second = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)][:2]
    kernel, bias = first.get_weights()
    reader = second.get_weights()
    middling = int(np.abs(kernel).sum(axis=(0, 1, 2)).argsort()[8])
    kernel[..., middling] *= 1000
    bias[middling] *= 1000
    reader[0][:, :, middling] /= 1000
    first.set_weights([kernel, bias])
    second.set_weights(reader)
    model.save(tmp_path / "uneven.keras")
    options = {"images": digits_network.trained_on, "preprocessing": PREPROCESSING}
    exact = convert(tmp_path / "uneven.keras", tmp_path / "exact.tflite", **options)
    assert accuracy(exact.path.read_bytes(), digits_network.unseen) > 0.95
    with pytest.raises(ConversionError, match=r"uneven.keras: quantised \(int8\), it keeps the top class of only"):
        convert(tmp_path / "uneven.keras", tmp_path / "base.tflite", **options, quantize="int8")
    assert not (tmp_path / "base.tflite").exists()


def test_a_network_whose_outputs_int8_cannot_tell_apart_is_refused(digits_network, tmp_path: Path):
    """One output far above the others: each image keeps its top class, and that is all that is left of them."""
    model = keras.models.load_model(digits_network.keras)
    kernel, bias = model.layers[-1].get_weights()
    bias[3] = 1e6
    model.layers[-1].set_weights([kernel, bias])
    model.save(tmp_path / "towering.keras")
    with pytest.raises(ConversionError, match=r"towering.keras: quantised \(int8\), .* same outputs for all images"):
        convert(
            tmp_path / "towering.keras",
            tmp_path / "base.tflite",
            images=digits_network.trained_on,
            preprocessing=PREPROCESSING,
            quantize="int8",
        )


@pytest.mark.parametrize(("kind", "wrong"), [("float16", 1), ("dynamic", 2), ("int8", 2)])
def test_a_quantised_network_may_differ_as_long_as_enough_top_classes_stay(kind: str, wrong: int):
    reference = 10 * np.eye(4, dtype=np.float32)
    outputs = reference.copy()
    outputs[:wrong] = np.roll(reference[:wrong], 1, axis=1)
    agreement = check_agreement(Path("net.keras"), kind, reference, outputs)
    assert agreement == Agreement(max_difference=1.0, top1=TOP1_AGREEMENT_MIN[kind])
    with pytest.raises(ConversionError, match="net.keras: .* keeps the top class of only .* of 3 images"):
        check_agreement(Path("net.keras"), kind, reference[:3], outputs[:3])
    with pytest.raises(ConversionError, match="net.keras: .* NaN or infinite"):
        check_agreement(Path("net.keras"), kind, reference, np.full_like(reference, np.nan))


def test_the_command_quantises(digits_network, tmp_path: Path, capsys):
    images = digits_network.trained_on
    np.savez(tmp_path / "images.npz", x=images.pixels, y=images.labels, classes=np.array(images.classes))
    command = ["convert", str(digits_network.keras), "-o", str(tmp_path / "base.tflite"), "--quantize", "int8"]
    assert main(command) == 1
    assert "int8 needs images" in capsys.readouterr().err
    command += ["--data", str(tmp_path / "images.npz")]
    assert main([*command, "--json"]) == 0
    fields = json.loads(capsys.readouterr().out)
    assert (fields["quantize"], fields["images"]) == ("int8", 64)
    assert fields["top1_agreement"] > 0.9
    assert main(command) == 0
    assert "same top class as the original" in capsys.readouterr().out
