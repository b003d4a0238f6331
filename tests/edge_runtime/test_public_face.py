from __future__ import annotations

import subprocess
import sys

import edge_runtime

SLOW_OR_ABSENT_ON_A_DEVICE = (
    "tensorflow",
    "keras",
    "sklearn",
    "scipy",
    "ai_edge_litert",
    "tflite_runtime",
    "httpx",
    "starlette",
    "uvicorn",
    "asyncio",
)


def test_everything_promised_is_there_and_in_order():
    assert edge_runtime.__all__ == sorted(edge_runtime.__all__)
    assert all(hasattr(edge_runtime, name) for name in edge_runtime.__all__)


def test_importing_is_light():
    """What a device lacks is never loaded; the interpreter, the server and the client only when they are needed."""
    script = "import edge_runtime, sys; print(*sys.modules, sep='\\n')"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    loaded = {name.partition(".")[0] for name in done.stdout.split()}

    assert "edge_runtime" in loaded
    assert loaded.isdisjoint(SLOW_OR_ABSENT_ON_A_DEVICE)
