"""The package's public face: what `__all__` names is there, once, and importing it loads nothing heavy."""

from __future__ import annotations

import subprocess
import sys

import pytest

import cloud_pruner
from edge_runtime import flatmodel


@pytest.mark.parametrize("package", [cloud_pruner, flatmodel], ids=lambda package: package.__name__)
def test_all_names_are_there(package):
    assert list(package.__all__) == sorted(package.__all__, key=lambda name: (name.lower() == name, name))
    assert all(getattr(package, name) is not None for name in package.__all__)


def test_other_names_are_not():
    with pytest.raises(AttributeError, match="no attribute 'frobnicate'"):
        cloud_pruner.frobnicate  # noqa: B018


def test_importing_is_light():
    script = "import sys, cloud_pruner, cloud_pruner.cli; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert not {"tensorflow", "keras", "sklearn", "fastapi", "numpy"} & set(modules)
