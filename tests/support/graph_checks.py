"""What must hold for any network and any cut, checked by running the files."""

from __future__ import annotations

import warnings

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from edge_runtime.flatmodel import (
    BaseModel,
    Part,
    PruningPlan,
    extract,
    normalize,
    read_graph,
    separators,
    takes_any_batch,
)
from edge_runtime.interpreter import LoadedModel
from tests.support.random_cuts import random_cuts
from tests.support.reference import masked_network
from tests.support.tflite_kinds import INTEGER_KINDS

# Of the range of the outputs. Float layers sum in another order when some of their inputs are gone.
FLOAT_TOLERANCE = 1e-5
# Of the outputs: float32 cannot tell numbers apart that are nearer to each other (4 units in the last place).
FLOAT_RESOLUTION = 4 * 2.0**-23


def random_images(base: BaseModel, rng, count=4):
    shape = base.graph.tensors[base.graph.inputs[0]].shape
    return rng.normal(size=(count, *shape[1:])).astype(np.float32)


def outputs(content, images, batch=1):
    """All outputs for each image, one after the other: `(images, values)`."""
    results = LoadedModel(content, batch=batch).run(images)
    return np.concatenate([values.reshape(len(images), -1) for values in results], axis=1)


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
        np.testing.assert_allclose(actual, expected, atol=FLOAT_TOLERANCE * np.ptp(expected), rtol=FLOAT_RESOLUTION)


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


def check_parts(kind, base, cuts, images, rng):
    """What follows an activation is cut like the whole, computes the same, and does so with any batch.

    Return the activation, or None if there is none that all later ones follow from.
    """
    graph = base.graph
    found = separators(graph)
    assert found == [tensor for tensor in _computed(graph) if _separates(graph, tensor)]
    boundaries = [tensor for tensor in found if tensor not in (*graph.inputs, *graph.outputs)]
    if not boundaries:
        return None
    boundary = int(rng.choice(boundaries))
    part = Part(base, boundary, graph.outputs)
    before = extract(bytes(base.content), list(graph.inputs), [boundary])
    values = _activation(before, images)
    assert_same(kind, outputs(part.emit([]), values, _batch(part.emit([]))), outputs(base.content, images))
    # Folds that stand before the boundary change what arrives there.
    cut_before = extract(bytes(base.emit(cuts)), list(graph.inputs), [boundary])
    arriving = _activation(cut_before, images)
    assert part.kept_inputs(values, cuts).shape == arriving.shape
    assert_same(kind, outputs(part.emit(cuts), arriving), outputs(base.emit(cuts), images))
    return boundary


def _activation(content, images):
    return LoadedModel(content, batch=_batch(content)).run(images)[0]


def _batch(content):
    graph = read_graph(content)
    written = [graph.tensors[operator.outputs[0]].dtype for operator in graph.operators if operator.kind == "QUANTIZE"]
    # LiteRT's QUANTIZE to int16 rounds some ties by their place in the tensor, which a batch changes.
    return 3 if takes_any_batch(graph) and np.int16 not in written else 1


def _computed(graph):
    """The input, and all activations, in order of computation."""
    return [graph.inputs[0], *(tensor for operator in graph.operators for tensor in operator.outputs)]


def _separates(graph, boundary):
    """Whether the outputs follow from this activation alone, and anything follows from it."""
    pending, seen = list(graph.outputs), set()
    while pending:
        tensor = pending.pop()
        seen.add(tensor)
        if tensor != boundary and tensor in graph.inputs:
            return False
        if tensor != boundary and tensor in graph.producer:
            pending += [source for source in graph.producer[tensor].inputs if source >= 0 and source not in seen]
    return boundary in seen


def check_plan(base, cuts):
    """A plan survives the wire, and makes the same bytes."""
    plan = PruningPlan(base.digest, tuple(cuts))
    assert base.apply(PruningPlan.from_bytes(plan.to_bytes())) == base.emit(cuts)
