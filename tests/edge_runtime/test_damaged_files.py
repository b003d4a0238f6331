"""Damaged and hostile files: a clear error or a right result, within bounds of time and memory."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from edge_runtime.errors import ModelFileError
from edge_runtime.flatmodel import BaseModel, normalize, read_graph
from tests.fuzz.memory import MIB, memory_below
from tests.fuzz.mutate_files import amplified
from tests.fuzz.seeds import quantized
from tests.fuzz.structure import places_of, tables_in
from tests.support.tflite_builder import SequentialBuilder

OPERATOR, OPTIONS = schema.BuiltinOperator, schema.BuiltinOptions


def builder(side=6, seed=1):
    return SequentialBuilder((side, side, 2), np.random.default_rng(seed))


@pytest.fixture
def network():
    """conv - pool - conv - flatten - dense - dense, as a converter leaves it."""
    return builder().conv(6).pool().conv(4).flatten().dense(5).dense(3, activation=0).build()


@pytest.fixture
def normalised(network):
    return normalize(network)


def with_numbers(content, *changes):
    """Return `content` with 4-byte numbers changed: pairs of a position and a value."""
    broken = bytearray(content)
    for position, value in changes:
        struct.pack_into("<I", broken, position, value & 0xFFFFFFFF)
    return bytes(broken)


def places(content, label):
    return places_of(content)[label]


def redirected(content, place, target):
    """Return `content` with the offset at `place` leading to `target`."""
    return with_numbers(content, (place.position, target - place.position))


class TestNoFile:
    def test_no_tflite(self):
        with pytest.raises(ModelFileError, match="my.tflite: not a .tflite file"):
            read_graph(b"PK\x03\x04 something else entirely", "my.tflite")

    def test_truncated_anywhere_is_an_error_or_reads(self, network):
        refused = 0
        for length in range(0, len(network), 37):
            try:
                read_graph(network[:length])
            except ModelFileError:
                refused += 1
        assert refused > len(network) / 37 * 0.5


class TestFlatbuffer:
    """The format's own numbers: offsets, vtables and lengths."""

    def test_a_table_without_room_for_its_fields(self, network):
        table = places(network, "Tensor back")[0].points_to
        broken = bytearray(network)
        struct.pack_into("<H", broken, table + 2, 2)
        with pytest.raises(ModelFileError, match="the vtable at .* has fields outside of its tables"):
            read_graph(bytes(broken))

    def test_a_field_outside_of_its_table(self, network):
        table = places(network, "Tensor back")[0].points_to
        broken = bytearray(network)
        size = struct.unpack_from("<H", broken, table + 2)[0]
        struct.pack_into("<H", broken, table + 4, size - 2)
        with pytest.raises(ModelFileError, match="field 0 of the table at .* lies outside of it"):
            read_graph(bytes(broken))

    def test_a_list_longer_than_the_file(self, network):
        length = places(network, "Operator.1 length")[0]
        with pytest.raises(ModelFileError, match="a list of 4294967295 items"):
            read_graph(with_numbers(network, (length.position, -1)))

    def test_thousands_of_tensors_that_are_all_one_with_a_long_name(self, network):
        hostile = with_list(network, "SubGraph.0", 3000, b"name" * 3000)
        with memory_below(64 * len(hostile) + MIB), pytest.raises(ModelFileError, match="hold far more than the file"):
            read_graph(hostile)

    @pytest.mark.parametrize("size", [1 << 12, 1 << 15, 1 << 18])
    @pytest.mark.parametrize("label", ["SubGraph.0", "Model.4", "Model.6"])
    def test_reading_takes_memory_in_proportion_to_the_file(self, label, size):
        """As many entries as a file of this size may have, most of which is padding."""
        network = builder().conv(6).conv(4).mean().dense(3, activation=0)
        content = normalize(quantized(network)) + bytes(size)
        hostile = with_list(content, label, size // 22)
        with memory_below(64 * len(hostile) + MIB):
            read_graph(hostile)


def with_list(content, label, entries, items=None):
    """Return `content` with a list of `entries` entries that are all its first one, which has `items` for lists."""
    found = places_of(content)
    vector, table = found[f"{label} offset"][0].position, tables_in(found, label)[0]
    return amplified(content, content, vector, table, entries, items)


class TestShapes:
    def test_more_dimensions_than_any_interpreter_has(self):
        tall = builder().conv(4).mean().dense(3, activation=0)
        tall.graph.tensors[0].shape = np.ones(65, np.int32)
        with pytest.raises(ModelFileError, match="tensor 0 has 65 dimensions"):
            read_graph(tall.build())

    @pytest.mark.parametrize("sides", [[-1, 6, 6, 2], [1 << 30] * 4, [0, *[1 << 30] * 3]])
    def test_sides_that_no_tensor_has(self, sides):
        wide = builder().conv(4).mean().dense(3, activation=0)
        wide.graph.tensors[0].shape = np.array(sides, np.int32)
        with pytest.raises(ModelFileError, match="tensor 0 has the shape"):
            read_graph(wide.build())

    def test_a_huge_map_flattened_to_millions_of_channels(self):
        network = with_maps(builder().conv(8), 2000)
        shape = (1, 2000 * 2000 * 8)
        network._operator(OPERATOR.RESHAPE, [network._constant(np.array(shape, np.int32))], shape)
        with memory_below(MIB), pytest.raises(ModelFileError, match="more than 8388608 channels"):
            BaseModel(normalize(network.build()))

    def test_a_map_flattened_to_pixels_of_channels(self):
        """(1, 500, 500, 8) to (1, 250000, 8): the labels of the last axis are found without looking at every pixel."""
        network = with_maps(builder().conv(8), 500)
        network._operator(OPERATOR.RESHAPE, [network._constant(np.array([1, 250000, 8], np.int32))], (1, 250000, 8))
        with memory_below(4 * MIB):
            channels = BaseModel(normalize(network.build())).channels
        assert channels.axes[network.output][2].tolist() == list(range(8))

    def test_padding_by_millions_of_channels(self):
        hostile = builder().conv(4)
        amounts = hostile._constant(np.array([[0, 0], [0, 0], [0, 0], [0, 1 << 25]], np.int32))
        hostile._operator(OPERATOR.PAD, [amounts], (1, 6, 6, 4 + (1 << 25)))
        with memory_below(300 * MIB), pytest.raises(ModelFileError, match="more than 8388608 channels"):
            BaseModel(normalize(hostile.build()))

    def test_millions_of_channels_in_blocks(self):
        hostile = builder().conv(4)
        hostile._operator(OPERATOR.SPACE_TO_DEPTH, [], (1, 1, 1, 1 << 20))
        hostile._operator(OPERATOR.DEPTH_TO_SPACE, [], (1, 512, 512, 1))
        with memory_below(300 * MIB):
            BaseModel(normalize(hostile.build()))

    def test_a_tensor_without_channels(self):
        hostile = builder().conv(4)
        hostile._operator(OPERATOR.SPACE_TO_DEPTH, [], (1, 6, 6, 0))
        with pytest.raises(ModelFileError, match="has no channels"):
            BaseModel(normalize(hostile.build()))


def with_maps(network, side):
    """Return the network with maps of `side` x `side`, whatever its layers say."""
    for tensor in network.graph.tensors:
        if tensor.buffer == 0 and len(tensor.shape) == 4:
            tensor.shape = np.array([1, side, side, tensor.shape[3]], np.int32)
    return network


class TestQuantization:
    def test_more_zero_points_than_scales(self):
        network = quantized(builder().conv(4).mean().dense(3, activation=0))
        zero_points = places(network, "Quantization.3 length")[0]
        with pytest.raises(ModelFileError, match="scales have 2 zero points"):
            read_graph(with_numbers(network, (zero_points.position, 2)))


class TestOperators:
    def test_options_of_another_kind(self):
        network = builder().conv(4).mean().dense(3, activation=0)
        network.graph.operators[0].builtinOptionsType = OPTIONS.SoftmaxOptions
        network.graph.operators[0].builtinOptions = schema.SoftmaxOptionsT()
        with pytest.raises(ModelFileError, match=r"operator 0 \(CONV_2D\) has the options of another kind"):
            read_graph(network.build())

    def test_a_custom_operator_with_a_name_that_breaks_lines(self):
        network = builder().conv(4).relu()
        network.model.operatorCodes[1].builtinCode, network.model.operatorCodes[1].customCode = OPERATOR.CUSTOM, "a\nb"
        with pytest.raises(ModelFileError, match="has a name that cannot be shown"):
            read_graph(network.build())

    def test_operators_in_a_circle(self, network):
        inputs = places(network, "Operator.1 item")
        last = read_graph(network).operators[-1].outputs[0]
        with pytest.raises(ModelFileError, match="reads tensor .*, which is only computed later"):
            read_graph(with_numbers(network, (inputs[0].position, last)))

    def test_weights_dequantised_to_another_shape(self):
        network = builder().conv(4).conv(4).mean().dense(3, activation=0)
        second = network.graph.operators[1]
        wrong = network._activation((7, 3, 3, 4), "dequantized")
        dequantize = schema.OperatorT()
        dequantize.opcodeIndex = network._code(OPERATOR.DEQUANTIZE)
        dequantize.inputs, dequantize.outputs = second.inputs[1:2].copy(), np.array([wrong], np.int32)
        network.graph.operators.insert(1, dequantize)
        second.inputs[1] = wrong
        first = BaseModel(normalize(network.build())).channels.groups[0]
        assert any("changes the shape of its weights" in reason for reason in first.barriers)


class TestLayout:
    """A normalised file, whose metadata a cut changes in place."""

    def test_two_tensors_with_one_shape(self):
        content = normalize(builder().conv(4).relu().build())
        shapes = {tensor.name: tensor.shape_at - 4 for tensor in read_graph(content).tensors}
        before, after = shapes["activation_0"], shapes["activation_1"]
        place = next(place for place in places(content, "Tensor.0 offset") if place.points_to == min(before, after))
        hostile = redirected(content, place, max(before, after))
        with pytest.raises(ModelFileError, match="pieces of its metadata overlap"):
            BaseModel(hostile)

    def test_a_shape_among_the_constants(self, normalised):
        shape, constant = places(normalised, "Tensor.0 offset")[0], places(normalised, "constant size")[0]
        inside = constant.position + 8
        sides = [(inside + 4 * i, number) for i, number in enumerate((4, 1, 6, 6, 2))]
        hostile = with_numbers(redirected(normalised, shape, inside), *sides)
        with pytest.raises(ModelFileError, match="some of its metadata lies among the constants"):
            BaseModel(bytes(hostile))

    def test_a_second_subgraph_whose_shapes_no_cut_would_change(self, network, normalised):
        with pytest.raises(ModelFileError, match="2 subgraphs"):
            normalize(with_list(network, "Model.2", 2))
        with pytest.raises(ModelFileError, match="2 subgraphs"):
            BaseModel(with_list(normalised, "Model.2", 2))

    @pytest.mark.parametrize("value", [0, 8, 1 << 31, (1 << 32) - 1])
    def test_a_start_of_the_constants_that_is_not_theirs(self, normalised, value):
        start = places(normalised, "layout item")[1]
        with pytest.raises(ModelFileError):
            BaseModel(with_numbers(normalised, (start.position, value)))


class TestNormalising:
    """The object API makes an object of everything that a file points to, however often."""

    def test_signatures_by_the_thousand(self):
        annotated = builder().conv(4).mean().dense(3, activation=0)
        signature, entry = schema.SignatureDefT(), schema.TensorMapT()
        signature.inputs, signature.outputs, signature.signatureKey = [entry], [entry], "serve"
        annotated.model.signatureDefs = [signature]
        content = annotated.build()
        hostile = with_list(with_list(content, "SignatureDef.0", 1000), "Model.7", 1000)
        with memory_below(64 * len(hostile) + MIB), pytest.raises(ModelFileError):
            normalize(hostile)

    def test_one_constant_of_hundreds_of_layers(self):
        shared = builder(side=2).conv(64, 3)
        for _ in range(300):
            shared.conv(64, 3)
            first, last = shared.graph.operators[1], shared.graph.operators[-1]
            last.inputs[1:] = first.inputs[1:]
        for buffer in shared.model.buffers[5:]:
            buffer.data = None
        with pytest.raises(ModelFileError, match="copies of the constants .* would take"):
            normalize(shared.build())

    def test_a_layer_without_bias_that_claims_billions_of_channels(self):
        hostile = builder().conv(4, bias=False).mean().dense(3, activation=0)
        hostile.graph.tensors[hostile.graph.operators[0].outputs[0]].shape[3] = (1 << 31) - 1
        with memory_below(64 * MIB), pytest.raises(ModelFileError, match="would take"):
            normalize(hostile.build())

    def test_a_zip_bomb_behind_the_model(self, network):
        packed = io.BytesIO(network)
        packed.seek(0, io.SEEK_END)
        with zipfile.ZipFile(packed, "a", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("labels.txt", bytes(65 * MIB))
        with memory_below(8 * MIB), pytest.raises(ModelFileError, match="more than 64 MiB"):
            normalize(packed.getvalue())


def test_thousands_of_damaged_files_and_plans(tmp_path):
    """The short form of `python -m tests.fuzz --minutes 60`, with numbers of its own."""
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "tests.fuzz", "--inputs", "3000", "--seed", "0", "--findings", str(tmp_path)]
    run = subprocess.run(
        command, capture_output=True, text=True, cwd=root, env={**os.environ, "OPENBLAS_NUM_THREADS": "1"}, check=False
    )
    hint = "see one again with `python -m tests.fuzz --only NUMBER`"
    assert run.returncode == 0, f"{run.stdout}\n{run.stderr}\n{hint}"
    # It must not have been idle: thousands refused, hundreds cut.
    for outcome in ("normalised: cut", "normalised: refused while reading", "plain: normalised, cut", "plan: applied"):
        count = int(next(line for line in run.stdout.splitlines() if line.endswith(outcome)).split()[0])
        assert count > 20, run.stdout
