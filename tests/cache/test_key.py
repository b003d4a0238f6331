from __future__ import annotations

import enum
import hashlib
import math
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache import KeyFieldError, PlanKey, exact_key, parse_plan_key, plan_key

if TYPE_CHECKING:
    from cache import KeyField

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.integers()
    | st.sampled_from([0.0, -0.0, 1.0, 0.1, 0.1 + 0.2, 0.3, 2.0**60, 5e-324])
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text('a1é"\ud800', max_size=3),
    lambda items: st.lists(items, max_size=3).map(tuple),
    max_leaves=5,
)
FIELDS = st.dictionaries(st.sampled_from(["a", "b", "ab", "classes"]), PLAIN, max_size=3)


def same(left: object, right: object) -> bool:
    """Equal as the key promises: numbers by value, but booleans, texts and tuples only among their own."""
    if isinstance(left, tuple) and isinstance(right, tuple):
        return len(left) == len(right) and all(map(same, left, right))
    return isinstance(left, bool) == isinstance(right, bool) and left == right


def test_the_written_form_is_pinned() -> None:
    """A change of this digest makes every stored file useless: it needs a new schema version."""
    text = '{"classes":[2,7],"epsilon":0.03,"folding":true,"layer":null,"model":"5f2c","weights":[0.1,1]}'
    key = exact_key(model="5f2c", classes=(2, 7), weights=(0.1, 1.0), epsilon=0.03, folding=True, layer=None)
    assert key == hashlib.sha256(text.encode()).hexdigest()


@given(fields=FIELDS, data=st.data())
def test_the_order_of_fields_does_not_matter(fields: dict[str, KeyField], data: st.DataObject) -> None:
    shuffled = dict(data.draw(st.permutations(list(fields.items()))))
    assert exact_key(**shuffled) == exact_key(**fields)


@given(left=FIELDS, right=FIELDS)
def test_keys_are_equal_exactly_if_the_fields_are(left: dict[str, KeyField], right: dict[str, KeyField]) -> None:
    fields_equal = left.keys() == right.keys() and all(same(left[name], right[name]) for name in left)
    assert (exact_key(**left) == exact_key(**right)) == fields_equal


@given(number=st.integers(-(2**53), 2**53))
def test_a_whole_number_gives_one_key_in_either_type(number: int) -> None:
    assert exact_key(epsilon=number) == exact_key(epsilon=float(number))


@given(number=st.floats(allow_nan=False, allow_infinity=False))
def test_neighbouring_floats_give_different_keys(number: float) -> None:
    above = math.nextafter(number, math.inf)
    if math.isfinite(above):
        assert exact_key(epsilon=above) != exact_key(epsilon=number)


def test_the_order_inside_a_tuple_matters() -> None:
    assert exact_key(classes=(2, 7)) != exact_key(classes=(7, 2))


def test_subclasses_of_plain_types_give_the_key_of_their_value() -> None:
    class Depth(enum.IntEnum):
        LAST = 3

    class Variant(str, enum.Enum):
        B = "B"

    assert exact_key(depth=Depth.LAST, variant=Variant.B) == exact_key(depth=3, variant="B")
    assert exact_key(epsilon=np.float64(0.1)) == exact_key(epsilon=0.1)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_refused_by_name(number: float) -> None:
    with pytest.raises(KeyFieldError, match=r"key field 'weights\[1\]' is .*: give a finite number"):
        exact_key(weights=(0.5, number))


@pytest.mark.parametrize("value", [[1], {1}, {"a": 1}, b"1", np.int64(1), np.float32(1), np.ones(1), Fraction(1)])
def test_a_value_without_one_written_form_is_refused_by_name_and_type(value: object) -> None:
    with pytest.raises(KeyFieldError, match=f"key field 'classes' is of type {type(value).__name__}: give text"):
        exact_key(classes=value)  # type: ignore[arg-type]


SETTINGS = exact_key(model="5f2c")
CLASSES = st.sets(st.integers(0, 2000), min_size=1, max_size=20).map(lambda labels: tuple(sorted(labels)))


class TestPlanKey:
    def test_the_written_form_is_pinned(self) -> None:
        """A change makes every stored file useless: it needs a new schema version."""
        weights = hashlib.sha256(b'{"weights":[0.5,0.25,0.25]}').hexdigest()[:16]
        assert plan_key(SETTINGS, (2, 7, 11), (0.5, 0.25, 0.25)) == f"{SETTINGS}/2-7-11/{weights}"

    @given(classes=CLASSES, weights=st.lists(st.floats(0, 1), max_size=3))
    def test_comes_apart_into_what_it_was_made_of(self, classes: tuple[int, ...], weights: list[float]) -> None:
        key = plan_key(SETTINGS, classes, weights)
        parsed = parse_plan_key(key)
        assert parsed == PlanKey(SETTINGS, classes, key[-16:])

    @given(text=st.text("0123-/af", max_size=30))
    def test_other_texts_are_none(self, text: str) -> None:
        parsed = parse_plan_key(f"{SETTINGS}/{text}")
        if parsed is not None:
            assert f"{SETTINGS}/{text}" == f"{parsed.settings}/{'-'.join(map(str, parsed.classes))}/{parsed.weights}"
            assert sorted(set(parsed.classes)) == list(parsed.classes)
        assert parse_plan_key(text) is None

    @pytest.mark.parametrize("classes", ["02-7", "7-2", "2-2", "-2", "2-", "", "2--7", "two", "\u0662"])
    def test_classes_that_are_not_written_as_ours_are_none(self, classes: str) -> None:
        assert parse_plan_key(f"{SETTINGS}/{classes}/0123456789abcdef") is None

    def test_weights_are_rounded(self) -> None:
        thirds = (1 / 3, 1 / 3, 1 - 1 / 3 - 1 / 3)
        assert plan_key(SETTINGS, (2, 7, 11), thirds) == plan_key(SETTINGS, (2, 7, 11), (1 / 3,) * 3)
        assert plan_key(SETTINGS, (2, 7, 11), thirds) != plan_key(SETTINGS, (2, 7, 11), (0.3333, 0.3333, 0.3334))
        assert plan_key(SETTINGS, (2, 7, 11), thirds) != plan_key(SETTINGS, (2, 7, 11), ())

    def test_takes_numpys_integers(self) -> None:
        assert plan_key(SETTINGS, list(np.array([2, 7])), ()) == plan_key(SETTINGS, (2, 7), ())

    @pytest.mark.parametrize("classes", [(), (7, 2), (2, 2), (-1, 2), (2.5,)])
    def test_classes_that_are_no_ascending_whole_numbers_are_refused(self, classes: tuple[int, ...]) -> None:
        with pytest.raises(KeyFieldError, match="classes .* of a plan key: give whole numbers from 0 on, ascending"):
            plan_key(SETTINGS, classes, ())

    def test_settings_that_are_no_digest_are_refused(self) -> None:
        with pytest.raises(KeyFieldError, match="settings 'B' of a plan key are no digest: give what exact_key"):
            plan_key("B", (2,), ())

    def test_a_weight_that_is_not_finite_is_refused(self) -> None:
        with pytest.raises(KeyFieldError, match=r"weights\[0\]"):
            plan_key(SETTINGS, (2,), (math.nan,))
