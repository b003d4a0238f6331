"""What the cloud's interpreter answers to test images: goes with each model, so that a device can compare.

The device's interpreter may be another release, on another processor. Networks of floats give the same there but for
rounding. Of integers every set of kernels rounds in a way of its own, which may come to hundredths or to a quarter,
depending on the network: how much is measured, with LiteRT's two sets of kernels, and what is allowed is twice that and
some more (`docs/decisions/0017-signed-manifests.md` has the figures).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edge_runtime.flatmodel import read_graph
from edge_runtime.interpreter import AffineQuantization
from edge_runtime.self_test import expected_answer, self_test_images
from edge_runtime.serving import ServingModel, ends_in_softmax
from edge_runtime.slots import StoredModel
from edge_runtime.wire import SelfTest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from edge_runtime.flatmodel import Graph
    from edge_runtime.wire import Manifest

__all__ = ["self_test_of"]

_IMAGES: Final = 3
_TOLERANCE: Final = 0.005
_TOLERANCE_QUANTISED: Final = 0.05
_KERNELS_FACTOR: Final = 2.0


def self_test_of(content: bytes | memoryview, manifest: Manifest) -> SelfTest:
    """Run a model on images made from its digest, and return what it answers.

    Raises
    ------
    ModelFileError
        The interpreter refuses the file, or fails: no device could use it.
    """
    seed = int(manifest.digest[:8], 16)
    model = ServingModel(StoredModel(manifest, content))
    images = self_test_images(seed, _IMAGES, manifest.preprocessing.shape)
    answers = np.stack([model.probabilities(image) for image in images])
    tolerance, graph = _TOLERANCE, read_graph(content)
    if any(tensor.quantization is not None for tensor in graph.tensors):
        others = _without_xnnpack(content, graph, manifest.preprocessing.apply(images))
        tolerance = _TOLERANCE_QUANTISED + _KERNELS_FACTOR * float(np.abs(others - answers).max())
    return SelfTest(seed, tuple(map(expected_answer, answers)), round(tolerance, 4))


def _without_xnnpack(content: bytes | memoryview, graph: Graph, samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the probabilities, `(n, classes)`, that TFLite's own kernels give: those of releases before XNNPACK."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType  # noqa: PLC0415 - takes a second

    kernels = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(model_content=bytes(content), num_threads=1, experimental_op_resolver_type=kernels)
    interpreter.allocate_tensors()
    (source,), target = interpreter.get_input_details(), interpreter.get_output_details()[0]
    taken, given = _quantization(source), _quantization(target)
    outputs = []
    for sample in samples:
        interpreter.set_tensor(source["index"], (sample if taken is None else taken.quantize(sample))[np.newaxis])
        interpreter.invoke()
        stored = interpreter.get_tensor(target["index"])[0]
        outputs.append(stored if given is None else given.dequantize(stored))
    values = np.stack(outputs)
    # As `ServingModel.probabilities`.
    shares = values if ends_in_softmax(graph) else np.exp(values - values.max(axis=1, keepdims=True))
    return np.asarray(shares / np.maximum(shares.sum(axis=1, keepdims=True), 1e-9), dtype=np.float32)


def _quantization(details: Mapping[str, Any]) -> AffineQuantization | None:
    scale, zero_point = details["quantization"]
    return AffineQuantization(float(scale), int(zero_point), np.dtype(details["dtype"])) if scale else None
