"""A manifest says what its file answers, as closely as interpreters agree on files of that kind."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("tensorflow")

from cloud_pruner.self_tests import self_test_of
from edge_runtime.errors import ModelFileError
from edge_runtime.self_test import run_self_test
from edge_runtime.serving import ServingModel
from tests.edge_runtime.tiny_models import CLASSES, WEST, describe, tflite_file


@pytest.mark.parametrize("quantized", [False, True])
def test_the_file_passes_its_own_test_and_another_does_not(quantized):
    whole, cut = (describe(tflite_file(known, quantized=quantized)) for known in (CLASSES, WEST))
    self_test = self_test_of(whole.content, whole.manifest)
    assert run_self_test(ServingModel(whole), self_test) is None
    assert "self-test image" in run_self_test(ServingModel(cut), self_test)


def test_integers_are_given_more_room_than_floats():
    floats, integers = (
        self_test_of(model.content, model.manifest).tolerance
        for model in (describe(tflite_file(CLASSES, quantized=quantized)) for quantized in (False, True))
    )
    assert 0 < floats <= 0.01
    assert floats < integers < 0.5


def test_every_model_is_asked_about_its_own_images():
    tests = [self_test_of(model.content, model.manifest) for model in map(describe, map(tflite_file, (CLASSES, WEST)))]
    assert tests[0].seed != tests[1].seed
    for test in tests:
        for image in test.expected:
            assert [share for _, share in image] == sorted((share for _, share in image), reverse=True)
            assert np.sum([share for _, share in image]) == pytest.approx(1.0, abs=1e-5)  # of 4 classes all are named


def test_a_file_that_no_device_could_use():
    model = describe(b"no model at all")
    with pytest.raises(ModelFileError):
        self_test_of(model.content, model.manifest)
