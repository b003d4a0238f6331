"""Messages between device and cloud survive the way there and back; what is wrong in one is named."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.certificate import Certificate, ClassEvidence
from edge_runtime.errors import MessageError
from edge_runtime.messages import pack, unpack
from edge_runtime.preprocessing import Preprocessing
from edge_runtime.wire import ClassFigures, Manifest, PersonalizeRequest, PlanFile, SelfTest
from tests.edge_runtime.test_signing import MANIFEST

DIGESTS = st.text("0123456789abcdef", min_size=64, max_size=64)
SHARES = st.floats(0, 1)
WHOLE = st.integers(0, 2**63 - 1)
NAMES = st.text(max_size=10)
FIGURES = st.builds(ClassFigures, st.integers(1, 1000), SHARES, SHARES)
EVIDENCE = st.builds(ClassEvidence, *[st.integers(0, 1000)] * 4, SHARES)
CERTIFICATES = st.builds(
    Certificate, DIGESTS, DIGESTS, st.just("binomial"), SHARES, SHARES, st.dictionaries(NAMES, EVIDENCE, max_size=2)
)
TOP_CLASSES = st.lists(st.tuples(st.integers(0, 999), SHARES), min_size=1, max_size=5).map(tuple)
MANIFESTS = st.builds(
    Manifest,
    digest=DIGESTS,
    bytes=WHOLE,
    base=DIGESTS,
    profile=DIGESTS,
    classes=st.lists(NAMES, min_size=1, max_size=5).map(tuple),
    preprocessing=st.just(Preprocessing(8, 8, "grey")),
    usage=st.dictionaries(NAMES, SHARES, max_size=3),
    variant=st.sampled_from("LWMB"),
    epsilon=SHARES,
    guarantee=st.sampled_from(["certified", "empirical", "none"]),
    relative_size=SHARES,
    parameters=WHOLE,
    per_class=st.dictionaries(NAMES, FIGURES, max_size=2),
    cache_tier=st.sampled_from(["search", "exact"]),
    certificate=st.none() | CERTIFICATES,
    serial=WHOLE,
    plan=st.none() | st.builds(PlanFile, DIGESTS, WHOLE),
    self_test=st.none() | st.builds(SelfTest, WHOLE, st.lists(TOP_CLASSES, max_size=4).map(tuple), SHARES),
    temperature=st.floats(0.01, 100),
)
REQUESTS = st.builds(
    PersonalizeRequest,
    base=DIGESTS,
    usage=st.dictionaries(NAMES, SHARES, max_size=3),
    device=NAMES,
    variant=st.none() | NAMES,
    epsilon=st.none() | SHARES,
    guarantee=st.none() | NAMES,
    delta=st.none() | SHARES,
    rolled_back=st.none() | NAMES,
)


@given(MANIFESTS)
def test_a_manifest_survives_the_way(manifest):
    assert Manifest.from_fields(unpack(pack(manifest.to_fields()))) == manifest


@given(REQUESTS)
def test_a_request_survives_the_way(request):
    assert PersonalizeRequest.from_fields(unpack(pack(request.to_fields()))) == request


FIELDS = replace(
    MANIFEST, plan=PlanFile("12" * 32, 100), self_test=SelfTest(7, (((0, 0.9), (1, 0.1)),), 0.01)
).to_fields()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 1}, "wire version 1 is not understood here"),
        ({"digest": "../../etc/passwd"}, "manifest: field 'digest' is '../../etc/passwd', expected a sha256"),
        ({"digest": "AB" * 32}, "expected a sha256 as 64 lower-case hex digits"),
        ({"base": "ab" * 31}, "field 'base'"),
        ({"bytes": -1}, "field 'bytes' is -1"),
        ({"serial": -1}, "field 'serial' is -1"),
        ({"serial": 2**63}, "field 'serial' is 9223372036854775808"),
        ({"serial": True}, "field 'serial' is a bool, expected int"),
        ({"plan": {"digest": "x", "bytes": 1}}, "manifest: plan: field 'digest' is 'x'"),
        ({"plan": {"digest": "12" * 32}}, "manifest: plan: field 'bytes' is missing"),
        ({"plan": 7}, "field 'plan' is a int"),
        ({"self_test": {"seed": 1, "expected": 2, "tolerance": 0.1}}, "manifest: self_test: field 'expected' is a int"),
        ({"self_test": {"seed": 1, "expected": [[[0, 1.0]]] * 65, "tolerance": 0.1}}, "65 images, at most 64"),
        ({"self_test": {"seed": 1, "expected": [[]], "tolerance": 0.1}}, "self_test: image 0: is no list of 1 to 5"),
        ({"self_test": {"seed": 1, "expected": [[[0, 1.0]] * 6], "tolerance": 0.1}}, "image 0: is no list of 1 to 5"),
        ({"self_test": {"seed": 1, "expected": [[[0]]], "tolerance": 0.1}}, "image 0: holds [0], expected"),
        ({"self_test": {"seed": 1, "expected": [[[-1, 0.5]]], "tolerance": 0.1}}, "image 0: field 'index' is -1"),
        ({"self_test": {"seed": 1, "expected": [[[0, "x"]]], "tolerance": 0.1}}, "'probability' is a str"),
        ({"self_test": {"seed": 1, "expected": [], "tolerance": float("nan")}}, "'tolerance' is nan"),
        ({"temperature": "text"}, "field 'temperature' is a str, expected float"),
        ({"temperature": 0.0}, "field 'temperature' is 0, expected 0.01 to 100"),
    ],
)
def test_the_field_that_is_wrong_is_named(change, message):
    with pytest.raises(MessageError) as error:
        Manifest.from_fields(FIELDS | change)
    assert message in str(error.value)


@pytest.mark.parametrize("name", [name for name in FIELDS if name not in ("certificate", "plan", "self_test")])
def test_a_missing_field_is_named(name):
    with pytest.raises(MessageError, match=f"field '{name}' is missing"):
        Manifest.from_fields({key: value for key, value in FIELDS.items() if key != name})


def test_fields_of_a_newer_writer_are_ignored():
    assert Manifest.from_fields({**FIELDS, "news": 1}) == Manifest.from_fields(FIELDS)
