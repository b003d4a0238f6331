"""Keys: one text for one request.

An exact key is the SHA-256 of the fields' canonical JSON (sorted names, no spaces, ASCII). Two mappings give the same
key exactly if they have the same names with equal values:

- the order in which the fields are given does not matter; the order inside a tuple does, so sort what is a set;
- numbers are compared by value, not by type: 1 and 1.0 are one, so are 0.0 and -0.0; 0.1 is the double nearest to it,
  written with the fewest digits that give that double back, so it is the same on every machine;
- True and False are not 1 and 0, and the text "1" is not the number 1;
- NaN and the infinities are refused: a limit that is not a number is a mistake in the request, not a setting to
  remember.

A plan key spells out the classes instead, since a plan for more classes may do for fewer: `SETTINGS/2-7-11/WEIGHTS`,
where SETTINGS is the exact key of everything but the user, and WEIGHTS are 16 hexadecimal digits of the weights'
digest. So the plans that might do are found from the keys alone.

The cache knows nothing of what the fields mean. A field for the version of whatever computes the value is the caller's
part, and so is rounding, but for the weights of a plan key.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cache.errors import KeyFieldError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypeAlias

__all__ = ["KeyField", "PlanKey", "exact_key", "parse_plan_key", "plan_key"]

KeyField: TypeAlias = "str | int | float | bool | tuple[KeyField, ...] | None"
"""What a field of a key may be: plain, immutable, and with one written form."""

_WEIGHT_DECIMALS = 9  # weights that differ by less come from the order of a sum, not from another user
_WEIGHTS_DIGITS = 16
_SETTINGS = re.compile(r"[0-9a-f]{64}")
_PLAN_KEY = re.compile(r"([0-9a-f]{64})/((?:0|[1-9][0-9]*)(?:-[1-9][0-9]*)*)/([0-9a-f]{16})")


@dataclass(frozen=True, slots=True)
class PlanKey:
    """A plan key in its parts."""

    settings: str
    """`exact_key` of everything but the user."""
    classes: tuple[int, ...]
    """The user's classes, ascending."""
    weights: str
    """Digest of their weights, 16 hexadecimal digits."""


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


def plan_key(settings: str, classes: Sequence[int], weights: Sequence[float]) -> str:
    """Name the plan for a user's classes under some settings.

    Parameters
    ----------
    settings
        `exact_key` of everything that the plan depends on, but for the user.
    classes
        The user's classes, ascending.
    weights
        How often each of them comes up, rounded here to 9 decimals; none where the plan does not depend on that.

    Raises
    ------
    KeyFieldError
        If `settings` is no exact key, a class is no whole number from 0 on or not above the one before it, there are no
        classes, or a weight is not finite or not a number.

    Examples
    --------
    >>> plan_key(exact_key(model="5f2c"), (2, 7, 11), (0.5, 0.25, 0.25))[64:]
    '/2-7-11/76d2930ae8d93b97'
    """
    if not _SETTINGS.fullmatch(settings):
        raise KeyFieldError(f"settings {settings!r} of a plan key are no digest: give what exact_key returns")
    labels = [int(label) for label in classes]
    if labels != list(classes) or not labels or labels[0] < 0 or sorted(set(labels)) != labels:
        raise KeyFieldError(f"classes {tuple(classes)!r} of a plan key: give whole numbers from 0 on, ascending")
    digest = exact_key(weights=tuple(round(float(weight), _WEIGHT_DECIMALS) for weight in weights))
    return f"{settings}/{'-'.join(map(str, labels))}/{digest[:_WEIGHTS_DIGITS]}"


def parse_plan_key(key: str) -> PlanKey | None:
    """Return the parts of a plan key; None for any other text.

    Examples
    --------
    >>> parse_plan_key(plan_key(exact_key(model="5f2c"), (2, 7), ())).classes
    (2, 7)
    >>> parse_plan_key(exact_key(model="5f2c")) is None
    True
    """
    match = _PLAN_KEY.fullmatch(key)
    if match is None:
        return None
    classes = tuple(map(int, match[2].split("-")))
    if any(later <= earlier for earlier, later in itertools.pairwise(classes)):
        return None
    return PlanKey(match[1], classes, match[3])


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
