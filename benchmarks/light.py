"""What the device's packages alone take: from a command's start to its first classification, and of memory.

`python -m benchmarks.light --json`; needs Linux and a package index. A new environment gets the project without extras.
A float32 model of 2.5 million parameters is classified with (a) by the interpreter alone, with numpy, as little as a
program could do, (b) by `EdgeClassifier` from a state folder, (c) by the daemon, through HTTP. Fresh processes, the
best of `RUNS`. `classify_over_interpreter_s` and `_rss` are (b) over (a); the context has seconds and peaks of resident
memory in megabytes, and those of the daemon after `IMAGES` images, with what is resident of shared files.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path
from typing import Any

from benchmarks.command import main

RUNS = 5
IMAGES = 100
SIDE = 96
CLASSES = 1000

_ROOT = Path(__file__).parents[1]

_INTERPRETER = """
import sys
from pathlib import Path
import numpy as np
from ai_edge_litert.interpreter import Interpreter
interpreter = Interpreter(model_content=(Path(sys.argv[1]) / "base" / "model.tflite").read_bytes())
interpreter.allocate_tensors()
interpreter.set_tensor(interpreter.get_input_details()[0]["index"], np.zeros((1, 96, 96, 3), np.float32))
interpreter.invoke()
interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
"""
CLASSIFY = """
import sys
from pathlib import Path
from edge_runtime import EdgeClassifier
EdgeClassifier.open(Path(sys.argv[1])).classify((Path(sys.argv[1]) / "picture.png").read_bytes())
"""
_STATUS = "\nimport time\nprint('cpu', time.process_time(), open('/proc/self/status').read())"


def measure() -> dict[str, Any]:
    """Return the JSON object: `classify_over_interpreter_*`, and what was measured."""
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder) / "state"
        parameters = make_state(state)
        python = light_environment(Path(folder) / "environment")
        alone, classify = (_best(python, script, state) for script in (_INTERPRETER, CLASSIFY))
        daemon = daemon_memory(python, state)
    return {
        "ratios": {
            "classify_over_interpreter_s": classify["seconds"] / alone["seconds"],
            "classify_over_interpreter_rss": classify["rss_mb"] / alone["rss_mb"],
        },
        "context": {"parameters": parameters, "interpreter": alone, "classify": classify, "daemon": daemon},
    }


def light_environment(folder: Path) -> Path:
    """Make an environment with the project and nothing that its extras bring; return its Python.

    Raises
    ------
    CalledProcessError
        pip fails; its `stderr` says why.
    """
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv" / "bin" / "python"
    # A copy: building in the checkout would leave folders behind.
    listed = ["git", "-C", str(_ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(listed, check=True, capture_output=True, text=True).stdout.split("\0")
    for name in filter(None, files):
        if (_ROOT / name).is_file():
            copy = folder / "sources" / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes((_ROOT / name).read_bytes())
    constraints = ["--constraint", str(_ROOT / "constraints.txt")] if sys.version_info[:2] == (3, 11) else []
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, *constraints, str(folder / "sources")], check=True, capture_output=True, text=True)
    return python


def make_state(state: Path) -> int:
    """Make a state folder with the model and a picture, as the daemon keeps one; return its number of parameters."""
    import numpy as np  # noqa: PLC0415 - the measured processes do without
    from PIL import Image  # noqa: PLC0415 - likewise

    from edge_runtime.digests import digest_of  # noqa: PLC0415 - likewise
    from edge_runtime.preprocessing import Preprocessing  # noqa: PLC0415 - likewise
    from edge_runtime.slots import ModelSlots, StoredModel  # noqa: PLC0415 - likewise
    from edge_runtime.wire import Manifest  # noqa: PLC0415 - likewise

    content, parameters = _model()
    digest = digest_of(content)
    manifest = Manifest(
        digest=digest,
        bytes=len(content),
        base=digest,
        profile="0" * 64,
        classes=tuple(f"class {number}" for number in range(CLASSES)),
        preprocessing=Preprocessing(SIDE, SIDE, "rgb"),
        usage={},
        variant="none",
        epsilon=0.03,
        guarantee="none",
        relative_size=1.0,
        parameters=parameters,
        per_class={},
        cache_tier="none",
    )
    slots = ModelSlots(state)
    slots.lock()
    slots.install_base(StoredModel(manifest, content))
    slots.unlock()
    pixels = np.random.default_rng(1).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(state / "picture.png")
    return parameters


def _model() -> tuple[bytes, int]:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf  # noqa: PLC0415 - takes a while
    from tensorflow import keras  # noqa: PLC0415 - likewise

    layers = keras.layers
    x = inputs = keras.Input(batch_shape=(1, SIDE, SIDE, 3))
    for filters in (32, 64, 128, 256, 512):
        x = layers.Conv2D(filters, 3, strides=2, padding="same", activation="relu")(x)
    x = layers.Conv2D(640, 1, activation="relu")(x)
    x = layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, layers.Dense(CLASSES, activation="softmax")(x))
    with contextlib.redirect_stdout(sys.stderr):  # the converter prints; stdout is for the result
        return bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert()), int(model.count_params())


def _best(python: Path, script: str, state: Path) -> dict[str, float]:
    """Return the least of fresh processes: time in s from start to end, of that at work, and peak of memory in MB."""
    runs = [_run(python, script, state) for _ in range(RUNS)]
    return dict(zip(("seconds", "cpu_seconds", "rss_mb"), map(min, zip(*runs, strict=True)), strict=True))


def peak_memory(python: Path, script: str, state: Path) -> float:
    """Return the peak of memory in MB of a process that runs `script` on a state folder."""
    return _run(python, script, state)[2]


def _run(python: Path, script: str, state: Path) -> tuple[float, float, float]:
    start = time.perf_counter()
    done = subprocess.run(
        [str(python), "-c", script + _STATUS, str(state)], check=True, capture_output=True, text=True, cwd="/"
    )
    seconds = time.perf_counter() - start
    return seconds, float(done.stdout.split()[1]), _memory_mb(done.stdout, "VmHWM")


def _memory_mb(status: str, name: str) -> float:
    """Return a size of a `/proc/PID/status` in MB."""
    found = re.search(rf"{name}:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) * 1024 / 1e6


def daemon_memory(python: Path, state: Path, images: int = IMAGES) -> dict[str, float]:
    """Return the daemon's memory in MB after some images: at most, and now, with what is of files that are mapped."""
    key = "ed25519:" + "A" * 43 + "="
    options = ["--state", str(state), "--cloud", "http://127.0.0.1:9", "--key", key, "--port", "0"]
    process = subprocess.Popen(
        [str(python.parent / "capnn-edge"), "run", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1]
        classify = [str(python), "-m", "edge_runtime.cli", "classify", "--url", url, "--json"]
        pictures = [str(state / "picture.png")] * images
        answers = subprocess.run([*classify, *pictures], check=True, capture_output=True, text=True).stdout
        assert len(json.loads(answers)) == images
        status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
    finally:
        process.terminate()
        process.communicate()
    return {
        "rss_peak_mb": _memory_mb(status, "VmHWM"),
        "rss_mb": _memory_mb(status, "VmRSS"),
        "of_mapped_files_mb": _memory_mb(status, "RssFile"),
    }


if __name__ == "__main__":
    main(measure, needs_data=False)
