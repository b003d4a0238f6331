from __future__ import annotations

import doctest
import importlib
import pkgutil
import subprocess
import sys

import pytest

import hwmodel

MODULES = sorted(f"hwmodel.{module.name}" for module in pkgutil.iter_modules(hwmodel.__path__))


def test_all_is_exactly_what_the_package_offers() -> None:
    offered = {
        name
        for name, value in vars(hwmodel).items()
        if not name.startswith("_") and name != "annotations" and not isinstance(value, type(hwmodel))
    }
    assert set(hwmodel.__all__) == offered
    assert len(hwmodel.__all__) == len(offered)


def test_every_error_is_a_hardware_error() -> None:
    assert issubclass(hwmodel.AcceleratorError, hwmodel.HardwareError)
    assert issubclass(hwmodel.AcceleratorError, ValueError)


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_in_docstrings_are_true(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_the_command_needs_nothing_beyond_the_light_install() -> None:
    code = (
        "import sys, hwmodel.cli; print(*{'tensorflow', 'keras', 'rich', 'matplotlib', 'sklearn'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
