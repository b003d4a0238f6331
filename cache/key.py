"""Keys: one digest for one request.

A key is the SHA-256 of the fields' canonical JSON (sorted names, no spaces, ASCII). Two mappings give the same key
exactly if they have the same names with equal values:

- the order in which the fields are given does not matter; the order inside a tuple does, so sort what is a set;
- numbers are compared by value, not by type: 1 and 1.0 are one, so are 0.0 and -0.0; 0.1 is the double nearest to it,
  written with the fewest digits that give that double back, so it is the same on every machine;
- True and False are not 1 and 0, and the text "1" is not the number 1;
- NaN and the infinities are refused: a limit that is not a number is a mistake in the request, not a setting to
  remember.

The cache knows nothing of what the fields mean. Rounding, and a field for the version of whatever computes the value,
are the caller's part.
"""

from __future__ import annotations

import hashlib
import json
import math
from typing import TYPE_CHECKING

from cache.errors import KeyFieldError

if TYPE_CHECKING:
    from typing import TypeAlias

__all__ = ["KeyField", "exact_key"]

KeyField: TypeAlias = "str | int | float | bool | tuple[KeyField, ...] | None"
"""What a field of a key may be: plain, immutable, and with one written form."""


def exact_key(**fields: KeyField) -> str:
    """Digest the fields that determine a result.

    Parameters
    ----------
    **fields
        Text, numbers, booleans, None, and tuples of these, by name.

    Returns
    -------
    str
        64 lowercase hexadecimal digits.

    Raises
    ------
    KeyFieldError
        If a value is of another type (numpy's integers and arrays, lists and sets among them), or not finite.

    Examples
    --------
    >>> exact_key(model="5f2c", epsilon=0.03, classes=(2, 7)) == exact_key(classes=(2, 7), model="5f2c", epsilon=0.03)
    True
    >>> exact_key(epsilon=1) == exact_key(epsilon=1.0)
    True
    """
    plain = {name: _canonical(name, value) for name, value in fields.items()}
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def _canonical(name: str, value: object) -> str | int | float | bool | list[object] | None:
    """Bring a value to the one form in which it is digested."""
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise KeyFieldError(f"key field {name!r} is {value}: give a finite number")
        # A whole number is written as an integer, whichever type it came in. Both types hold it exactly.
        return int(value) if value.is_integer() else float(value)
    if isinstance(value, tuple):
        return [_canonical(f"{name}[{position}]", item) for position, item in enumerate(value)]
    raise KeyFieldError(
        f"key field {name!r} is of type {type(value).__name__}: "
        "give text, an int, a float, a bool, None, or a tuple of these"
    )
