"""A device believes what a trusted key has signed, bit for bit, and follows keys as they come and go."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.errors import ConfigError, MessageError, SignatureError, UnknownKeyError
from edge_runtime.messages import pack, unpack
from edge_runtime.preprocessing import Preprocessing
from edge_runtime.signing import KeyStatement, SignedManifest, TrustedKeys, key_id, public_text
from edge_runtime.wire import Manifest
from tests.support.signing import TestKey

MANIFEST = Manifest(
    digest="ab" * 32,
    bytes=1000,
    base="cd" * 32,
    profile="ef" * 32,
    classes=("cat", "dog"),
    preprocessing=Preprocessing(height=8, width=8, channels="grey"),
    usage={"cat": 1.0},
    variant="L",
    epsilon=0.03,
    guarantee="certified",
    relative_size=0.4,
    parameters=56,
    per_class={},
    cache_tier="search",
    serial=1,
)
OURS, OTHER = TestKey(), TestKey()
TRUSTED = TrustedKeys.of([OURS.public])
SIGNED = OURS.sign(MANIFEST).to_bytes()


class TestManifests:
    def test_a_signed_manifest_arrives_as_it_was_sent(self):
        assert SignedManifest.from_bytes(SIGNED).verified(TRUSTED) == MANIFEST

    def test_another_key_is_not_known(self):
        with pytest.raises(UnknownKeyError, match=f"signed with key {OTHER.id}, trusted are {OURS.id}"):
            OTHER.sign(MANIFEST).verified(TRUSTED)

    def test_another_key_under_our_name_is_refused(self):
        with pytest.raises(SignatureError, match=f"not that of key {OURS.id}"):
            replace(OTHER.sign(MANIFEST), key=OURS.id).verified(TRUSTED)

    def test_another_manifest_under_our_signature_is_refused(self):
        packed = pack(replace(MANIFEST, bytes=1001).to_fields())
        with pytest.raises(SignatureError, match="damaged or forged"):
            replace(OURS.sign(MANIFEST), packed=packed).verified(TRUSTED)

    def test_a_signature_of_another_kind_of_message_is_refused(self):
        """What is signed as a statement is no manifest, even if its bytes read like one."""
        statement = KeyStatement.sign(pack(MANIFEST.to_fields()), OURS.id, OURS.private.sign)
        with pytest.raises(SignatureError):
            SignedManifest.from_bytes(statement.to_bytes()).verified(TRUSTED)

    @given(st.integers(0, 8 * len(SIGNED) - 1))
    def test_no_flipped_bit_goes_unnoticed(self, position):
        damaged = bytearray(SIGNED)
        damaged[position // 8] ^= 1 << position % 8
        with pytest.raises((SignatureError, MessageError)):
            SignedManifest.from_bytes(bytes(damaged)).verified(TRUSTED)

    @given(st.binary(max_size=200) | st.integers(0, len(SIGNED) - 1).map(lambda length: SIGNED[:length]))
    def test_what_is_no_signed_manifest_is_named(self, content):
        with pytest.raises(MessageError):
            SignedManifest.from_bytes(content)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"packed": "text"}, "signed manifest: field 'packed' is a str, expected bytes"),
            ({"key": 7}, "signed manifest: field 'key' is a int, expected str"),
            ({"signature": bytes(63)}, "signed manifest: field 'signature' has 63 bytes, expected 64"),
        ],
    )
    def test_the_field_that_is_wrong_is_named(self, change, message):
        with pytest.raises(MessageError, match=message):
            SignedManifest.from_bytes(pack(unpack(SIGNED) | change))


class TestKeys:
    def test_a_key_is_named_by_the_sha256_of_its_bytes(self):
        assert key_id(bytes(32)) == "66687aadf862bd77"
        assert public_text(bytes(32)) == "ed25519:" + "A" * 43 + "="

    def test_a_configuration_names_keys(self):
        trusted = TrustedKeys.of([OURS.public, OTHER.public])
        assert trusted.serial == 0
        assert list(trusted.keys) == [OURS.id, OTHER.id]

    @pytest.mark.parametrize(
        "text",
        ["", "ed25519:", OURS.public[:-1], OURS.public + "A", OURS.public.replace("ed25519", "rsa"), "ed25519:ä"],
        ids=["nothing", "no-bytes", "short", "long", "another-algorithm", "no-base64"],
    )
    def test_what_is_no_key_is_named(self, text):
        with pytest.raises(ConfigError, match="is no public key: expected 'ed25519:'"):
            TrustedKeys.of([text])

    def test_at_least_one_is_needed(self):
        with pytest.raises(ConfigError, match="no key is named"):
            TrustedKeys.of([])

    def test_they_are_kept_as_bytes(self):
        kept = TrustedKeys(7, TrustedKeys.of([OURS.public, OTHER.public]).keys)
        assert TrustedKeys.from_bytes(kept.to_bytes()) == kept

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"version": 2}, "version 2 is not understood"),
            ({"serial": -1}, "field 'serial' is -1"),
            ({"keys": []}, "has 0 keys"),
            ({"keys": [bytes(31)]}, "no key of 32 bytes"),
            ({"keys": ["text"]}, "no key of 32 bytes"),
            ({"keys": [bytes(32)] * 65}, "has 65 keys"),
        ],
    )
    def test_the_field_that_is_wrong_is_named(self, change, message):
        with pytest.raises(MessageError, match=message):
            TrustedKeys.from_bytes(pack(unpack(TRUSTED.to_bytes()) | change))


class TestStatements:
    """Keys are called by letters; each statement is what the set becomes, signed with a key of the set before."""

    @pytest.fixture
    def keys(self):
        return {name: TestKey() for name in "abcd"}

    @pytest.fixture
    def chain(self, keys):
        a, b, c, d = (keys[name] for name in "abcd")
        return [a.statement(1, a), a.statement(2, b, a), b.statement(3, b), b.statement(4, c, b), c.statement(5, d, c)]

    def names(self, trusted, keys):
        return "".join(name for name, key in keys.items() if key.id in trusted.keys)

    @pytest.mark.parametrize("known", ["a", "b", "c", "d", "ab", "ad"])
    def test_whoever_knows_any_key_of_the_chain_comes_to_its_end(self, keys, chain, known):
        newest = TrustedKeys.of([keys[name].public for name in known]).successor(chain)
        if known == "d":  # no statement is signed with it yet: it is as new as they are
            assert (newest.serial, self.names(newest, keys)) == (0, "d")
        else:
            assert (newest.serial, self.names(newest, keys)) == (5, "cd")

    def test_nobody_else_does(self, chain):
        stranger = TrustedKeys.of([OTHER.public])
        assert stranger.successor(chain) == stranger

    def test_old_statements_change_nothing(self, keys, chain):
        newest = TrustedKeys.of([keys["a"].public]).successor(chain)
        assert newest.successor(chain) == newest
        assert newest.successor(chain[:3]) == newest
        assert newest.successor([]) == newest

    def test_a_revoked_key_cannot_come_back(self, keys, chain):
        """The thief of `a` states after its revocation that it is trusted again."""
        revoked = TrustedKeys.of([keys["a"].public]).successor(chain[:3])
        assert self.names(revoked, keys) == "b"
        assert revoked.successor([keys["a"].statement(99, keys["a"])]) == revoked

    def test_a_serial_that_does_not_rise_is_passed_over(self, keys):
        a, b = keys["a"], keys["b"]
        first = TrustedKeys.of([a.public]).successor([a.statement(2, a, b)])
        assert first.successor([b.statement(2, b)]) == first
        assert first.successor([b.statement(1, b)]) == first

    def test_a_forged_statement_is_an_error(self, keys):
        a, b = keys["a"], keys["b"]
        forged = replace(KeyStatement.from_bytes(b.statement(1, b)), key=a.id).to_bytes()
        with pytest.raises(SignatureError, match=f"key statement: the signature is not that of key {a.id}"):
            TrustedKeys.of([a.public]).successor([forged])

    @pytest.mark.parametrize("content", [b"", b"\xc1", b"\x80", pack({"packed": b"", "key": "k", "signature": b""})])
    def test_a_damaged_statement_is_an_error(self, content):
        with pytest.raises(SignatureError, match="key statements are damaged"):
            TRUSTED.successor([content])

    def test_a_statement_that_leaves_no_key_is_an_error(self):
        nothing = pack({"version": 1, "serial": 9, "keys": []})
        with pytest.raises(SignatureError, match="has 0 keys"):
            TRUSTED.successor([KeyStatement.sign(nothing, OURS.id, OURS.private.sign).to_bytes()])
