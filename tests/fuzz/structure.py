"""Where the numbers of a .tflite stand: what a mutation has to hit to be more than noise.

A plain walk over a file known to be good, by a table of the schema. Constants are most of a file and its dullest part;
a mutation of random bytes rarely meets anything else.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

# Table -> number of a field -> what it is: a number ("i4": an integer of 4 bytes, "f4": a float), a vector of numbers
# ("[i4]"), a table ("Quantization") or a vector of tables ("[Tensor]").
SCHEMA = {
    "Model": {
        0: "i4",
        1: "[OperatorCode]",
        2: "[SubGraph]",
        3: "[i1]",
        4: "[Buffer]",
        6: "[Metadata]",
        7: "[SignatureDef]",
    },
    "OperatorCode": {0: "i1", 1: "[i1]", 2: "i4", 3: "i4"},
    "SubGraph": {0: "[Tensor]", 1: "[i4]", 2: "[i4]", 3: "[Operator]", 4: "[i1]"},
    "Tensor": {0: "[i4]", 1: "i1", 2: "i4", 3: "[i1]", 4: "Quantization", 5: "i1", 7: "[i4]"},
    "Quantization": {0: "[f4]", 1: "[f4]", 2: "[f4]", 3: "[i8]", 4: "i1", 6: "i4"},
    "Operator": {0: "i4", 1: "[i4]", 2: "[i4]", 3: "i1", 4: "Options"},
    # Most fields of options are flags and enumerations; those of 4 bytes have their low byte here.
    "Options": dict.fromkeys(range(8), "i1"),
    "Buffer": {0: "[i1]", 1: "i8", 2: "i8"},
    "Metadata": {0: "[i1]", 1: "i4"},
    "SignatureDef": {0: "[TensorMap]", 1: "[TensorMap]", 2: "[i1]", 4: "i4"},
    "TensorMap": {0: "[i1]", 1: "i4"},
}
_LAYOUT_BYTES, _LAYOUT_VERSION = 12, 2


@dataclass(frozen=True)
class Place:
    """A number in a file: what it says ("Tensor.0 length"), where it stands, how wide it is.

    `points_to` is where an offset leads to, `table` the table whose field an offset is; `kind` is "i" (integer), "f"
    (float), "offset", "back" (to a vtable), or "length".
    """

    label: str
    kind: str
    position: int
    width: int
    points_to: int = 0
    table: int = 0


def places_of(content: bytes) -> dict[str, list[Place]]:
    """Return all numbers of a good file's metadata, and a few of each constant, by label."""
    found: dict[str, list[Place]] = {}
    root = struct.unpack_from("<I", content)[0]
    _note(found, Place("root", "offset", 0, 4, root))
    _walk_table(content, root, "Model", found)
    return found


def tables_in(found: dict[str, list[Place]], label: str) -> list[int]:
    """Return the positions of the tables in the vectors of tables with this label ("SubGraph.0")."""
    return [place.points_to for place in found.get(f"{label} item", []) if place.kind == "offset"]


def _note(found, place):
    found.setdefault(place.label, []).append(place)


def _walk_table(content, position, name, found):
    back = struct.unpack_from("<i", content, position)[0]
    vtable = position - back
    _note(found, Place(f"{name} back", "back", position, 4, vtable))
    size = struct.unpack_from("<H", content, vtable)[0]
    for i in range(size // 2):
        _note(found, Place(f"{name} vtable", "i", vtable + 2 * i, 2))
    for number, what in SCHEMA[name].items():
        at = 4 + 2 * number
        offset = struct.unpack_from("<H", content, vtable + at)[0] if at + 2 <= size else 0
        if offset:
            _walk_field(content, position, position + offset, f"{name}.{number}", what, found)


def _walk_field(content, table, position, label, what, found):
    if what[0] in "if":
        _note(found, Place(label, what[0], position, int(what[1])))
        return
    target = position + struct.unpack_from("<I", content, position)[0]
    _note(found, Place(f"{label} offset", "offset", position, 4, target, table))
    if what[0] != "[":
        _walk_table(content, target, what, found)
        return
    length = struct.unpack_from("<I", content, target)[0]
    _note(found, Place(f"{label} length", "length", target, 4))
    item = what[1:-1]
    if item in SCHEMA:
        for at in range(target + 4, target + 4 + 4 * length, 4):
            points_to = at + struct.unpack_from("<I", content, at)[0]
            _note(found, Place(f"{label} item", "offset", at, 4, points_to))
            _walk_table(content, points_to, item, found)
        return
    kind, width = item[0], int(item[1])
    if label == "Buffer.0":
        # The layout entry of a normalised file, shapes and axes; of weights, the first values will do.
        is_layout = length == _LAYOUT_BYTES and struct.unpack_from("<I", content, target + 4)[0] == _LAYOUT_VERSION
        label, kind, width = ("layout" if is_layout else "constant"), "i", 4
        _note(found, Place(f"{label} size", "length", target, 4))
        length //= 4
    for i in range(min(length, 8)):
        _note(found, Place(f"{label} item", kind, target + 4 + width * i, width))
