"""The oldest interpreter that is supported, tflite-runtime 2.14, with what Debian 12 has for 32-bit ARM beside it.

Cut models of every kind run there, plainly and through the product's own classes, which find no other interpreter. A
cut must compute there exactly what the masked whole network does, and what it does in LiteRT but for rounding.

How much that is depends on XNNPACK, LiteRT's default delegate, which rounds integers otherwise than TFLite's own
kernels: without it, int8 networks give the same bits in both; with it, the quantised ResNet-8 of MLPerf Tiny differs by
up to 38 of 255 steps, whole or cut, on 100 test images, and 97 (whole) and 99 (cut) of them keep their top class.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
import time
import venv
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest

from cloud_pruner.conversion import convert
from cloud_pruner.images import ImageSet
from cloud_pruner.self_tests import self_test_of
from edge_runtime.digests import digest_of
from edge_runtime.flatmodel import BaseModel, LayerCut, PruningPlan, normalize, read_graph
from edge_runtime.interpreter import AffineQuantization, LoadedModel
from edge_runtime.messages import pack
from edge_runtime.self_test import self_test_images
from edge_runtime.wire import Manifest
from tests.edge_runtime.cloud_simulator import CloudSimulator
from tests.edge_runtime.tiny_models import CLASSES, WEST, describe, measured, picture, tflite_file
from tests.support.digits import PREPROCESSING
from tests.support.random_blocks import BLOCKS
from tests.support.random_cuts import random_cuts
from tests.support.random_graphs import random_graph
from tests.support.reference import masked_network

ROOT = Path(__file__).parents[1]

# Trained networks in every kind of numbers that `capnn convert` writes, on images of their own.
DIGITS = [f"digits {kind}" for kind in ("none", "float16", "dynamic", "int8")]
RESNETS = [f"resnet8 {kind}" for kind in ("none", "float16", "dynamic", "int8")]
# Random ones: residual additions, depthwise convolutions, concatenations, gates; uint8 as converters wrote before 2019.
CHOSEN_BLOCKS = ("residual", "inverted_residual", "dense_block", "squeeze_and_excitation", "grouped_convolution")
GRAPHS = [f"{block} {kind}" for kind in ("float32", "int8", "uint8") for block in CHOSEN_BLOCKS]

PLAIN = """
import sys
from importlib import import_module
from pathlib import Path
import numpy as np

module = import_module(sys.argv[1])
resolver = module.OpResolverType[sys.argv[4]]
results = {}
for path in sorted(Path(sys.argv[2]).glob("*/*.tflite")):
    interpreter = module.Interpreter(model_path=str(path), num_threads=1, experimental_op_resolver_type=resolver)
    interpreter.allocate_tensors()
    (source,), (target, *_) = interpreter.get_input_details(), interpreter.get_output_details()
    outputs = []
    for sample in np.load(path.parent / "samples.npy"):
        interpreter.set_tensor(source["index"], sample[np.newaxis])
        interpreter.invoke()
        outputs.append(interpreter.get_tensor(target["index"])[0])
    results[f"{path.parent.name}/{path.stem}"] = np.stack(outputs)
np.savez(sys.argv[3], **results)
"""

PRODUCT = """
import json
import sys
from pathlib import Path
import numpy as np
from edge_runtime.digests import digest_of
from edge_runtime.flatmodel import BaseModel, PruningPlan
from edge_runtime.interpreter import LoadedModel
from edge_runtime.messages import unpack
from edge_runtime.self_test import run_self_test, self_test_images
from edge_runtime.serving import ServingModel
from edge_runtime.slots import StoredModel
from edge_runtime.trial import try_model
from edge_runtime.wire import Manifest

results, digests, self_tests = {}, {}, {}
for folder in sorted(Path(sys.argv[1]).iterdir()):
    cut = BaseModel.open(folder / "base.tflite").apply(PruningPlan.from_bytes((folder / "plan").read_bytes()))
    digests[folder.name] = digest_of(cut)
    results[folder.name] = LoadedModel(cut).run(np.load(folder / "images.npy"))[0]
    if (folder / "manifest").exists():
        manifest = Manifest.from_fields(unpack((folder / "manifest").read_bytes()))
        self_tests[folder.name] = run_self_test(ServingModel(StoredModel(manifest, cut)), manifest.self_test)
        try_model(cut, manifest, threads=1)
np.savez(sys.argv[2], **results)
images = digest_of(self_test_images(7, 4, (32, 32, 3)).tobytes())
print(json.dumps({"digests": digests, "self_tests": self_tests, "images": images, "numpy": np.__version__,
                  "modules": sorted(sys.modules)}))
"""


@pytest.fixture(scope="module")
def interpreter_environment(tmp_path_factory):
    """The Python of an environment with tflite-runtime and the project, without what the project would bring along."""
    if sys.version_info >= (3, 12):
        pytest.skip("tflite-runtime 2.14.0, the last one, is for Python 3.11 and older")
    folder = tmp_path_factory.mktemp("tflite-runtime") / "environment"
    venv.create(folder)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--disable-pip-version-check"]
    native = ["tflite-runtime==2.14.0", "numpy==1.24.2", "msgpack==1.0.3", "pillow==9.4.0", "cryptography==38.0.4"]
    packages = [*native, "flatbuffers", "httpx", "prometheus_client", "starlette", "uvicorn"]
    done = subprocess.run([*pip, *packages], capture_output=True, text=True, check=False)
    if done.returncode and "(from versions: none)" in done.stderr:
        pytest.skip(f"no package index can be reached, or it has none for this machine: {done.stderr.splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    # A copy of the sources: building in the checkout would leave folders behind, and race with others.
    sources = tmp_path_factory.mktemp("sources")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, sources)
    built = shutil.ignore_patterns("__pycache__", "*.so")
    for name in ("edge_runtime", "cloud_pruner", "cache", "hwmodel"):
        shutil.copytree(ROOT / name, sources / name, ignore=built)
    done = subprocess.run([*pip, "--no-deps", str(sources)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return python


def trained(network, folder, images, preprocessing):
    """Yield a trained Keras network as .tflite in each kind, with a quarter of the units of each group cut."""
    for kind in ("none", "float16", "dynamic", "int8"):
        convert(network, folder / kind, images=images, preprocessing=preprocessing, quantize=kind)
        base = BaseModel(normalize((folder / kind).read_bytes()))
        groups = [base.channels.groups[number] for number in base.channels.prunable]
        yield kind, base, [LayerCut(g.tensors[0], g.units, np.flatnonzero(np.arange(g.units) % 4)) for g in groups]


def described(content, base, preprocessing):
    """Return a manifest of a cut, with the self-test that the cloud puts in it."""
    digest, classes = digest_of(content), LoadedModel(content).output_shapes[0][0]
    manifest = Manifest(
        digest=digest, bytes=len(content), base=base.digest, profile="0" * 64, classes=tuple(map(str, range(classes))),
        preprocessing=preprocessing, usage={}, variant="W", epsilon=0.03, guarantee="none", relative_size=0.5,
        parameters=1, per_class={}, cache_tier="search",
    )  # fmt: skip
    return replace(manifest, self_test=self_test_of(content, manifest))


def write(folder, base, cuts, images, preprocessing=None):
    """Write a case: the whole model, the cut, its plan, the masked network, and images, also as it stores them.

    With a manifest where there is a preprocessing, so that the cut can be served.
    """
    folder.mkdir(parents=True)
    cut = bytes(base.emit(cuts))
    (folder / "base.tflite").write_bytes(base.content)
    (folder / "plan").write_bytes(PruningPlan(base.digest, tuple(cuts)).to_bytes())
    (folder / "cut.tflite").write_bytes(cut)
    (folder / "masked.tflite").write_bytes(masked_network(base, cuts))
    if preprocessing is not None:
        (folder / "manifest").write_bytes(pack(described(cut, base, preprocessing).to_fields()))
    quantization = LoadedModel(cut).input_quantization
    np.save(folder / "images.npy", images)
    np.save(folder / "samples.npy", images if quantization is None else quantization.quantize(images.copy()))


@pytest.fixture(scope="module")
def cases(digits_network, tmp_path_factory):
    """A folder with all cases; those of ResNet-8 only where the reference data is."""
    cases, scratch = tmp_path_factory.mktemp("cases"), tmp_path_factory.mktemp("converted")
    images = PREPROCESSING.apply(digits_network.unseen.pixels[::10])
    for kind, base, cuts in trained(digits_network.keras, scratch, digits_network.trained_on, PREPROCESSING):
        write(cases / f"digits {kind}", base, cuts, images, PREPROCESSING)
    for name in GRAPHS:
        block, kind = name.split()
        seed = list(BLOCKS).index(block)
        base, rng = BaseModel(normalize(random_graph(kind, seed).content)), np.random.default_rng(seed)
        shape = base.graph.tensors[base.graph.inputs[0]].shape[1:]
        write(cases / name, base, random_cuts(base, rng), rng.normal(size=(8, *shape)).astype(np.float32))
    if os.environ.get("CAPNN_DATA"):
        from benchmarks.data import load_cifar
        from benchmarks.networks import cifar10_mlperf_resnet8 as resnet

        resnet.build().save(scratch / "resnet8.keras")
        unseen = ImageSet(*load_cifar("cifar10_test", 10))
        images = resnet.PREPROCESSING.apply(unseen.pixels[::10])
        for kind, base, cuts in trained(scratch / "resnet8.keras", scratch, unseen, resnet.PREPROCESSING):
            write(cases / f"resnet8 {kind}", base, cuts, images, resnet.PREPROCESSING)
    return cases


@pytest.fixture(scope="module")
def outputs(interpreter_environment, cases, tmp_path_factory):
    """What the files give in tflite-runtime ("old"), LiteRT, and LiteRT without XNNPACK: -> "case/file" -> stored."""
    folder = tmp_path_factory.mktemp("outputs")
    interpreters = {
        "old": (interpreter_environment, "tflite_runtime", "AUTO"),
        "LiteRT": (sys.executable, "ai_edge_litert", "AUTO"),
        "LiteRT without XNNPACK": (sys.executable, "ai_edge_litert", "BUILTIN_WITHOUT_DEFAULT_DELEGATES"),
    }
    for name, (python, module, resolver) in interpreters.items():
        run(python, PLAIN, f"{module}.interpreter", cases, folder / f"{name}.npz", resolver)
    return {name: np.load(folder / f"{name}.npz") for name in interpreters}


@pytest.fixture(scope="module")
def product(interpreter_environment, cases, tmp_path_factory):
    """What the product computes there, by case, and what it says of its surroundings."""
    path = tmp_path_factory.mktemp("product") / "outputs.npz"
    said = run(interpreter_environment, PRODUCT, cases, path)
    return np.load(path), json.loads(said.splitlines()[-1])


def run(python, script, *arguments):
    command = [str(python), "-c", script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def case(request, name):
    """The name of a case; those of ResNet-8 need the reference data."""
    if name in RESNETS:
        request.getfixturevalue("capnn_data")
    return name


def real_values(content, stored):
    graph = read_graph(content)
    output = graph.tensors[graph.outputs[0]]
    if output.quantization is None:
        return stored
    (scale,), (zero_point,) = (
        output.quantization.scales.view(np.float32),
        output.quantization.zero_points.view(np.int64),
    )
    return AffineQuantization(float(scale), int(zero_point), output.dtype).dequantize(stored)


def assert_within(actual, expected, tolerance):
    np.testing.assert_allclose(actual, expected, atol=tolerance * max(np.ptp(expected), 1e-3), rtol=0)


every_case = pytest.mark.parametrize("name", [*DIGITS, *RESNETS, *GRAPHS])


@every_case
def test_a_cut_equals_the_masked_network_there(outputs, case):
    cut, masked = outputs["old"][f"{case}/cut"], outputs["old"][f"{case}/masked"]
    if "int8" in case:
        np.testing.assert_array_equal(cut, masked)
    else:
        assert_within(cut, masked, 1e-5)


@pytest.mark.parametrize("name", [name for name in (*DIGITS, *RESNETS, *GRAPHS) if "float" in name or "none" in name])
def test_floats_are_what_they_are_in_litert(outputs, case):
    cut = f"{case}/cut"
    assert_within(outputs["old"][cut], outputs["LiteRT"][cut], 1e-4)  # measured: 1e-6


@pytest.mark.parametrize("name", [name for name in (*DIGITS, *RESNETS, *GRAPHS) if name.endswith(" int8")])
def test_int8_is_bit_for_bit_what_it_is_in_litert_without_xnnpack(outputs, case):
    cut = f"{case}/cut"
    np.testing.assert_array_equal(outputs["old"][cut], outputs["LiteRT without XNNPACK"][cut])


@pytest.mark.parametrize("name", [name for name in (*DIGITS, *RESNETS) if name.endswith(" dynamic")])
def test_dynamic_range_files_load_and_differ_little(outputs, case):
    """Each interpreter quantises what a layer reads as it runs, in a way of its own."""
    cut = f"{case}/cut"
    assert_within(outputs["old"][cut], outputs["LiteRT"][cut], 5e-3)  # measured: 1e-3


@pytest.mark.parametrize("name", [*DIGITS, *RESNETS])
def test_trained_networks_name_the_same_class(outputs, case):
    cut = f"{case}/cut"
    agreement = np.mean(outputs["old"][cut].argmax(axis=1) == outputs["LiteRT"][cut].argmax(axis=1))
    assert agreement >= (0.95 if "int8" in case else 1.0)


@every_case
def test_the_product_falls_back_to_it(product, outputs, cases, case):
    """`LoadedModel` there gives what the interpreter gives, as real values."""
    results, surroundings = product
    assert "tflite_runtime.interpreter" in surroundings["modules"]
    assert not [module for module in surroundings["modules"] if module.startswith("ai_edge_litert")]
    assert surroundings["numpy"].startswith("1.")
    expected = real_values((cases / case / "cut.tflite").read_bytes(), outputs["old"][f"{case}/cut"])
    np.testing.assert_array_equal(results[case], expected)


@every_case
def test_the_device_cuts_the_same_file_there(product, cases, case):
    assert product[1]["digests"][case] == digest_of((cases / case / "cut.tflite").read_bytes())


@pytest.mark.parametrize("name", [*DIGITS, *RESNETS])
def test_cuts_are_served_there_and_pass_their_self_test(product, case):
    """Also in a child process: the product would have failed as a whole, had one not passed that."""
    assert product[1]["self_tests"][case] is None


def test_a_daemon_takes_a_signed_cut_there_and_serves_it(interpreter_environment, tmp_path):
    """The whole device, with real HTTP: signature, download, trial, swap, journal."""
    files = [tflite_file(known) for known in (CLASSES, WEST)]
    base = measured(describe(files[0]))
    west = measured(describe(files[1], base=files[0], usage=dict.fromkeys(WEST, 0.5)))
    with CloudSimulator(base, [west]) as cloud:
        (tmp_path / "edge.toml").write_text(
            f'state = "state"\n[cloud]\nurl = "{cloud.url}"\nkeys = ["{cloud.key.public}"]\n'
            "[api]\nport = 0\n[monitor]\nperiod = 40\n"
        )
        command = [str(interpreter_environment), "-m", "edge_runtime.cli", "run", "--config", "edge.toml"]
        environment = {**os.environ, "NO_PROXY": "127.0.0.1"}
        with subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as daemon:
            try:
                url = daemon.stdout.readline().removeprefix("capnn-edge: serving on ").strip()
                assert url, daemon.stderr.read()
                with httpx.Client(base_url=url, trust_env=False, timeout=60) as client:
                    deadline = time.monotonic() + 120
                    for label in itertools.cycle(WEST):
                        status = client.get("/v1/status").json()
                        assert time.monotonic() < deadline, status
                        if status["ready"]:
                            answer = client.post("/v1/classify", content=picture(label))
                            assert answer.json()["class"] == label
                        if status["counters"]["swaps"]:
                            break
                    assert client.get("/v1/status").json()["model"]["digest"] == west.manifest.digest
                    assert b"capnn_model_swaps_total 1.0" in client.get("/metrics").content
            finally:
                daemon.terminate()
            assert "usage has changed" in daemon.stderr.read()
        assert daemon.returncode == 0


def test_self_test_images_are_the_same_there(product):
    assert product[1]["images"] == digest_of(self_test_images(7, 4, (32, 32, 3)).tobytes())
