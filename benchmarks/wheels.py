"""Which of the device's packages have wheels for small machines, where nothing should have to be compiled.

`python -m benchmarks.wheels --json`; needs a package index. For each of `PLATFORMS` pip looks for what `pip install
capnn` would take there, with everything that needs in turn, and takes no source. 32-bit ARM has the older interpreter
in place of ai-edge-litert (the extra `tflite-runtime`). `with_wheel_*` is the share of the requirements that have one;
the context names the others.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from benchmarks.command import main

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PYTHON = "3.11"
_GLIBC = (36, 35, 34, 31, 28, 27, 17)
# Machine -> the platforms that a system on it with glibc 2.36 (Debian 12) takes wheels for.
PLATFORMS = {
    machine: [*(f"manylinux_2_{minor}_{machine}" for minor in _GLIBC), f"manylinux2014_{machine}", f"linux_{machine}"]
    for machine in ("aarch64", "armv7l")
}
_EXTRA = {"armv7l": "tflite-runtime"}


def measure() -> dict[str, Any]:
    """Return the JSON object: `with_wheel_*`, and what has none."""
    without = {machine: without_wheel(machine) for machine in PLATFORMS}
    ratios = {
        f"with_wheel_{machine}": 1 - len(names) / len(requirements(machine)) for machine, names in without.items()
    }
    return {"ratios": ratios, "context": {"without_wheel": without}}


def without_wheel(machine: str) -> list[str]:
    """Return the requirements for which pip finds no wheels for `machine`, their own requirements included."""
    needed = [str(requirement) for requirement in requirements(machine)]
    return [] if _have_wheels(needed, machine) else [one for one in needed if not _have_wheels([one], machine)]


def requirements(machine: str) -> list[Requirement]:
    """Return what the project needs on `machine`, markers resolved: pip would take this machine's for them."""
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    texts = project["dependencies"] + project["optional-dependencies"].get(_EXTRA.get(machine, ""), [])
    there = {"platform_machine": machine, "python_version": PYTHON, "sys_platform": "linux"}
    found = [Requirement(text) for text in texts]
    needed = [one for one in found if one.marker is None or one.marker.evaluate(there)]
    for one in needed:
        one.marker = None
    return needed


def _have_wheels(requirements: list[str], machine: str) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--disable-pip-version-check"]
        target = ["--target", folder, "--only-binary=:all:", "--python-version", PYTHON, "--implementation", "cp"]
        platforms = [option for name in PLATFORMS[machine] for option in ("--platform", name)]
        done = subprocess.run([*command, *target, *platforms, *requirements], capture_output=True, check=False)
    return done.returncode == 0


if __name__ == "__main__":
    main(measure, needs_data=False)
