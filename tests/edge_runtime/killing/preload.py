"""The counting library: compiled here, and spoken to from a process that has it preloaded."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

__all__ = ["LIBRARY", "compile_library", "preloaded"]

LIBRARY = "CAPNN_TEST_OPERATIONS"
"""Environment variable with the library's path, in a process that has it preloaded."""


def compile_library(folder: Path) -> Path | None:
    """Return the library, made in `folder`; None without a C compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    library = folder / "operations.so"
    source = Path(__file__).with_name("operations.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    return library


def preloaded() -> ctypes.CDLL:
    """Return the library in this process."""
    library = ctypes.CDLL(os.environ[LIBRARY])
    library.watch.argtypes = [ctypes.c_char_p, ctypes.c_long, ctypes.c_int, ctypes.c_int]
    library.operations.restype = ctypes.c_long
    return library
