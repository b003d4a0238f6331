"""What a certificate says survives the way to the device, and a device believes only what the counts show."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.certificate import P_VALUES, Certificate, ClassEvidence, binomial_tail
from edge_runtime.errors import MessageError
from edge_runtime.messages import unpack

MODEL, CERTIFY_SET = "a1" * 32, "b2" * 32


def evidence(images: int, base_right: int, newly_wrong: int, newly_right: int, test: str = "binomial") -> ClassEvidence:
    p_value = P_VALUES[test](images, newly_wrong, newly_right, 0.03)
    return ClassEvidence(images, base_right, newly_wrong, newly_right, p_value)


def certificate(test: str = "binomial", **changes) -> Certificate:
    classes = {"cat": evidence(500, 430, 8, 11, test), "dog": evidence(300, 211, 1, 9, test)}
    return dataclasses.replace(Certificate(MODEL, CERTIFY_SET, test, 0.03, 0.1, classes), **changes)


def with_cat(**changes) -> Certificate:
    good = certificate()
    return dataclasses.replace(
        good, classes={**good.classes, "cat": dataclasses.replace(good.classes["cat"], **changes)}
    )


@pytest.mark.parametrize("test", P_VALUES)
def test_a_certificate_that_shows_what_it_claims_is_accepted(test):
    certificate(test).check(MODEL, ["dog", "cat"])


def test_one_for_more_classes_than_the_cut_has_is_accepted():
    certificate().check(MODEL, ["dog"])


@pytest.mark.parametrize("test", P_VALUES)
def test_it_survives_the_way_to_the_device(test):
    sent = certificate(test)
    assert Certificate.from_fields(unpack(sent.to_bytes())) == sent
    assert Certificate.from_fields(json.loads(json.dumps(sent.to_fields()))) == sent


@given(
    st.dictionaries(
        st.text(max_size=20),
        st.builds(ClassEvidence, *[st.integers(0, 1 << 40)] * 4, st.floats(allow_nan=False, allow_infinity=False)),
    ),
    st.randoms(),
)
def test_equal_certificates_are_equal_bytes(classes, random):
    """Also when the classes were put in in another order, and after a round trip: what is signed is what is checked."""
    names = list(classes)
    random.shuffle(names)
    first, second = certificate(classes=classes), certificate(classes={name: classes[name] for name in names})
    assert first.to_bytes() == second.to_bytes()
    assert Certificate.from_fields(unpack(first.to_bytes())).to_bytes() == first.to_bytes()


def test_any_change_changes_the_bytes():
    seen = {certificate().to_bytes()}
    changed = [
        certificate(model=CERTIFY_SET),
        certificate(certify_set=MODEL),
        dataclasses.replace(certificate(), test="betting"),
        certificate(epsilon=0.031),
        certificate(delta=0.05),
        *(with_cat(**{name: 1}) for name in ("images", "base_right", "newly_wrong", "newly_right", "p_value")),
    ]
    seen.update(other.to_bytes() for other in changed)
    assert len(seen) == 1 + len(changed)


@pytest.mark.parametrize("name", ["version", "model", "certify_set", "test", "epsilon", "delta", "classes"])
@pytest.mark.parametrize("value", [None, "absent", [], True, math.nan], ids=str)
def test_a_field_that_is_missing_or_of_another_kind_is_named(name, value):
    fields = certificate().to_fields()
    if value == "absent":
        del fields[name]
    else:
        fields[name] = value
    with pytest.raises(MessageError, match=f"certificate: field '{name}'"):
        Certificate.from_fields(fields)


@pytest.mark.parametrize("name", ["images", "base_right", "newly_wrong", "newly_right", "p_value"])
@pytest.mark.parametrize("value", [None, "absent", "1", True, math.inf], ids=str)
def test_a_field_of_a_class_that_is_missing_or_of_another_kind_is_named(name, value):
    fields = certificate().to_fields()
    if value == "absent":
        del fields["classes"]["cat"][name]
    else:
        fields["classes"]["cat"][name] = value
    with pytest.raises(MessageError, match=f"certificate: cat: field '{name}'"):
        Certificate.from_fields(fields)


def test_a_later_version_is_refused():
    with pytest.raises(MessageError, match="version 2 is not understood here"):
        Certificate.from_fields({**certificate().to_fields(), "version": 2})


def test_unknown_fields_are_ignored():
    assert Certificate.from_fields({**certificate().to_fields(), "colour": "blue"}) == certificate()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (certificate(model="c3" * 32), "is of model c3c3c3c3c3c3…, not of a1a1a1a1a1a1…"),
        (
            dataclasses.replace(certificate(), test="tea leaves"),
            "test 'tea leaves' is unknown here .known: binomial, betting",
        ),
        (certificate(epsilon=0.0), "field 'epsilon' is 0.0, expected a number between 0 and 1"),
        (certificate(epsilon=1.0), "field 'epsilon' is 1.0"),
        (certificate(delta=1.5), "field 'delta' is 1.5"),
        (certificate(classes={"cat": evidence(500, 430, 8, 11)}), "says nothing of class 'dog'"),
        (with_cat(images=0, base_right=0, newly_wrong=0), "cat: field 'images' is 0, expected 1 to"),
        (with_cat(images=10**12), "cat: field 'images' is 1000000000000, expected 1 to"),
        (with_cat(base_right=501), "cat: field 'base_right' is 501, expected 0 to 500"),
        (with_cat(newly_wrong=431), "cat: field 'newly_wrong' is 431, expected 0 to 430"),
        (with_cat(newly_wrong=-1), "cat: field 'newly_wrong' is -1"),
        (with_cat(newly_right=71), "cat: field 'newly_right' is 71, expected 0 to 70"),
        (with_cat(p_value=0.1001), "cat: field 'p_value' is 0.1001, expected at most delta = 0.1"),
        (with_cat(p_value=-0.1), "cat: field 'p_value' is -0.1"),
        (certificate(delta=0.01), "cat: field 'p_value' is 0.0"),
        (with_cat(p_value=0.01), "cat: field 'p_value' is 0.01, but its counts give 0.0"),
        (with_cat(newly_wrong=7), "cat: field 'p_value' is .* but its counts give"),
        (certificate(epsilon=0.031), "cat: field 'p_value' is .* but its counts give .* by the binomial test"),
        (
            dataclasses.replace(certificate(), test="clopper-pearson"),
            "cat: field 'p_value' is .* but its counts give .* by the clopper-pearson test",
        ),
    ],
)
def test_a_certificate_that_does_not_show_what_it_claims_is_refused(wrong, message):
    with pytest.raises(MessageError, match=f"^certificate: {message}"):
        wrong.check(MODEL, ["cat", "dog"])


@pytest.mark.parametrize("test", P_VALUES)
def test_a_p_value_that_flatters_its_counts_is_refused_in_every_test(test):
    good = certificate(test)
    worse = {"dog": dataclasses.replace(good.classes["dog"], newly_wrong=30)}
    with pytest.raises(MessageError, match="do not trust this certificate"):
        dataclasses.replace(good, classes=worse).check(MODEL, ["dog"])


@pytest.mark.parametrize("test", P_VALUES)
@settings(deadline=None)
@given(
    st.lists(st.integers(0, 100) | st.integers(0, 1_000_000), min_size=3, max_size=3),
    st.floats(0, 1, exclude_min=True, exclude_max=True) | st.sampled_from([5e-324, 1e-300, 1 - 2**-53]),
)
def test_whatever_the_counts_and_epsilon_the_p_value_is_a_probability(test, numbers, epsilon):
    newly_wrong, changed, images = sorted(numbers)
    assert 0.0 <= P_VALUES[test](images, newly_wrong, changed - newly_wrong, epsilon) <= 1.0


def test_the_largest_certificate_is_checked_at_once():
    """A million images a class: no message can make a device compute for long."""
    for test in P_VALUES:
        big = certificate(test, classes={"cat": ClassEvidence(1_000_000, 600_000, 500_000, 400_000, 0.01)})
        with pytest.raises(MessageError, match="do not trust"):
            big.check(MODEL, ["cat"])


def exact_tail(successes: int, trials: int, rate: float) -> float:
    share = Fraction(rate)
    hit, miss = share.numerator, share.denominator - share.numerator
    ways = sum(math.comb(trials, k) * hit**k * miss ** (trials - k) for k in range(min(successes, trials) + 1))
    return float(Fraction(ways, share.denominator**trials))


@given(st.integers(0, 80), st.integers(0, 80), st.just(0.0) | st.just(1.0) | st.floats(1e-9, 1 - 1e-9))
def test_the_binomial_tail_is_exact(successes, trials, rate):
    assert binomial_tail(successes, trials, rate) == pytest.approx(
        exact_tail(successes, trials, rate), rel=1e-12, abs=1e-300
    )


@pytest.mark.parametrize(
    ("successes", "trials", "rate"),
    [
        (9, 500, 0.03125),
        (22, 1000, 0.03),
        (300, 4000, 0.0625),
        (3800, 4000, 0.9375),
        (3, 1000, 0.5),
        (900, 1000, 0.03125),
    ],
)
def test_the_binomial_tail_of_many_images_is_exact(successes, trials, rate):
    assert binomial_tail(successes, trials, rate) == pytest.approx(
        exact_tail(successes, trials, rate), rel=1e-10, abs=1e-300
    )


def test_a_device_needs_no_scipy_for_it():
    script = """
import sys
sys.modules["scipy"] = None
from edge_runtime.certificate import P_VALUES
print(*(p_value(500, 8, 11, 0.03) <= 0.1 for p_value in P_VALUES.values()))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True"] * 3
