"""A model on a series of accelerators that differ in one field, or in several that move together."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, replace
from typing import Any, Final

from hwmodel.accelerator import Accelerator
from hwmodel.errors import HardwareError

__all__ = ["Sweep"]

SWEPT: Final = tuple(
    field.name
    for field in fields(Accelerator)
    if field.name in {"rows", "columns", "vector_lanes", "clock_mhz", "dram_gb_s"}
    or field.name.endswith(("_kib", "_pj"))
)
"""Fields that can be swept."""
_STEPS_MAX: Final = 64


@dataclass(frozen=True, slots=True)
class Sweep:
    """Which fields move, through which values.

    `parse("rows=8..256")` doubles from 8 to 256; the last value is always the end of the range.
    """

    fields: tuple[str, ...]
    values: tuple[float, ...]

    @classmethod
    def parse(cls, text: str) -> Sweep:
        """Read FIELD[,FIELD...]=FIRST..LAST.

        Raises
        ------
        HardwareError
            The text is of another form, names a field that cannot be swept, or has no range.

        Examples
        --------
        >>> Sweep.parse("rows,columns=8..100")
        Sweep(fields=('rows', 'columns'), values=(8, 16, 32, 64, 100))
        """
        match = re.fullmatch(r"\s*([a-z_,\s]+?)\s*=\s*([0-9.]+?)\s*\.\.\s*([0-9.]+)\s*", text)
        if match is None:
            raise HardwareError(f"sweep {text!r}: expected FIELD=FIRST..LAST, such as rows=8..256")
        names = tuple(name.strip() for name in match[1].split(","))
        for name in names:
            if name not in SWEPT:
                raise HardwareError(f"sweep {text!r}: {name!r} cannot be swept: expected one of {', '.join(SWEPT)}")
        try:
            first, last = (float(part) for part in match.groups()[1:])
        except ValueError:
            raise HardwareError(f"sweep {text!r}: expected two numbers around the two dots") from None
        if not 0 < first <= last:
            raise HardwareError(f"sweep {text!r}: expected a range that starts above 0 and does not fall")
        values = [first]
        while values[-1] < last:
            values.append(min(2 * values[-1], last))
        if len(values) > _STEPS_MAX:
            raise HardwareError(f"sweep {text!r}: doubles {len(values)} times: expected a range of {_STEPS_MAX} steps")
        return cls(names, tuple(int(value) if value.is_integer() else value for value in values))

    @property
    def label(self) -> str:
        """What moves, for a heading: "rows, columns"."""
        return ", ".join(self.fields)

    def accelerators(self, accelerator: Accelerator) -> list[Accelerator]:
        """Return the accelerators, in order.

        Raises
        ------
        AcceleratorError
            A value does not fit its field.
        """
        changes: list[dict[str, Any]] = [dict.fromkeys(self.fields, value) for value in self.values]
        return [replace(accelerator, **change) for change in changes]
