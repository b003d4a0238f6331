"""Mutations of .tflite files: of bytes, and of what the bytes say (`structure`)."""

from __future__ import annotations

import struct
from functools import lru_cache

from tests.fuzz.structure import places_of, tables_in

_FORMATS = {1: "<B", 2: "<H", 4: "<I", 8: "<Q"}
_FLOATS = (0.0, -0.0, -1.0, 1e-45, 1e-38, 3e38, float("inf"), float("-inf"), float("nan"))
_SIDES = (0, 1, 2, 3, 7, 64, 255, 1 << 15, 46341, 1 << 16, (1 << 31) - 1, (1 << 32) - 1)
_LISTS = ("Model.1", "Model.2", "Model.4", "Model.6", "Model.7", "SubGraph.0", "SubGraph.3", "SignatureDef.0")
_INNER_LISTS = ("SubGraph.0", "SignatureDef.0")

_places = lru_cache(maxsize=64)(places_of)


def mutated(content: bytes, other: bytes, rng) -> bytes:
    """Return `content` after one to four mutations; `other` is a file to splice with."""
    broken = bytearray(content)
    found = _places(content)
    for _ in range(rng.choice((1, 1, 1, 1, 2, 2, 3))):
        # Positions are those of the whole file: what changes lengths comes last.
        rng.choice(_IN_PLACE)(broken, found, rng)
    if rng.random() < 0.25:
        broken = rng.choice(_RESHAPING)(broken, found, rng, content, other)
    return bytes(broken)


def _put(broken, position, width, value):
    if position + width <= len(broken):
        struct.pack_into(_FORMATS[width], broken, position, value & ((1 << 8 * width) - 1))


def _get(broken, position, width):
    return struct.unpack_from(_FORMATS[width], broken, position)[0]


def _pick(found, rng, *, kinds=("i", "f", "offset", "back", "length")):
    """A place; every label is as likely as any other, however often it occurs."""
    while True:
        place = rng.choice(found[rng.choice(list(found))])
        if place.kind in kinds:
            return place


def _set_number(broken, found, rng):
    # Offsets, lengths and vtables are most labels; what they hold decides how a file is cut.
    place = _pick(found, rng, kinds=("i", "f")) if rng.random() < 0.5 else _pick(found, rng)
    while place.label.endswith("vtable") and rng.random() < 0.8:
        place = _pick(found, rng)
    if place.kind == "f":
        struct.pack_into("<f", broken, place.position, rng.choice(_FLOATS))
        return
    before, most = _get(broken, place.position, place.width), 1 << 8 * place.width
    extremes = (
        0,
        1,
        2,
        most - 1,
        most // 2 - 1,
        most // 2,
        before + 1,
        before - 1,
        before * 2,
        before // 2,
        before ^ 4,
    )
    extremes += (len(broken), len(broken) - place.position, rng.randrange(most), rng.randrange(64))
    _put(broken, place.position, place.width, rng.choice(extremes))


def _swap_numbers(broken, found, rng):
    """Give one number the value of another one of its label: another tensor's buffer, shape side or operator code."""
    first = _pick(found, rng)
    second = rng.choice(found[first.label])
    _put(broken, first.position, first.width, _get(broken, second.position, second.width))


def _redirect(broken, found, rng):
    """Let an offset point to what another one of its label points to, to anything at all, near it, or to itself."""
    place = _pick(found, rng, kinds=("offset", "back"))
    other = rng.choice(found[place.label]) if rng.random() < 0.6 else _pick(found, rng, kinds=("offset", "back"))
    target = other.points_to + rng.choice((0, 0, 0, 0, 4, -4, 1, 8))
    if rng.random() < 0.1:
        target = place.position
    _put(broken, place.position, 4, target - place.position if place.kind == "offset" else place.position - target)


def _set_bytes(broken, _, rng):
    for _ in range(rng.randint(1, 4)):
        broken[rng.randrange(len(broken))] = rng.randrange(256)


def _flip_bits(broken, _, rng):
    for _ in range(rng.randint(1, 8)):
        broken[rng.randrange(len(broken))] ^= 1 << rng.randrange(8)


def _copy_piece(broken, _, rng):
    size = rng.choice((4, 8, 16, 64, 256))
    source, target = rng.randrange(len(broken)), rng.randrange(len(broken))
    piece = broken[source : source + size]
    broken[target : target + len(piece)] = piece[: len(broken) - target]


def _scale_maps(broken, found, rng):
    """Give all maps another height and width, as they may be: only the channels must fit the weights."""
    height, width, batch = rng.choice(_SIDES), rng.choice(_SIDES), rng.choice((1, 1, 1, *_SIDES))
    for place in found.get("Tensor.0 length", ()):
        if _get(broken, place.position, 4) != 4 or _get(broken, place.position + 4, 4) != 1:
            continue
        for side, value in ((1, batch), (2, height), (3, width)):
            _put(broken, place.position + 4 * side, 4, value)


def _set_shape(broken, found, rng):
    length = rng.choice(found["Tensor.0 length"])
    for side in range(min(_get(broken, length.position, 4), 8)):
        if rng.random() < 0.6:
            _put(broken, length.position + 4 + 4 * side, 4, rng.choice(_SIDES))


def _rewire(broken, found, rng):
    """Let an operator read or write another tensor."""
    label = rng.choice(("Operator.1 item", "Operator.2 item", "SubGraph.1 item", "SubGraph.2 item", "Operator.0"))
    place = rng.choice(found.get(label) or found["SubGraph.1 item"])
    _put(broken, place.position, 4, rng.randrange(-1, len(found["Tensor back"]) + 1))


def _truncate(broken, _, rng, content, other):
    return broken[: rng.randrange(len(broken))]


def _insert(broken, _, rng, content, other):
    at, size = rng.randrange(len(broken)), rng.choice((1, 4, 16, 100))
    return broken[:at] + bytes(rng.randrange(256) for _ in range(size)) + broken[at:]


def _cut_out(broken, _, rng, content, other):
    at = rng.randrange(len(broken))
    return broken[:at] + broken[at + rng.choice((1, 4, 16, 100)) :]


def _splice(broken, _, rng, content, other):
    return broken[: rng.randrange(len(broken))] + other[rng.randrange(len(other)) :]


def _amplify(broken, found, rng, content, other):
    if rng.random() < 0.2:
        # Many entries, each of which has many entries.
        content = broken = amplified(content, content, *_some_list(found, rng, _INNER_LISTS), 300)
        found = places_of(content)
    vector, table = _some_list(found, rng, _LISTS)
    items = rng.choice((None, struct.pack("<i", rng.choice((0, 1, 2, -1))) * rng.choice((1, 100, 4000, 4000))))
    return amplified(bytes(broken), content, vector, table, rng.choice((3, 300, 3000)), items)


def _some_list(found, rng, labels):
    """A list of tables: where the offset to it stands, and the position of one of its tables."""
    label = rng.choice([label for label in labels if found.get(f"{label} item")])
    return rng.choice(found[f"{label} offset"]).position, rng.choice(tables_in(found, label))


def amplified(
    broken: bytes, content: bytes, vector: int, table: int, entries: int, items: bytes | None = None
) -> bytes:
    """Replace a list of tables by one of many entries that all point to one table.

    `broken` is what has become of the file `content`. The offset at `vector` then leads to `entries` entries, which all
    lead to the table at `table`, in a copy of `content` behind them (offsets lead forwards only). With `items`, 4 bytes
    each, all lists and tables in that table become these.
    """
    copied = bytearray(content + bytes(-len(content) % 4))
    if items is not None:
        for places in _places(content).values():
            for place in places:
                if place.kind == "offset" and place.table == table:
                    _put(copied, place.position, 4, len(copied) - place.position)
        copied += struct.pack("<I", len(items) // 4) + items
    start = bytearray(broken + bytes(-len(broken) % 4))
    at, copy_at = len(start), len(start) + 4 + 4 * entries
    _put(start, vector, 4, at - vector)
    to_table = b"".join(struct.pack("<I", copy_at + table - (at + 4 + 4 * i)) for i in range(entries))
    return bytes(start) + struct.pack("<I", entries) + to_table + bytes(copied)


_IN_PLACE = (
    *(_set_number, _set_number, _set_number, _swap_numbers, _swap_numbers, _redirect, _redirect),
    *(_set_bytes, _flip_bits, _copy_piece, _scale_maps, _set_shape, _rewire),
)
_RESHAPING = (_truncate, _insert, _cut_out, _splice, _amplify, _amplify)
