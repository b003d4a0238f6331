"""Converts a traced TensorFlow function to .tflite in each kind of numbers that files in the wild come in."""

from __future__ import annotations

import contextlib
import os
import warnings

import numpy as np
import tensorflow as tf

from tests.support.legacy_uint8 import to_legacy_uint8

KINDS = ("float32", "float16", "dynamic", "int8", "int8_per_tensor", "int16x8", "uint8")
INTEGER_KINDS = ("int8", "int8_per_tensor", "int16x8", "uint8")

# Operators that a kind cannot have: the converter writes some that LiteRT refuses.
LACKS = {"int16x8": frozenset({"PADV2"})}


def convert(function, kind: str, rng: np.random.Generator) -> bytes:
    """Return the traced `function`, of one input with a batch of 1, as a .tflite file of `kind`."""
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function])
    if kind != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if kind == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if kind == "dynamic":
        converter._experimental_disable_per_channel_quantization_for_dense_layers = bool(rng.integers(2))
    if kind in INTEGER_KINDS:
        shape = function.inputs[0].shape
        images = rng.normal(size=(8, *shape)).astype(np.float32)
        converter.representative_dataset = lambda: ([image] for image in images)
        sixteen = tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
        floats = tf.lite.OpsSet.TFLITE_BUILTINS  # where there is no kernel for integers
        converter.target_spec.supported_ops = [*([sixteen] if kind == "int16x8" else []), floats]
        converter._experimental_disable_per_channel = kind in {"int8_per_tensor", "uint8"}
        if kind != "int16x8" and (kind == "uint8" or rng.integers(2)):
            converter.inference_input_type = converter.inference_output_type = tf.int8
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it misses statistics of quantised inputs, which the images give it
        content = converter.convert()
    return to_legacy_uint8(content) if kind == "uint8" else content


@contextlib.contextmanager
def quiet():
    """Send what the converter prints, from C++ too, nowhere."""
    saved, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)
