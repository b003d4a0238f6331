"""What must hold for any network and any cut, checked by running the files."""

from __future__ import annotations

import warnings

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from edge_runtime.flatmodel import BaseModel, PruningPlan, normalize, read_graph
from edge_runtime.interpreter import LoadedModel
from tests.support.random_cuts import random_cuts
from tests.support.reference import masked_network
from tests.support.tflite_kinds import INTEGER_KINDS

# Of the range of the outputs. Float layers sum in another order when some of their inputs are gone.
FLOAT_TOLERANCE = 1e-5


def random_images(base: BaseModel, rng, count=4):
    shape = base.graph.tensors[base.graph.inputs[0]].shape
    return rng.normal(size=(count, *shape[1:])).astype(np.float32)


def outputs(content, images):
    return LoadedModel(content).run(images)[0]


def outputs_in_tensorflow(content, images):
    """Run a file in TensorFlow's own interpreter, as older programs do."""
    import tensorflow as tf

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that it is old
        interpreter = tf.lite.Interpreter(model_content=bytes(content), num_threads=1)
    interpreter.allocate_tensors()
    (source,), target = interpreter.get_input_details(), interpreter.get_output_details()[0]
    quantization, results = LoadedModel(content).input_quantization, []
    for image in images if quantization is None else quantization.quantize(images.copy()):
        interpreter.set_tensor(source["index"], image[np.newaxis])
        interpreter.invoke()
        results.append(interpreter.get_tensor(target["index"])[0])
    return np.stack(results)


def assert_same(kind, actual, expected):
    """Integer networks agree bit for bit, float ones but for rounding."""
    if kind in INTEGER_KINDS:
        np.testing.assert_array_equal(actual, expected)
    else:
        scale = max(float(np.ptp(expected)), 1e-3)
        np.testing.assert_allclose(actual, expected, atol=FLOAT_TOLERANCE * scale, rtol=0)


def check_normalizing(kind, content, images):
    """The rewritten base computes what the converter's file does, and is not rewritten again."""
    normalized = normalize(content)
    assert_same(kind, outputs(normalized, images), outputs(content, images))
    assert normalize(normalized) == normalized


def check_cut(kind, base, cuts, images):
    """A cut computes what the masked base does, and its file says the shapes that its operators compute."""
    cut = base.emit(cuts)
    assert_same(kind, outputs(cut, images), outputs(masked_network(base, cuts), images))
    check_shapes(cut)


def check_shapes(content):
    """The shapes in the file are those that the interpreter works out from operators, options and inputs."""
    plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES  # a delegate hides the tensors within it
    interpreter = Interpreter(model_content=bytes(content), num_threads=1, experimental_op_resolver_type=plain)
    interpreter.allocate_tensors()
    computed = {details["index"]: tuple(details["shape"].tolist()) for details in interpreter.get_tensor_details()}
    graph = read_graph(content)
    for operator in graph.operators:
        for tensor in operator.outputs:
            assert computed[tensor] == graph.tensors[tensor].shape, f"{operator.kind} (operator {operator.index})"
    for tensor in graph.tensors:
        assert tensor.quantization is None or tensor.quantization.fits(tensor.shape), tensor.name


def check_cutting_again(kind, base, cuts, images, rng):
    """A cut file is a base like any other, and what could be pruned still can."""
    cut = BaseModel(base.emit(cuts))
    gone = sum(len(cut.pruned) for cut in cuts)
    # Never fewer. A group may have fallen apart, and one that nobody read alone have joined another.
    assert _prunable_units(cut) >= _prunable_units(base) - gone
    check_cut(kind, cut, random_cuts(cut, rng), images)


def _prunable_units(base):
    return sum(base.channels.groups[number].units for number in base.channels.prunable)


def check_plan(base, cuts):
    """A plan survives the wire, and makes the same bytes."""
    plan = PruningPlan(base.digest, tuple(cuts))
    assert base.apply(PruningPlan.from_bytes(plan.to_bytes())) == base.emit(cuts)
