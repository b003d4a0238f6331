from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cache import Entry
from cache.entry import HEADER_BYTES, decode, encode, told

KEYS = st.text(st.characters(codec="utf-8"), max_size=20)
ENTRIES = st.builds(Entry, st.binary(max_size=50), st.floats(0, 1e9))


@given(key=KEYS, entry=ENTRIES, created=st.floats(0, 1e10))
def test_an_entry_comes_back_under_its_key(key: str, entry: Entry, created: float) -> None:
    kept = encode(key, entry, created)
    assert decode(key, kept) == entry
    info = told(key, kept[:HEADER_BYTES], len(kept), None)
    assert (info.key, info.bytes, info.cost, info.created) == (
        key, len(key.encode()) + len(entry.value), entry.cost, created
    )  # fmt: skip


@given(key=KEYS, other=KEYS, entry=ENTRIES)
def test_under_another_key_it_is_none(key: str, other: str, entry: Entry) -> None:
    assert (decode(other, encode(key, entry, 1e9)) is None) == (key != other)


def test_every_single_flipped_bit_is_noticed() -> None:
    kept = encode("00", Entry(b"a plan", 2.5), 1e9)
    for position in range(8 * len(kept)):
        flipped = bytearray(kept)
        flipped[position // 8] ^= 1 << position % 8
        assert decode("00", bytes(flipped)) is None


def test_every_other_length_is_noticed() -> None:
    kept = encode("00", Entry(b"a plan", 2.5), 1e9)
    assert all(decode("00", kept[:length]) is None for length in range(len(kept)))
    assert decode("00", kept + b"\0") is None
