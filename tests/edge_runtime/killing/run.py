"""Starts the worker with the counting library preloaded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.edge_runtime.killing.lives import write_models
from tests.edge_runtime.killing.preload import LIBRARY, compile_library

if TYPE_CHECKING:
    from edge_runtime.slots import StoredModel


def run(
    folder: Path,
    models: dict[str, StoredModel],
    *,
    seconds: float = 0,
    seed: int = 0,
    daemon_kills: tuple[int, str, str] | None = None,
) -> dict[str, Any] | None:
    """Return what the worker found; None without a C compiler.

    Parameters
    ----------
    folder
        An empty one, for everything that is written.
    seconds
        How long to go on; every life is ended at every operation at least once, however long that takes.
    seed
        Of what power cuts lose.
    daemon_kills
        How often to end a whole daemon instead, and the address and the key of the cloud that it updates from.
    """
    library = compile_library(folder)
    if library is None:
        return None
    write_models(folder / "models", models)
    command = [sys.executable, "-m", "tests.edge_runtime.killing.worker"]
    arguments = [str(folder / "models"), str(seconds), str(seed), *map(str, daemon_kills or ())]
    environment = {**os.environ, "LD_PRELOAD": str(library), LIBRARY: str(library)}
    # In memory where that can be had: what a kill leaves is the same, and thousands of syncs cost nothing.
    memory = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else folder
    with tempfile.TemporaryDirectory(dir=memory) as work:
        done = subprocess.run(
            [*command, work, *arguments], env=environment, capture_output=True, text=True, check=False
        )
    if done.returncode:
        raise RuntimeError(done.stderr[-4000:])
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    result["said"] = [line for line in done.stderr.splitlines() if not line.startswith("INFO:")][-40:]
    return result
