from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from edge_runtime.errors import MessageError, SignatureError, UnknownKeyError
from edge_runtime.signing import TrustedKeys
from edge_runtime.trust import Trust, read_trust, write_trust
from tests.support.signing import TestKey

if TYPE_CHECKING:
    from pathlib import Path

    from edge_runtime.slots import StoredModel

OLD, NEW, NEXT, STRANGER = TestKey(), TestKey(), TestKey(), TestKey()


def trusting(*keys: TestKey, serial: int = 0) -> Trust:
    return Trust.of(TrustedKeys.of(key.public for key in keys), None, serial)


def test_a_manifest_is_accepted_once_and_nothing_older_after_it(base: StoredModel):
    trust = trusting(OLD)
    signed = OLD.sign(base.manifest, serial=5)

    manifest, trust = trust.accepting(signed)
    assert manifest == replace(base.manifest, serial=5)
    for replayed in (signed, OLD.sign(base.manifest, serial=5), OLD.sign(base.manifest, serial=4)):
        with pytest.raises(SignatureError, match=r"serial [45] is not above 5"):
            trust.accepting(replayed)
    assert trust.accepting(OLD.sign(base.manifest, serial=6))[1].serial == 6


def test_what_the_models_in_the_slots_were_signed_with_counts_without_a_file(base: StoredModel):
    with pytest.raises(SignatureError, match="not above 7"):
        trusting(OLD, serial=7).accepting(OLD.sign(base.manifest, serial=7))


def test_a_stranger_and_a_forger_are_told_apart(base: StoredModel):
    signed = OLD.sign(base.manifest, serial=1)

    with pytest.raises(UnknownKeyError, match=f"signed with key {OLD.id}"):
        trusting(STRANGER).accepting(signed)
    with pytest.raises(SignatureError, match="signature is not that of key"):
        trusting(OLD).accepting(replace(signed, signature=bytes(64)))


def test_statements_lead_to_new_keys_and_take_old_ones_away(base: StoredModel):
    statements = [OLD.statement(1, OLD, NEW), NEW.statement(2, NEW)]
    trust = trusting(OLD).following(statements)

    assert trust.accepting(NEW.sign(base.manifest, serial=1))
    with pytest.raises(UnknownKeyError):
        trust.accepting(OLD.sign(base.manifest, serial=1))
    assert trust.following([STRANGER.statement(9, STRANGER)]) == trust
    with pytest.raises(SignatureError, match="damaged"):
        trust.following([b"no statement"])


def test_what_is_kept_holds_as_long_as_the_configuration_stays():
    configured = TrustedKeys.of([OLD.public])
    kept = replace(trusting(OLD).following([OLD.statement(1, NEW)]), serial=9)

    assert Trust.of(configured, kept, 0) == kept
    # Naming the keys that count by now changes nothing else: a former one does not come back by an old statement.
    renamed = Trust.of(TrustedKeys.of([NEW.public]), kept, 0)
    assert (renamed.keys, renamed.serial) == (kept.keys, 9)


def test_a_changed_configuration_wins():
    kept = replace(trusting(OLD).following([OLD.statement(1, OLD, NEW)]), serial=9)

    without_old = Trust.of(TrustedKeys.of([NEW.public]), kept, 0)
    assert set(without_old.keys.keys) == {NEW.id}
    assert without_old.serial == 9, "the same service: its old answers stay old"
    other_service = Trust.of(TrustedKeys.of([STRANGER.public]), kept, 0)
    assert set(other_service.keys.keys) == {STRANGER.id}
    assert other_service.serial == 0


def test_trust_is_kept_in_a_file(tmp_path: Path):
    path = tmp_path / "trust.msgpack"
    trust = replace(trusting(OLD).following([OLD.statement(1, NEW, NEXT)]), serial=1 << 60, told="a" * 64)

    assert read_trust(path) is None
    write_trust(path, trust)
    assert read_trust(path) == trust


def test_every_damage_to_the_file_is_seen(tmp_path: Path):
    path = tmp_path / "trust.msgpack"
    write_trust(path, trusting(OLD, serial=3))
    content = path.read_bytes()

    for place in range(len(content)):
        for damaged in (content[:place], bytes([*content[:place], content[place] ^ 1, *content[place + 1 :]])):
            path.write_bytes(damaged)
            with pytest.raises(MessageError, match=r"trust.msgpack: cannot be used"):
                read_trust(path)
