"""Models run in real values, whatever their files store: float32, or integers with a scale and a zero point."""

from __future__ import annotations

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from edge_runtime.errors import InputError, ModelFileError
from edge_runtime.interpreter import AffineQuantization, LoadedModel
from tests.edge_runtime.tiny_models import CLASSES, pixels, tflite_file

TYPES = {"float32": schema.TensorType.FLOAT32, "int8": schema.TensorType.INT8, "uint8": schema.TensorType.UINT8,
         "int16": schema.TensorType.INT16}  # fmt: skip

# (dtype, scale, zero point): that of images from 0 to 255, of normalised ones, of activations behind a ReLU.
QUANTIZATIONS = [("int8", 1.0, -128), ("int8", 0.018658, -14), ("int8", 0.0207, -128), ("uint8", 1 / 128, 128),
                 ("int16", 1 / 9000, 0)]  # fmt: skip


def one_operator(operator, taken, given, values=4):
    """Return a model of one operator; `taken` and `given` are "float32" or (dtype, scale, zero point)."""
    model, graph, code, step = schema.ModelT(), schema.SubGraphT(), schema.OperatorCodeT(), schema.OperatorT()
    graph.tensors = []
    for kind in (taken, given):
        tensor = schema.TensorT()
        tensor.shape, tensor.buffer, tensor.name = np.array([1, values], np.int32), 0, f"tensor_{len(graph.tensors)}"
        tensor.type = TYPES[kind if isinstance(kind, str) else kind[0]]
        if not isinstance(kind, str):
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.scale = np.array([kind[1]], np.float32)
            tensor.quantization.zeroPoint = np.array([kind[2]], np.int64)
        graph.tensors.append(tensor)
    code.builtinCode = code.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, operator)
    code.version, step.opcodeIndex = 2, 0
    step.inputs, step.outputs = np.array([0], np.int32), np.array([1], np.int32)
    graph.inputs, graph.outputs, graph.operators = step.inputs, step.outputs, [step]
    model.version, model.buffers, model.operatorCodes, model.subgraphs = 3, [schema.BufferT()], [code], [graph]
    builder = flatbuffers.Builder(256)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def stored_by_litert(content, sample):
    """What the interpreter itself leaves in the output tensor."""
    interpreter = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    interpreter.set_tensor(0, sample[np.newaxis])
    interpreter.invoke()
    return interpreter.get_tensor(1)[0]


@pytest.mark.parametrize("quantization", QUANTIZATIONS, ids=str)
def test_quantising_is_what_litert_does(quantization):
    dtype, scale, zero_point = quantization
    limits = np.iinfo(dtype)
    # Halves between two integers, their neighbours, values in between, and values out of range on both sides.
    halves = np.arange(limits.min - 3, limits.max + 3, max(1, limits.max // 400)) + 0.5 - zero_point
    ties = (halves * scale).astype(np.float32)
    random = np.random.default_rng(0).normal(0, limits.max * scale, 2000).astype(np.float32)
    values = np.concatenate([ties, np.nextafter(ties, np.inf), np.nextafter(ties, -np.inf), random, 9 * random])
    stored = AffineQuantization(scale, zero_point, np.dtype(dtype)).quantize(values)
    np.testing.assert_array_equal(
        stored, stored_by_litert(one_operator("QUANTIZE", "float32", quantization, len(values)), values)
    )
    assert (stored.min(), stored.max()) == (limits.min, limits.max)


@pytest.mark.parametrize("quantization", QUANTIZATIONS, ids=str)
def test_dequantising_is_what_litert_does_and_quantising_undoes_it(quantization):
    dtype, scale, zero_point = quantization
    stored = np.arange(np.iinfo(dtype).min, np.iinfo(dtype).max + 1).astype(dtype)
    affine = AffineQuantization(scale, zero_point, np.dtype(dtype))
    real = affine.dequantize(stored)
    expected = stored_by_litert(one_operator("DEQUANTIZE", quantization, "float32", len(stored)), stored)
    np.testing.assert_array_equal(real, expected)
    np.testing.assert_array_equal(affine.quantize(real), stored)


def test_an_integer_model_takes_and_gives_real_values():
    model = LoadedModel(one_operator("QUANTIZE", ("int8", 0.5, -3), ("int8", 0.25, 5)))
    samples = np.array([[-1.5, 0, 0.6, 20], [100, -100, 0.24, 3]], np.float32)
    (outputs,) = model.run(samples)
    assert outputs.dtype == np.float32
    # The second image is limited by what the input can hold (-62.5 to 65), then by what the output can (-33.25, 30.5).
    np.testing.assert_array_equal(outputs, [[-1.5, 0, 0.5, 20], [30.5, -33.25, 0, 3]])
    assert model.input_quantization == AffineQuantization(0.5, -3, np.dtype(np.int8))
    assert model.input_dtype == np.int8


def test_samples_that_are_stored_integers_already_go_in_as_they_are():
    model = LoadedModel(one_operator("DEQUANTIZE", ("uint8", 0.5, 10), "float32"))
    (outputs,) = model.run(np.array([[0, 10, 12, 255]], np.uint8))
    np.testing.assert_array_equal(outputs, [[-5, 0, 1, 122.5]])


def test_an_integer_model_refuses_what_it_cannot_store():
    model = LoadedModel(one_operator("DEQUANTIZE", ("int8", 0.5, 10), "float32"), name="base.tflite")
    with pytest.raises(InputError, match=r"base.tflite: samples have NaN, which int8 cannot hold"):
        model.run(np.array([[0, np.nan, 1, 2]], np.float32))
    with pytest.raises(InputError, match=r"base.tflite: takes float32 \(or quantised int8\) samples, got uint8"):
        model.run(np.zeros((1, 4), np.uint8))


def test_integers_without_a_scale_are_not_touched():
    model = LoadedModel(tflite_file(CLASSES, dtype="uint8"))
    assert model.input_quantization is None
    with pytest.raises(InputError, match=r"takes uint8 samples, got float32"):
        model.run(np.zeros((1, 8, 8, 1), np.float32))
    assert model.run(np.array([pixels(label) for label in CLASSES]))[0].argmax(axis=1).tolist() == [0, 1, 2, 3]


def test_a_float32_model_takes_float32_only(base_file: bytes):
    model = LoadedModel(base_file, name="base.tflite")
    assert (model.input_dtype, model.input_quantization) == (np.float32, None)
    assert (model.input_shape, model.output_shapes) == ((8, 8, 1), [(4,)])
    with pytest.raises(InputError, match="base.tflite: takes float32 samples, got uint8"):
        model.run(np.zeros((1, 8, 8, 1), np.uint8))
    with pytest.raises(InputError, match=r"takes samples of shape \(8, 8, 1\), got \(8, 8, 3\)"):
        model.run(np.zeros((1, 8, 8, 3), np.float32))


def test_samples_go_through_in_chunks_that_change_nothing():
    content = one_operator("QUANTIZE", ("int8", 0.5, -3), ("int8", 0.25, 5))
    samples = np.random.default_rng(0).normal(0, 10, (7, 4)).astype(np.float32)
    expected = LoadedModel(content).run(samples)[0]
    np.testing.assert_array_equal(LoadedModel(content, batch=3).run(samples)[0], expected)
    assert LoadedModel(content, batch=3).run(samples[:0])[0].shape == (0, 4)


def test_what_is_no_model_is_refused():
    with pytest.raises(ModelFileError, match="base.tflite: the interpreter refuses it"):
        LoadedModel(b"TFL3 is not enough", name="base.tflite")
