"""An accelerator as a TOML file: the fields of `Accelerator`, alone or over those of a preset."""

from __future__ import annotations

import sys
from dataclasses import MISSING, asdict, fields
from typing import TYPE_CHECKING, Any, Final

from hwmodel.accelerator import Accelerator
from hwmodel.errors import AcceleratorError
from hwmodel.presets import PRESETS

if TYPE_CHECKING:
    from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["read_accelerator"]

_ENERGIES: Final = tuple(field.name for field in fields(Accelerator) if field.name.endswith("_pj"))


def read_accelerator(path: Path) -> Accelerator:
    """Read the TOML file `path`.

    Keys are the fields of `Accelerator`; `preset` may name a preset whose values stand where the file has none. Without
    one, all fields without a default must be there, except `name`, which is then the file's name. A file that changes
    the word of its preset must state all energies: those of the preset are for its own word.

    Raises
    ------
    AcceleratorError
        The file cannot be read, is no TOML, has an unknown key or a wrong value, or a field is missing.
    """
    values = _read_toml(path)
    preset = values.pop("preset", None)
    known = [field.name for field in fields(Accelerator)]
    for key in values:
        if key not in known:
            raise AcceleratorError(f"{path}: unknown key '{key}': the known ones are preset, {', '.join(known)}")
    base: dict[str, Any] = {}
    if preset is not None:
        if preset not in PRESETS:
            raise AcceleratorError(f"{path}: preset is {preset!r}: expected one of {', '.join(sorted(PRESETS))}")
        base = asdict(PRESETS[preset])
        unstated = [name for name in _ENERGIES if name not in values]
        if unstated and values.get("word", base["word"]) != base["word"]:
            raise AcceleratorError(
                f"{path}: the energies of preset {preset} are for words of {base['word']}: "
                f"state {', '.join(unstated)} for words of {values['word']}"
            )
    values = {**base, "name": path.stem, **values}
    missing = [field.name for field in fields(Accelerator) if field.default is MISSING and field.name not in values]
    if missing:
        raise AcceleratorError(f"{path}: {', '.join(missing)} must be stated, or a preset to take the rest from")
    try:
        return Accelerator(**values)
    except AcceleratorError as error:
        raise AcceleratorError(f"{path}: {error}") from error


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise AcceleratorError(f"{path}: cannot be read ({error.strerror}): check the file's name") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise AcceleratorError(f"{path}: is not valid TOML: {error}") from error
