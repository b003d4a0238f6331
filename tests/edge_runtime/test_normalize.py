"""Normalising rewrites a file once; what people put into it stays, in every cut too."""

from __future__ import annotations

import io
import zipfile

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from edge_runtime.errors import ModelFileError
from edge_runtime.flatmodel import BaseModel, LayerCut, normalize, read_graph
from edge_runtime.interpreter import LoadedModel
from tests.support.tflite_builder import SequentialBuilder


def halved(base):
    groups = [base.channels.groups[number] for number in base.channels.prunable]
    assert groups
    return base.emit([LayerCut(group.tensors[0], group.units, np.arange(0, group.units, 2)) for group in groups])


def packed(model):
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def network(seed=0):
    return SequentialBuilder((6, 6, 3), np.random.default_rng(seed)).conv(8).pool().conv(6).flatten()


def outputs(content, seed=0):
    model = LoadedModel(bytes(content))
    return model.run(np.random.default_rng(seed).normal(size=(4, *model.input_shape)).astype(np.float32))[0]


def with_labels(content, names=("cat", "dog")):
    """Append labels as `tflite_support`'s metadata writer does: a zip right behind the model."""
    file = io.BytesIO(content)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("labels.txt", "\n".join(names))
    return file.getvalue()


class TestWhatPeoplePutIntoAFile:
    def test_labels_can_be_read_from_every_cut(self):
        content = with_labels(network().dense(5, activation=0).build())
        base = BaseModel(normalize(content))
        for file in (base.content, halved(base)):
            with zipfile.ZipFile(io.BytesIO(file)) as archive:
                assert archive.read("labels.txt") == b"cat\ndog"
            assert outputs(file).shape == (4, 5)

    def test_a_cut_of_a_cut_has_them_too(self):
        base = BaseModel(normalize(with_labels(network().dense(5, activation=0).build())))
        again = halved(BaseModel(halved(base)))
        assert zipfile.ZipFile(io.BytesIO(again)).namelist() == ["labels.txt"]

    def test_description_metadata_and_minimal_version_stay(self):
        builder = network().dense(5, activation=0)
        for name, value in {"min_runtime_version": b"1.14.0", "about": b"made by hand"}.items():
            buffer, entry = schema.BufferT(), schema.MetadataT()
            buffer.data = np.frombuffer(value, np.uint8)
            builder.model.buffers.append(buffer)
            entry.name, entry.buffer = name, len(builder.model.buffers) - 1
            builder.model.metadata = [*(builder.model.metadata or []), entry]
        cut = halved(BaseModel(normalize(builder.build())))
        graph = read_graph(cut)
        assert graph.metadata["min_runtime_version"] == b"1.14.0"
        assert graph.metadata["about"] == b"made by hand"
        assert schema.ModelT.InitFromPackedBuf(bytes(cut), 0).description == b"made by a test"

    def test_no_operator_asks_for_a_newer_runtime_than_before(self):
        content = network().dense(5, activation=0, bias=False).build()
        versions = {code.version for code in schema.ModelT.InitFromPackedBuf(content, 0).operatorCodes}
        cut = halved(BaseModel(normalize(content)))
        assert {code.version for code in schema.ModelT.InitFromPackedBuf(bytes(cut), 0).operatorCodes} == versions

    def test_signatures_can_be_called(self):
        builder = network().dense(5, activation=0)
        signature = schema.SignatureDefT()
        signature.signatureKey, signature.subgraphIndex = "classify", 0
        signature.inputs, signature.outputs = [schema.TensorMapT()], [schema.TensorMapT()]
        signature.inputs[0].name, signature.inputs[0].tensorIndex = "image", int(builder.graph.inputs[0])
        signature.outputs[0].name, signature.outputs[0].tensorIndex = "scores", builder.output
        builder.model.signatureDefs = [signature]
        cut = bytes(halved(BaseModel(normalize(builder.build()))))
        interpreter = Interpreter(model_content=cut)
        image = np.random.default_rng(0).normal(size=(1, 6, 6, 3)).astype(np.float32)
        scores = interpreter.get_signature_runner("classify")(image=image)["scores"]
        np.testing.assert_array_equal(scores, LoadedModel(cut).run(image)[0])


class TestReshapes:
    def test_one_that_has_its_shape_among_its_options(self):
        """Old converters wrote no shape input."""
        builder = network()
        reshape = builder.graph.operators[-1]
        reshape.inputs = reshape.inputs[:1]
        content = builder.dense(5, activation=0).build()
        base = BaseModel(normalize(content))
        assert len(base.channels.prunable) == 2
        np.testing.assert_array_equal(outputs(base.content), outputs(content))
        assert outputs(halved(base)).shape == (4, 5)

    def test_one_that_computes_its_batch(self):
        """What a converter writes for `Flatten` where the batch is open: SHAPE, STRIDED_SLICE, PACK."""
        import tensorflow as tf

        kernel = np.random.default_rng(0).normal(size=(3, 3, 3, 8)).astype(np.float32)
        dense = np.random.default_rng(1).normal(size=(6 * 6 * 8, 5)).astype(np.float32)

        @tf.function(input_signature=[tf.TensorSpec((None, 6, 6, 3))])
        def function(images):
            maps = tf.nn.relu(tf.nn.conv2d(images, kernel, 1, "SAME"))
            return tf.reshape(maps, (tf.shape(maps)[0], 6 * 6 * 8)) @ dense

        content = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()]).convert()
        assert "PACK" in {operator.kind for operator in read_graph(content).operators}
        base = BaseModel(normalize(content))
        assert {operator.kind for operator in base.graph.operators} == {"CONV_2D", "RESHAPE", "FULLY_CONNECTED"}
        np.testing.assert_array_equal(outputs(base.content), outputs(content))
        images = np.random.default_rng(2).normal(size=(6, 6, 6, 3)).astype(np.float32)
        together = LoadedModel(bytes(halved(base)), batch=6).run(images)[0]
        np.testing.assert_allclose(together, LoadedModel(bytes(halved(base))).run(images)[0], atol=1e-4)


@pytest.mark.parametrize("way", [BaseModel.open, BaseModel.load])
def test_an_opened_file_is_cut_like_its_bytes(tmp_path, way):
    content = normalize(network().dense(5, activation=0).build())
    (tmp_path / "base.tflite").write_bytes(content)
    opened = way(tmp_path / "base.tflite")
    assert opened.digest == BaseModel(content).digest
    assert halved(opened) == halved(BaseModel(content))


@pytest.mark.parametrize("way", [BaseModel.open, BaseModel.load])
@pytest.mark.parametrize("content", [b"", None], ids=["empty", "missing"])
def test_a_file_that_cannot_be_opened(tmp_path, content, way):
    path = tmp_path / "base.tflite"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelFileError, match=r"base.tflite: (cannot be read|not a .tflite file)"):
        way(path)


def test_more_than_one_subgraph_is_refused():
    model = schema.ModelT.InitFromPackedBuf(network().dense(5).build(), 0)
    model.subgraphs.append(model.subgraphs[0])
    with pytest.raises(ModelFileError, match="two.tflite: has 2 subgraphs"):
        normalize(packed(model), "two.tflite")
