"""What can be pruned of a model, and what stands in the way: figures that follow from the network, and their tables."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import struct
import subprocess
import sys
import termios
import zipfile

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from cloud_pruner.cli import main
from cloud_pruner.images import ImageSet
from cloud_pruner.inspection import inspect_model
from edge_runtime.flatmodel import BaseModel, LayerCut, normalize, read_graph
from tests.support.random_blocks import BLOCKS
from tests.support.random_cuts import random_cuts
from tests.support.random_graphs import random_graph
from tests.support.tflite_builder import SequentialBuilder


def plain_network() -> SequentialBuilder:
    """conv 6 - pool - conv 10 - flatten (16 pixels) - dense 12 - dense 5."""
    builder = SequentialBuilder((8, 8, 3), np.random.default_rng(1))
    return builder.conv(6).pool().conv(10).flatten().dense(12).dense(5, activation=0)


def inspected(content: bytes):
    return inspect_model(BaseModel(normalize(content)))


def graph_with(block: str, kind: str = "float32") -> BaseModel:
    """A random network that has a block of this kind, by the converter."""
    return BaseModel(normalize(random_graph(kind, list(BLOCKS).index(block)).content))


class TestASequentialNetwork:
    def test_its_layers(self):
        layers = inspected(plain_network().build()).layers
        assert [layer.kind for layer in layers] == ["CONV_2D", "CONV_2D", "FULLY_CONNECTED", "FULLY_CONNECTED"]
        assert [layer.operator for layer in layers] == [0, 2, 4, 5]
        assert [layer.weights for layer in layers] == [(6, 3, 3, 3), (10, 3, 3, 6), (12, 160), (5, 12)]
        assert {layer.dtype for layer in layers} == {"float32"}
        assert [layer.output for layer in layers] == [(1, 8, 8, 6), (1, 4, 4, 10), (1, 12), (1, 5)]
        assert [layer.parameters for layer in layers] == [6 * 27 + 6, 10 * 54 + 10, 12 * 160 + 12, 5 * 12 + 5]
        assert [layer.macs for layer in layers] == [64 * 6 * 27, 16 * 10 * 54, 12 * 160, 5 * 12]
        assert [layer.groups for layer in layers] == [(0,), (1,), (2,), (3,)]
        assert [layer.units for layer in layers] == [6, 10, 12, 5]
        assert [layer.prunable_units for layer in layers] == [6, 10, 12, 0]

    def test_its_groups(self):
        groups = inspected(plain_network().build()).groups
        assert [(group.layers, group.readers) for group in groups] == [
            ((0,), (2,)),
            ((2,), (4,)),
            ((4,), (5,)),
            ((5,), ()),
        ]
        # Rows and bias of the layer that makes them, columns of the one that reads them.
        assert [group.parameters for group in groups] == [168 + 540, 550 + 1920, 1932 + 60, 65]
        assert [group.reasons for group in groups] == [(), (), (), ("network output",)]

    @pytest.mark.parametrize("number", [0, 1, 2])
    def test_half_of_a_groups_units_takes_half_of_its_parameters(self, number: int):
        base = BaseModel(normalize(plain_network().build()))
        group = base.channels.groups[number]
        half = LayerCut(group.tensors[0], group.units, np.arange(0, group.units, 2))
        gone = base.graph.parameters - read_graph(base.emit([half])).parameters
        assert gone == inspect_model(base).groups[number].parameters // 2

    def test_its_totals(self):
        inspection = inspected(plain_network().build())
        assert inspection.parameters == 168 + 550 + 1932 + 65
        assert inspection.prunable_share == pytest.approx((168 + 550 + 1932) / inspection.parameters)
        assert inspection.macs == sum(layer.macs for layer in inspection.layers)
        assert (inspection.not_understood, inspection.not_costed) == ({}, {})
        assert [(tensor.dtype, tensor.shape) for tensor in (*inspection.inputs, *inspection.outputs)] == [
            ("float32", (1, 8, 8, 3)),
            ("float32", (1, 5)),
        ]
        assert (inspection.metadata, inspection.signatures, inspection.packed_files) == ((), (), ())


def test_a_layer_with_int8_weights():
    inspection = inspected(plain_network().quantize_last_weights().build())
    assert [layer.dtype for layer in inspection.layers][-2:] == ["float32", "int8 per channel"]


def test_an_operator_that_is_not_understood_is_named_with_the_channels_that_it_holds():
    builder = SequentialBuilder((8, 8, 3), np.random.default_rng(1)).conv(6).cumulative_sum().conv(4).flatten().dense(5)
    inspection = inspected(builder.build())
    assert inspection.not_understood == {"CUMSUM": 1}
    assert [layer.prunable_units for layer in inspection.layers] == [0, 4, 0]
    assert inspection.groups[0].reasons == ("CUMSUM (operator 1) is not understood",)
    assert not inspection.groups[0].prunable


def with_a_custom_operator() -> SequentialBuilder:
    """conv 6 - an operator that only its author knows - conv 4."""
    builder = SequentialBuilder((8, 8, 3), np.random.default_rng(1)).conv(6)
    builder._operator(schema.BuiltinOperator.CUSTOM, [], builder._shape())
    builder.model.operatorCodes[-1].customCode = "Mystery"
    return builder.conv(4)


def test_what_has_no_cost_model_is_named_and_the_others_keep_theirs():
    inspection = inspected(with_a_custom_operator().build())
    assert inspection.not_costed == inspection.not_understood == {"CUSTOM:Mystery": 1}
    assert [layer.macs for layer in inspection.layers] == [64 * 6 * 27, 64 * 4 * 54]


def test_residual_layers_share_a_group():
    """Layers whose channels are added are made by several, and cut together."""
    base = graph_with("inverted_residual")
    inspection = inspect_model(base)
    kinds = {layer.operator: layer.kind for layer in inspection.layers}
    assert any([kinds[layer] for layer in group.layers].count("CONV_2D") > 1 for group in inspection.groups)


def test_a_depthwise_layer_hands_its_channels_on():
    inspection = inspect_model(graph_with("separable"))
    (depthwise,) = (layer for layer in inspection.layers if layer.kind == "DEPTHWISE_CONV_2D")
    for number in depthwise.groups:
        assert depthwise.operator in inspection.groups[number].layers
        assert depthwise.operator not in inspection.groups[number].readers


@pytest.mark.parametrize("kind", ["float32", "float16", "dynamic", "int8", "uint8"])
@pytest.mark.parametrize("block", ["residual", "dense_block", "grouped_convolution", "inception"])
def test_what_hangs_on_a_group_is_what_goes_with_its_units(block: str, kind: str):
    """A cut of some takes a part of it, and never more; also where both sides of the weights are of one group."""
    base = graph_with(block, kind)
    whole = inspect_model(base)
    cuts = [cut for cut in random_cuts(base, np.random.default_rng(0), folds=("none",)) if len(cut.pruned)]
    assert cuts
    for cut in cuts:
        gone = whole.parameters - read_graph(base.emit([cut])).parameters
        assert 0 < gone <= whole.groups[base.channels.group_of(cut.tensor)].parameters


@pytest.mark.parametrize("kind", ["float32", "float16", "dynamic", "int8", "uint8"])
def test_every_parameter_is_in_one_layer(kind: str):
    """But for single numbers, as the half of `x + 0.5`, which are no layer's weights."""
    base = graph_with("inverted_residual", kind)
    inspection = inspect_model(base)
    alone = sum(tensor.size == 1 and tensor.quantization is None for tensor in base.graph.tensors if tensor.is_constant)
    assert (
        inspection.parameters - alone <= sum(layer.parameters for layer in inspection.layers) <= inspection.parameters
    )


def test_resnet8_has_the_macs_that_mlperf_tiny_says(capnn_data, tmp_path):
    """12.5 million (Banbury et al., "MLPerf Tiny Benchmark", 2021), in float32 and in int8 alike."""
    from benchmarks.data import load_cifar
    from benchmarks.networks import cifar10_mlperf_resnet8 as resnet
    from cloud_pruner.conversion import convert

    resnet.build().save(tmp_path / "model.keras")
    images = ImageSet(*load_cifar("cifar10_test", 10))
    for kind, dtype in (("none", "float32"), ("int8", "int8 per channel")):
        path = tmp_path / f"{kind}.tflite"
        convert(tmp_path / "model.keras", path, images=images, preprocessing=resnet.PREPROCESSING, quantize=kind)
        inspection = inspected(path.read_bytes())
        assert inspection.macs == pytest.approx(12.5e6, rel=1e-3)
        assert {layer.dtype for layer in inspection.layers} == {dtype}
        assert len(inspection.layers) == 10
        # Three residual streams, three convolutions inside of blocks, the classes.
        assert [len(group.layers) for group in inspection.groups] == [2, 1, 1, 2, 1, 2, 1]
        assert [group.prunable for group in inspection.groups] == [*[True] * 6, False]


class TestTheCommand:
    @pytest.fixture
    def path(self, tmp_path):
        path = tmp_path / "model.tflite"
        path.write_bytes(plain_network().softmax().build())
        return path

    def test_it_prints_tables(self, path, capsys):
        assert main(["inspect", str(path)]) == 0
        out = capsys.readouterr().out
        assert f"{path}: 4 operators with weights" in out
        assert "FULLY_CONNECTED activation_5" in out
        assert "4 channel groups" in out
        assert "no: SOFTMAX (operator 6) mixes the channels" in out
        assert "parameters: 2,715; 97.6% are in layers with prunable units" in out
        assert "inputs: input 1x8x8x3 float32" in out

    def test_totals_that_leave_something_out_say_so(self, path, capsys):
        path.write_bytes(with_a_custom_operator().build())
        assert main(["inspect", str(path)]) == 0
        out = capsys.readouterr().out
        assert "MACs: at least 24.19 k" in out
        assert "operators without a cost model: CUSTOM:Mystery (1)" in out
        assert "operators that slicing does not understand: CUSTOM:Mystery (1)" in out

    def test_as_json(self, path, capsys):
        assert main(["inspect", str(path), "--json"]) == 0
        fields = json.loads(capsys.readouterr().out)
        assert fields["model"] == str(path)
        assert fields["file_bytes"] == path.stat().st_size
        assert [layer["prunable_units"] for layer in fields["layers"]] == [6, 10, 12, 0]
        assert fields["groups"][-1]["reasons"] == ["SOFTMAX (operator 6) mixes the channels"]

    @pytest.mark.parametrize("columns", [80, 120])
    def test_wide_names_do_not_break_the_tables(self, tmp_path, columns: int):
        builder = SequentialBuilder((128, 128, 64), np.random.default_rng(1)).conv(1000).mean().dense(1000).softmax()
        for tensor in builder.graph.tensors[1:]:
            tensor.name = "a_network/" + "of_a_layer_with_a_long_name" * 4 + "/convolution"
        path = tmp_path / "model.tflite"
        path.write_bytes(builder.build())
        lines = on_a_terminal(columns, ["inspect", path.name], tmp_path)
        first_table = lines[: lines.index("")]
        assert max(map(len, first_table)) <= columns
        # Figures are whole, as that of the 128 x 128 x 9 x 64 x 1000 MACs.
        convolution, dense = (next(line for line in first_table if kind in line) for kind in ("CONV_2D", "FULLY_"))
        assert convolution.split()[-6:] == ["128x128x1000", "0", "1000", "577,000", "9.44", "G"]
        assert dense.split()[-6:] == ["1000", "1", "0", "1,001,000", "1.00", "M"]

    def test_names_cannot_steer_the_terminal(self, tmp_path, capsys):
        builder = plain_network()
        for tensor in builder.graph.tensors:
            tensor.name = "\x1b[31m" + tensor.name
        (tmp_path / "model.tflite").write_bytes(builder.build())
        assert main(["inspect", str(tmp_path / "model.tflite")]) == 0
        assert "\x1b" not in capsys.readouterr().out

    def test_what_comes_with_the_model(self, path, capsys):
        builder = plain_network()
        builder.model.signatureDefs = [signature("serving_default", builder)]
        builder.model.metadata = [entry("TFLITE_METADATA", len(builder.model.buffers))]
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(b"about the model", np.uint8)
        builder.model.buffers.append(buffer)
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr("labels.txt", "cat\ndog\n")
        path.write_bytes(builder.build() + packed.getvalue())
        assert main(["inspect", str(path)]) == 0
        out = capsys.readouterr().out
        assert "metadata: TFLITE_METADATA\n" in out
        assert "signatures: serving_default\n" in out
        assert "packed files: labels.txt\n" in out

    def test_a_normalised_file_shows_the_same(self, path, capsys):
        main(["inspect", str(path), "--json"])
        before = json.loads(capsys.readouterr().out)
        path.write_bytes(normalize(path.read_bytes()))
        main(["inspect", str(path), "--json"])
        after = json.loads(capsys.readouterr().out)
        assert after == {**before, "file_bytes": path.stat().st_size}


class TestBadFiles:
    def failure(self, capsys, path) -> str:
        assert main(["inspect", str(path)]) == 1
        captured = capsys.readouterr()
        assert captured.out == ""
        (line,) = captured.err.splitlines()
        assert path.name in line
        return line

    def test_no_such_file(self, tmp_path, capsys):
        assert "No such file" in self.failure(capsys, tmp_path / "nothing.tflite")

    def test_a_folder(self, tmp_path, capsys):
        assert "directory" in self.failure(capsys, tmp_path)

    def test_no_tflite(self, tmp_path, capsys):
        (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8\xff\xe0 a photo")
        assert "not a .tflite file" in self.failure(capsys, tmp_path / "photo.jpg")

    @pytest.mark.parametrize("share", [0.0, 0.01, 0.1, 0.5, 0.9, 0.999])
    @pytest.mark.parametrize("make", [bytes, normalize])
    def test_a_truncated_file(self, tmp_path, capsys, share: float, make):
        whole, path = make(plain_network().build()), tmp_path / "half.tflite"
        path.write_bytes(whole[: int(share * len(whole))])
        self.failure(capsys, path)

    def test_control_flow(self, tmp_path, capsys):
        builder, path = plain_network(), tmp_path / "loop.tflite"
        builder.graph.outputs = np.array([builder.output], np.int32)
        builder.model.subgraphs.append(builder.graph)
        path.write_bytes(builder.build())
        assert "has 2 subgraphs: control flow is not supported" in self.failure(capsys, path)


def signature(key, builder):
    definition = schema.SignatureDefT()
    definition.signatureKey, definition.inputs, definition.outputs = key, [], []
    for maps, name, tensor in ((definition.inputs, "image", 0), (definition.outputs, "scores", builder.output)):
        entry = schema.TensorMapT()
        entry.name, entry.tensorIndex = name, tensor
        maps.append(entry)
    return definition


def entry(name, buffer):
    metadata = schema.MetadataT()
    metadata.name, metadata.buffer = name, buffer
    return metadata


def on_a_terminal(columns, arguments, folder) -> list[str]:
    """Run the command in a terminal of so many columns, and return its lines without colours."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    script = "import sys; from cloud_pruner.cli import main; sys.exit(main(sys.argv[1:]))"
    environment = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "LINES"}}
    process = subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        stdin=its,
        stdout=its,
        cwd=folder,
        env={**environment, "TERM": "xterm", "NO_COLOR": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    os.close(its)
    shown = b""
    while True:
        try:
            part = os.read(ours, 1 << 16)
        except OSError:  # the other end is closed
            break
        shown += part
    os.close(ours)
    assert process.wait() == 0
    return [line.rstrip() for line in shown.decode().replace("\x1b[1m", "").replace("\x1b[0m", "").splitlines()]
