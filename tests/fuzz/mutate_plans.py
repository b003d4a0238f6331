"""Mutations of pruning plans: of bytes, and of the values that they encode."""

from __future__ import annotations

import msgpack

_VALUES = (
    *(0, 1, -1, 7, 8, 9, 255, 1 << 15, (1 << 31) - 1, 1 << 31, 1 << 40, (1 << 63) - 1, (1 << 64) - 1, -(1 << 63)),
    *(1074, -1074, 1024, -1025, 300, -300, 120, -140, 10**9, -(10**9)),
    *(0.0, 1.5, 2.0, float("nan"), float("inf"), float("-inf"), 1e300),
    *(None, True, False, "", "5", "x" * 300, b"", b"\0", b"\xff" * 9, b"\xff" * 4000),
    *([], [[]], {}, {"tensor": 1}, [1] * 5000, msgpack.Timestamp(0), msgpack.ExtType(5, b"x")),
)
# A list grows 5000 times; a second one inside of it would make gigabytes.
_SIZE_MAX = 100_000


def mutated_plan(content: bytes, rng) -> bytes:
    """Return an encoded plan after one to three mutations."""
    choice = rng.random()
    if choice < 0.1:
        return _claiming(rng)
    if choice < 0.85:
        fields = msgpack.unpackb(content)
        for _ in range(rng.choice((1, 1, 2, 3))):
            # One of the cuts, rather than the version or the digest of the base.
            changed = _changed({"cuts": fields["cuts"]} if "cuts" in fields and rng.random() < 0.8 else fields, rng)
            fields = {**fields, **changed} if isinstance(changed, dict) else changed
            if not isinstance(fields, dict) or len(msgpack.packb(fields)) > _SIZE_MAX:
                break
        content = msgpack.packb(fields)
        if choice < 0.75:
            return content
    broken = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        broken[rng.randrange(len(broken))] = rng.choice((0, 0x90, 0xC1, 0xDC, 0xDD, 0xDF, 0xFF, rng.randrange(256)))
    if rng.random() < 0.3:
        del broken[rng.randrange(len(broken)) :]
    return bytes(broken)


def _claiming(rng) -> bytes:
    """Lists, maps and texts inside one another that claim to be far longer than the plan."""
    header = rng.choice((b"\xdc\xff\xff", b"\xdd\x7f\xff\xff\xff", b"\xdf\x00\xff\xff\xff", b"\x91", b"\x81\xa4cuts"))
    start = rng.choice(
        (b"", b"\x83\xa4plan\x01\xa4base\xa1a\xa4cuts", b"\xdb\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff")
    )
    return start + header * rng.choice((1, 3, 500, 2000)) + bytes(rng.choice((0, 10, 70000)))


def _changed(node, rng):
    """Change one thing anywhere below `node`."""
    kind = type(node)
    change = _CHANGES.get(kind) if node and rng.random() < _DEEPER.get(kind, 0) else None
    return change(node, rng) if change is not None else rng.choice(_VALUES)


def _changed_map(node, rng):
    key = rng.choice(list(node))
    if rng.random() < 0.05:
        return {name: value for name, value in node.items() if name != key}
    return {**node, key: _changed(node[key], rng)}


def _changed_list(node, rng):
    at = rng.randrange(len(node))
    if rng.random() < 0.1:
        return node + [node[at]] * rng.choice((1, 2, 5000))
    return [*node[:at], _changed(node[at], rng), *node[at + 1 :]]


def _changed_number(node, rng):
    return max(min(node + rng.choice((-1, 1, 8, -8, 30, -30, 130, 900)), (1 << 64) - 1), -(1 << 63))


def _changed_bytes(node, rng):
    choice = rng.random()
    if choice < 0.3:
        return node[: rng.randrange(len(node))]
    if choice < 0.4:
        return node * rng.choice((2, 3, 100))
    broken = bytearray(node)
    for _ in range(rng.randint(1, 4)):
        broken[rng.randrange(len(broken))] = rng.choice((0, 0x7F, 0x80, 0xFF, rng.randrange(256)))
    return bytes(broken)


_CHANGES = {dict: _changed_map, list: _changed_list, bytes: _changed_bytes, int: _changed_number}
# How often a value of a type is changed rather than replaced by another one.
_DEEPER = {dict: 0.95, list: 0.9, bytes: 0.6, int: 0.5}
