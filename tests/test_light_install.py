"""`pip install capnn` without extras, in a clean environment: the device's packages and commands, and nothing heavy."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.light import CLASSIFY, daemon_memory, light_environment, make_state, peak_memory
from benchmarks.wheels import without_wheel
from cloud_pruner.personalize import Personalizer, base_manifest
from cloud_pruner.requests import PruneRequest
from edge_runtime.slots import ModelSlots, StoredModel

# Of a process on a device with a model of 2.5 million float parameters, in MB.
RSS_MB = 120


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """The bin folder of a new environment with nothing but the project installed."""
    try:
        return light_environment(tmp_path_factory.mktemp("light")).parent
    except subprocess.CalledProcessError as error:
        if "Could not find a version" in error.stderr and "setuptools" in error.stderr:
            pytest.skip("no package index can be reached")
        raise AssertionError(error.stderr) from error


def run(environment, *command, code=0):
    done = subprocess.run(
        [str(environment / command[0]), *map(str, command[1:])], capture_output=True, text=True, check=False, cwd="/"
    )
    assert done.returncode == code, done.stderr
    return done


def test_nothing_heavy_comes_along(environment):
    installed = {entry["name"].lower() for entry in json.loads(run(environment, "pip", "list", "--format=json").stdout)}
    assert {"capnn", "numpy", "msgpack", "ai-edge-litert"} <= installed
    assert not installed & {
        "tensorflow",
        "tensorflow-cpu",
        "tensorflow_cpu",
        "keras",
        "scikit-learn",
        "scipy",
        "fastapi",
    }


def test_the_packages_import_without_heavy_ones(environment):
    script = "import sys, edge_runtime, edge_runtime.flatmodel, hwmodel; print(sorted(sys.modules))"
    modules = run(environment, "python", "-c", script).stdout
    assert "'edge_runtime'" in modules
    assert not any(f"'{name}'" in modules for name in ("tensorflow", "sklearn", "scipy", "keras"))


def test_the_device_command_classifies(environment, digits_profile, digits_network, tmp_path):
    """A state folder as the daemon leaves it; the cut comes from a plan, applied in the light environment."""
    answer = Personalizer(digits_profile).personalize(PruneRequest({"one": 1.0, "seven": 1.0}, guarantee="empirical"))
    slots = ModelSlots(tmp_path / "state")
    slots.lock()
    slots.install_base(StoredModel(base_manifest(digits_profile), bytes(digits_profile.base.content)))
    slots.install_cut(StoredModel(answer.manifest, answer.model), "a")
    slots.unlock()
    unseen = digits_network.unseen
    ones = unseen.pixels[unseen.labels == 1][:12]
    for number, pixels in enumerate(ones):
        Image.fromarray(np.squeeze(pixels)).save(tmp_path / f"{number}.png")
    pictures = [tmp_path / f"{number}.png" for number in range(12)]
    done = run(environment, "capnn-edge", "classify", *pictures, "--state", tmp_path / "state", "--json")
    predictions = json.loads(done.stdout)
    assert sum(prediction["class"] == "one" for prediction in predictions) >= 10
    assert {prediction["model"] for prediction in predictions} == {answer.manifest.digest}


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_a_device_needs_little_memory(environment, tmp_path):
    """A first classification in a process of its own, and the daemon after a few over HTTP."""
    make_state(tmp_path / "state")

    assert peak_memory(environment / "python", CLASSIFY, tmp_path / "state") < RSS_MB
    assert daemon_memory(environment / "python", tmp_path / "state", images=5)["rss_peak_mb"] < RSS_MB


def test_a_64_bit_arm_board_needs_no_compiler(environment):
    assert without_wheel("aarch64") == []


def test_a_plan_makes_the_same_bytes_there(environment, digits_profile, tmp_path):
    answer = Personalizer(digits_profile).personalize(PruneRequest({"two": 1.0, "four": 1.0}, guarantee="empirical"))
    (tmp_path / "plan").write_bytes(answer.plan)
    script = (
        "import sys; from pathlib import Path\n"
        "from edge_runtime.flatmodel import BaseModel, PruningPlan\n"
        "from edge_runtime.digests import digest_of\n"
        "base = BaseModel(Path(sys.argv[1]).read_bytes())\n"
        "print(digest_of(base.apply(PruningPlan.from_bytes(Path(sys.argv[2]).read_bytes()))))\n"
    )
    done = run(environment, "python", "-c", script, digits_profile.folder / "base.tflite", tmp_path / "plan")
    assert done.stdout.strip() == answer.manifest.digest


def test_the_hardware_command_runs(environment, digits_network):
    assert json.loads(run(environment, "capnn-hw", digits_network.tflite, "--json").stdout)


def test_the_cloud_command_says_what_it_needs(environment):
    done = run(environment, "capnn", "prune", code=1)
    assert "pip install 'capnn[cloud,plots]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_device_command_has_help(environment):
    assert "example:" in run(environment, "capnn-edge", "--help").stdout
