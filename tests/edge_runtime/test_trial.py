"""Models are tried in a process of their own: with the real interpreter, and files on which it really dies."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from edge_runtime import trial
from edge_runtime.errors import ModelFileError
from edge_runtime.self_test import expected_answer, self_test_images
from edge_runtime.serving import ServingModel
from edge_runtime.trial import try_model
from edge_runtime.wire import SelfTest
from tests.edge_runtime.tiny_models import CLASSES, describe, tflite_file

if TYPE_CHECKING:
    from edge_runtime.slots import StoredModel


def with_self_test(stored: StoredModel, *, seed: int = 1, images: int = 4, tolerance: float = 1e-4) -> StoredModel:
    """Return the model with a self-test of its own answers, as the cloud writes it."""
    model = ServingModel(stored)
    pixels = self_test_images(seed, images, model.manifest.preprocessing.shape)
    expected = tuple(expected_answer(model.probabilities(image)) for image in pixels)
    return replace(stored, manifest=replace(stored.manifest, self_test=SelfTest(seed, expected, tolerance)))


def int8_sum(scale: float) -> bytes:
    """Return a model that adds its int8 input to itself, with outputs of the given scale."""
    model, graph, code, step = schema.ModelT(), schema.SubGraphT(), schema.OperatorCodeT(), schema.OperatorT()
    graph.tensors = []
    for number in (1.0, scale):
        tensor = schema.TensorT()
        tensor.shape, tensor.buffer, tensor.name = np.array([1, 4], np.int32), 0, f"tensor_{len(graph.tensors)}"
        tensor.type, tensor.quantization = schema.TensorType.INT8, schema.QuantizationParametersT()
        tensor.quantization.scale = np.array([number], np.float32)
        tensor.quantization.zeroPoint = np.array([0], np.int64)
        graph.tensors.append(tensor)
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.ADD
    code.version, step.opcodeIndex = 2, 0
    step.inputs, step.outputs = np.array([0, 0], np.int32), np.array([1], np.int32)
    step.builtinOptionsType, step.builtinOptions = schema.BuiltinOptions.AddOptions, schema.AddOptionsT()
    graph.inputs, graph.outputs, graph.operators = np.array([0], np.int32), step.outputs, [step]
    model.version, model.buffers, model.operatorCodes, model.subgraphs = 3, [schema.BufferT()], [code], [graph]
    builder = flatbuffers.Builder(256)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


@pytest.fixture(scope="module")
def int8_file() -> bytes:
    return tflite_file(CLASSES, quantized=True)


@pytest.mark.parametrize("kind", ["float32", "int8"])
def test_a_sound_model_passes_its_self_test(base_file: bytes, int8_file: bytes, kind: str):
    stored = with_self_test(describe(base_file if kind == "float32" else int8_file))

    try_model(stored.content, stored.manifest, threads=1)


def test_a_model_without_a_self_test_is_run_once(base: StoredModel):
    try_model(base.content, base.manifest, threads=2)


def test_a_file_on_which_the_interpreter_aborts_costs_a_child_process():
    # As calibration leaves a residual addition whose layers are dead: its outputs have a range of almost nothing.
    stored = describe(int8_sum(1e-9))

    with pytest.raises(ModelFileError, match=r"model [0-9a-f]{12}: the interpreter aborted \(SIGABRT\) in its trial"):
        try_model(stored.content, stored.manifest, threads=1)


def test_the_interpreters_refusal_comes_back_word_for_word(base: StoredModel):
    cut_off = describe(base.content[: len(base.content) // 2])

    with pytest.raises(ModelFileError) as tried:
        try_model(cut_off.content, cut_off.manifest, threads=1)
    with pytest.raises(ModelFileError) as served:
        ServingModel(cut_off)
    assert str(tried.value) == str(served.value)


@pytest.mark.parametrize("kind", ["float32", "int8"])
def test_a_model_that_answers_something_else_is_refused(
    base_file: bytes, west_file: bytes, int8_file: bytes, kind: str
):
    meant = with_self_test(describe(base_file if kind == "float32" else int8_file), tolerance=0.1)
    other = describe(west_file)
    manifest = replace(other.manifest, self_test=meant.manifest.self_test)

    with pytest.raises(
        ModelFileError, match=r"self-test image \d: class \d has probability 0\.\d{4}, expected 0\.\d{4}"
    ):
        try_model(other.content, manifest, threads=1)


def test_a_self_test_of_more_classes_than_there_are_is_refused(base: StoredModel):
    manifest = replace(base.manifest, self_test=SelfTest(1, (((4, 0.5),),), 0.1))

    with pytest.raises(ModelFileError, match="self-test image 0: names class 4 of 4"):
        try_model(base.content, manifest, threads=1)


def test_content_that_is_not_the_manifests_is_refused_in_the_child_too(base: StoredModel, west: StoredModel):
    with pytest.raises(ModelFileError, match="digest is"):
        try_model(west.content, base.manifest, threads=1)


def test_a_trial_has_an_end(base: StoredModel, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(trial, "TRIAL_S", 0.05)
    monkeypatch.setattr(trial, "_CHILD", "while True: pass")

    with pytest.raises(ModelFileError, match=r"its trial took longer than 0.05 s"):
        try_model(base.content, base.manifest, threads=1)


def test_a_trial_that_is_ended_from_outside_says_so(base: StoredModel, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(trial, "_CHILD", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")

    with pytest.raises(ModelFileError, match=r"ended from outside \(SIGKILL; is memory short\?\)"):
        try_model(base.content, base.manifest, threads=1)


def test_a_trial_that_takes_far_too_much_memory_ends_by_itself(base: StoredModel, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        trial,
        "_CHILD",
        "import sys; sys.path[:] = sys.argv[1:]\n"
        "from edge_runtime import self_test, trial\n"
        "self_test.run_self_test = lambda *_: bytes(4 << 30)\n"
        "trial.main()",
    )
    stored = with_self_test(base)

    with pytest.raises(ModelFileError, match="takes far more memory than a file of"):
        try_model(stored.content, stored.manifest, threads=1)
